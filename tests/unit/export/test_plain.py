"""Encoders under other names: the lines that stand beside the weights, executed, give the same features."""

from __future__ import annotations

import ast
import json
import re
import runpy
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mocosfl_mpi.config import apply_settings, parse
from mocosfl_mpi.data._torchvision import torchvision
from mocosfl_mpi.data.sources import scale
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.export import plain
from mocosfl_mpi.export.encoder import Released, released
from mocosfl_mpi.presets import load
from mocosfl_mpi.simulation import Conduct, Simulation
from mocosfl_mpi.split import cut
from mocosfl_mpi.streams import Streams

ROOT = Path(__file__).parents[3]
TOLERANCE = 1e-6


def encoder(*settings: str) -> Released:
    """One with weights as none begins with: norms scale and shift, too."""
    _, values = load("smoke")
    config = parse(apply_settings(values, list(settings)), "test")
    found = scale(config.data)
    size = config.views.size or found.side
    made = cut.build(config.model, found.channels, size, Streams(1), torch.float32)
    layers = [*made.bottom.named_children(), *made.trunk.backbone.named_children()]
    draw = torch.Generator().manual_seed(3)
    for _, layer in layers:
        for parameter in layer.eval().requires_grad_(False).parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    facts = {"method": config.method, "data": config.data.source}
    return Released(layers, config, found, size, facts)


def images(made: Released, count: int = 3) -> torch.Tensor:
    draw = torch.Generator().manual_seed(5)
    shape = (count, made.scale.channels, made.scale.side, made.scale.side)
    return torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)


def loaded(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    torchvision()  # where its compiled operators fit another torch, `import torchvision` needs this before
    return runpy.run_path(str(folder / plain.EXAMPLE))["features"](pixels)


def difference(made: Released, folder: Path) -> float:
    plain.write(made, folder)
    pixels = images(made)
    wanted = made.features(pixels)
    assert wanted.std() > 0.01
    found = loaded(folder, pixels)
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max())


CIFAR = ("data.source=cifar10", "data.train_images=50000", "data.test_images=100", "views.size=32")
EVERYTHING = {
    "published": (*CIFAR, "model.width=64", "model.cut_layer=3"),
    "narrow": (),
    "resized": ("views.size=20",),
    "plain filters": ("model.weight_standardization=false",),
    "resnet34": ("model.backbone=resnet34", "model.cut_layer=5", "views.size=28"),
    "resnet50": ("model.backbone=resnet50", "model.width=8"),
    "stem of 64": (*CIFAR[:3], "views.size=64"),
    "pair behind the stem": ("model.cut_layer=1", "model.bottleneck=C8S2"),
    "pair before a block": ("model.cut_layer=3", "model.bottleneck=K1C8"),
    "pair at the end": ("model.cut_layer=9", "model.bottleneck=C4S1noRELU"),
    "vgg11": ("model.backbone=vgg11", "model.width=8"),
    "vgg with a pair": ("model.backbone=vgg11", "model.width=8", "model.cut_layer=3", "model.bottleneck=C4S2"),
}


@pytest.mark.parametrize("settings", EVERYTHING.values(), ids=EVERYTHING)
def test_the_lines_give_the_same_features(tmp_path, settings):
    assert difference(encoder(*settings), tmp_path) <= TOLERANCE


def test_a_wrong_weight_is_seen(tmp_path):
    made = encoder()
    plain.write(made, tmp_path)
    pixels = images(made)
    made.layers[-1][1].norm2.bias.add_(0.01)
    assert (loaded(tmp_path, pixels) - made.features(pixels)).abs().max() > 100 * TOLERANCE


def test_the_documented_lines_are_those_that_are_written(tmp_path):
    made = encoder(*EVERYTHING["published"])
    plain.write(made, tmp_path)
    text = (ROOT / "docs/interchange.md").read_text()
    (block,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "torchvision" in code]
    block = block.removeprefix(f"# {plain.EXAMPLE}\n")
    assert block == (tmp_path / plain.EXAMPLE).read_text()
    assert len([line for line in block.splitlines() if line and "import" not in line and '"""' not in line]) <= 10


@pytest.mark.parametrize("settings", [(), EVERYTHING["vgg11"]])
def test_the_lines_need_three_libraries_only(settings):
    tree = ast.parse(plain.example(encoder(*settings)))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.split(".")[0] for module in modules} <= {"pathlib", "torch", "torchvision", "safetensors"}


def test_metadata_says_what_goes_in(tmp_path):
    made = encoder(*CIFAR)
    plain.write(made, tmp_path)
    with safe_open(tmp_path / plain.WEIGHTS, "pt") as file:
        metadata = file.metadata()
    facts = json.loads(metadata[plain.METADATA])
    assert metadata["format"] == "pt"
    assert facts["mean"] == [0.4914, 0.4822, 0.4465]
    assert facts["input"] == [3, 32, 32]
    assert facts["resized_to"] == 32
    assert facts["features"] == 32


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (("model.backbone=mobilenetv2", "model.width=16"), "mobilenetv2 differ"),
        (("model.backbone=vit", "model.width=16"), "vit differ"),
        (("model.client_residual=false",), "no shortcut"),
    ],
)
def test_what_torchvision_cannot_build_is_refused(tmp_path, settings, reason):
    with pytest.raises(BadInput, match=reason):
        plain.write(encoder(*settings), tmp_path)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------- of real runs


RUNS = {
    "mocosfl": (),
    "whole networks": ("method=fl_moco",),
    "u-shaped": ("method=split_u_shaped",),
    "two cuts": ("client.rich_share=0.5", "model.rich_cut_layer=4"),
}


@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_what_evaluation_judges_is_exported(tmp_path, settings):
    quick = ("epochs=1", "evaluation.every=0", "evaluation.linear_probe=false", "views.size=16", "data.test_images=20",
             "compute.precision=fp32", "compute.backend=stacked")  # fmt: skip
    _, values = load("smoke")
    config = parse(apply_settings(values, [*quick, *settings]), "test")
    simulation = Simulation.begin(config, Conduct("smoke", tmp_path / "run", quiet=True))
    simulation.run()
    made = released(tmp_path / "run")
    plain.write(made, tmp_path)
    pixels = images(made)
    prepared = simulation.results._judge._prepare(pixels)
    wanted, _ = simulation.results.encoder()(prepared)
    assert (made.features(pixels) - wanted).abs().max() <= TOLERANCE
    assert (loaded(tmp_path, pixels) - wanted).abs().max() <= TOLERANCE
