"""A client's audit of first layers: from a file of the right layers, of its own images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from torch import nn

from mocosfl_mpi.attacks.shipped import fill, judge
from mocosfl_mpi.attacks.stage import Stage
from mocosfl_mpi.errors import BadInput
from tests.unit.attacks.victims import victim


def layers() -> nn.Module:
    return nn.Conv2d(3, 4, 3)


def arrays(module: nn.Module, prefix: str = "") -> dict:
    return {prefix + name: np.full(value.shape, 0.5, dtype=np.float32) for name, value in module.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "client.online."])
def test_a_file_fills_the_layers(tmp_path, prefix):
    beside = {"server.online.x": np.zeros(3, dtype=np.float32)} if prefix else {}
    (tmp_path / "e.safetensors").write_bytes(save(arrays(layers(), prefix) | beside))
    module = layers()
    fill(module, tmp_path / "e.safetensors")
    assert all(torch.equal(value, torch.full_like(value, 0.5)) for value in module.state_dict().values())


@pytest.mark.parametrize("wrong", ["missing", "text", "layers", "shape", "infinite"])
def test_refusals(tmp_path, wrong):
    file, good = tmp_path / "e.safetensors", arrays(layers())
    if wrong == "text":
        file.write_text("no safetensors")
    elif wrong != "missing":
        changed = {
            "layers": {"weight": good["weight"]},
            "shape": good | {"bias": np.zeros(5, dtype=np.float32)},
            "infinite": good | {"bias": np.full(4, np.inf, dtype=np.float32)},
        }[wrong]
        file.write_bytes(save(changed))
    with pytest.raises(BadInput, match=r"e\.safetensors"):
        fill(layers(), file)


def test_a_client_judges_by_its_own_images(tmp_path):
    stage = Stage(victim())
    leaks = judge(stage, 1, None, 0.8)
    assert not leaks.accepted  # nothing is in its way
    assert judge(stage, 1, None, 0.01).accepted
    zero = {
        name: np.zeros(value.shape, np.float32) for name, value in stage.victim.client(0).online.state_dict().items()
    }
    (tmp_path / "e.safetensors").write_bytes(save(zero))
    silent = judge(stage, 1, tmp_path / "e.safetensors", 0.8)
    assert silent.accepted  # what says nothing hides everything
    assert silent.share > leaks.share
    with pytest.raises(BadInput, match="choose 0 to 11"):
        judge(stage, 12, None, 0.8)
