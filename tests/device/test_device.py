"""``compute.device=cuda``: the same bits on any number of ranks, resumed too, and what processors compute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mocosfl_mpi import devices
from mocosfl_mpi.config import Compute
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.checkpoint import newest
from mocosfl_mpi.record.reader import differences, open_run
from mocosfl_mpi.split.engine import Accelerator
from tests.device import standin
from tests.mpi.many import carry_out
from tests.mpi.test_rank_invariance import EVALUATED, LEDGER, ROWS, words

pytestmark = pytest.mark.mpi

ROOT = Path(__file__).parents[2]

ON_DEVICE = "compute.device=cuda"
BF16 = ("compute.precision=bf16", "compute.backend=stacked")
DOUBLE = "compute.precision=fp64"
FEW = (
    *("monacosfl, published", "sfl_v2, resistance with BatchNorm", "split_u_shaped", "two cuts"),
    *("three states, private memories", "every defence"),
)
"""What the quick suite has; the other rows are slow."""
NAMES = [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in ROWS]


def settings(row, *more):
    """A row of the rank-invariance tests without what it says about the arithmetic."""
    kept = [setting for setting in row if not setting.startswith(("compute.precision", "compute.backend"))]
    if BF16[0] in more and any(setting.startswith("communication.") and setting.endswith("=bf16") for setting in row):
        more = ("compute.precision=fp32", *more[1:])  # which is refused where everything is in bfloat16
    return [*kept, "compute.server_threads=1", *more]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, ranks_module):
    """A row with settings added on a number of ranks, with its like in one start of MPI; its directory."""
    done = {}

    def at(ranks, name, *more):
        few = name in FEW
        key = ranks, few, more
        if key not in done:
            folder = tmp_path_factory.mktemp(f"on-{ranks}")
            paths = {own: folder / str(number) for number, own in enumerate(ROWS) if (own in FEW) == few}
            commands = [words(path, *settings(ROWS[own], *more)) for own, path in paths.items()]
            carry_out(commands, ranks, folder / "rows.json", module=ranks_module)
            done[key] = paths
        return done[key][name]

    return at


@pytest.mark.parametrize("ranks", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 5))])
@pytest.mark.parametrize("name", NAMES)
def test_every_rank_count_gives_the_same_bits(runs, name, ranks):
    few, more = (runs(count, name, *BF16, ON_DEVICE) for count in (1, ranks))
    with open_run(few) as one, open_run(more) as many:
        assert one.attrs["config"]["compute"]["device"] == "cuda"
        assert differences(one, many) is None
        for series in set(one.names) & {*EVALUATED, *LEDGER}:
            np.testing.assert_array_equal(one[series], many[series], err_msg=series)


@pytest.mark.parametrize("name", NAMES)
def test_it_computes_what_processors_compute(runs, name):
    """Losses, accuracies and the trained state, in float64."""
    there, here = (runs(1, name, DOUBLE, more) for more in (ON_DEVICE, "compute.backend=stacked"))
    with open_run(there) as one, open_run(here) as other:
        for series in ("steps/loss", "result/knn_top1", *sorted(set(one.names) & {*EVALUATED, *LEDGER})):
            np.testing.assert_allclose(one[series], other[series], rtol=1e-9, atol=1e-12, err_msg=series)
    (one, _), (other, _) = (newest(path / "checkpoints") for path in (there, here))
    assert one.names("") == other.names("")
    for name in set(one.names("")) - {"chronicle"}:  # which knows the time
        for key, value in other.arrays(name).items():
            if value.dtype.kind == "f":
                np.testing.assert_allclose(one.arrays(name)[key], value, rtol=1e-6, atol=1e-9, err_msg=f"{name} {key}")


@pytest.mark.parametrize(
    "name",
    [
        *("every defence", "three states, private memories"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("monacosfl, published", "fedema")),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_bits(runs, name, tmp_path, ranks_module):
    """Stopped after its first step on three ranks, then on one, then finished on two."""
    command = words(tmp_path / "run", *settings(ROWS[name], *BF16, ON_DEVICE))
    for number, ranks in enumerate((3, 1)):
        stop = [[*command, "--max-hours", "1e-9"]]
        carry_out(stop, ranks, tmp_path / f"{number}.json", expect=75, module=ranks_module)
    carry_out([command], 2, tmp_path / "last.json", module=ranks_module)
    with open_run(runs(1, name, *BF16, ON_DEVICE)) as whole, open_run(tmp_path / "run") as parts:
        assert differences(whole, parts) is None


REFUSED = """
import pytest, torch
from tests.device import standin

there, here = torch.ones(2, 2).to(standin.device()), torch.ones(2, 2)
with pytest.raises(RuntimeError, match=r"same device|lies on"):
    there + here
with pytest.raises(RuntimeError, match=r"same device|lies on"):
    torch.cat([there, here])
with pytest.raises(TypeError, match="numpy"):
    there.numpy()
assert float((there + 1.0).sum()) == 8.0
"""


def test_the_stand_in_refuses_what_a_gpu_refuses():
    """In a process of its own: torch asks a device that it has met at many places."""
    if standin.compiler() is None:
        pytest.skip("no C++ compiler for the stand-in")
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "scene",
    [
        "images_lie_on_the_device_once",
        "classifiers_are_computed_where_there_is_room",
        "a_pool_passes_at_once",
        "what_torch_cannot_compile_for_is_refused",
    ],
)
def test_on_the_stand_in(scene):
    if standin.compiler() is None:
        pytest.skip("no C++ compiler for the stand-in")
    command = [sys.executable, "-c", f"from tests.device import scenes; scenes.{scene}()"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


class Ranks:
    """What four ranks on two nodes say of themselves, seen by one of them."""

    host_name = "a"

    def __init__(self, rank, counts):
        self.rank = rank
        self._everyone = [[host, count, True] for host, count in zip("aaab", counts, strict=True)]

    def gather_json(self, own):
        assert own[0] == "a"
        return self._everyone

    def root_decides(self, work):
        return work()

    def broadcast_json(self, value):
        return value


@pytest.mark.parametrize(("rank", "place"), [(0, 0), (1, 1), (2, 0), (3, 0)])
def test_ranks_share_the_gpus_of_their_node_in_turn(monkeypatch, rank, place):
    monkeypatch.setattr(devices, "_prepare", lambda device: None)
    found = devices.common(Compute(device="cuda"), Ranks(rank, [2, 2, 2, 1]))
    assert found == Accelerator(torch.device("cuda", place), bfloat16=True)


def test_a_rank_without_a_gpu_is_named():
    with pytest.raises(BadInput, match="sees no GPU on rank 3 on b;"):
        devices.common(Compute(device="cuda"), Ranks(0, [1, 1, 1, 0]))


def test_processors_ask_nobody():
    assert devices.common(Compute(), None) is None
