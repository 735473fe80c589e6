"""The fused backend is the same function, with the same gradients, as the layers it takes apart."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from mocosfl_mpi.config import Model
from mocosfl_mpi.native import load
from mocosfl_mpi.networks import STAGES
from mocosfl_mpi.server.passes import FusedPasses, TorchPasses
from mocosfl_mpi.split import cut
from mocosfl_mpi.split.engine import Engine, choose
from mocosfl_mpi.split.fused import FusedNetwork
from mocosfl_mpi.split.stacked import StackedModel
from mocosfl_mpi.streams import Streams
from tests.kernels import kernels_or_skip

LANES, ROWS = 3, 2
NETWORKS = {
    "stem": {"cut_layer": 1},
    "a block": {"cut_layer": 2},
    "a strided block with its shortcut": {"cut_layer": 4},
    "no shortcuts": {"cut_layer": 4, "client_residual": False},
    "plain convolutions": {"cut_layer": 4, "weight_standardization": False},
    "bottleneck": {"cut_layer": 2, "bottleneck": "C4S2"},
    "bottleneck of two stages": {"cut_layer": 1, "bottleneck": "C2S4"},
    "blocks of three convolutions": {"cut_layer": 3, "backbone": "resnet50"},
    "a strided block of three": {"cut_layer": 4, "backbone": "resnet50"},
    "no shortcuts over three": {"cut_layer": 2, "backbone": "resnet50", "client_residual": False},
    "narrow bottleneck": {"cut_layer": 1, "bottleneck": "K5C2noRELU"},
}
SERVERS = [
    {"cut_layer": 1},
    {"cut_layer": 2, "bottleneck": "C4S2"},
    {"cut_layer": 9},
    {"cut_layer": 4, "backbone": "resnet50"},
]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    kernels_or_skip(torch.float32)
    monkeypatch.setitem(STAGES, "resnet50", (2, 1, 1, 2))  # rounding grows with depth
    torch.set_num_threads(1)


def engine(precision):
    return Engine(precision, "fused", load())


def network(settings, channels=3, dtype=torch.float32):
    return cut.build(Model(width=8, **settings), channels, 16, Streams(0), dtype)


def noise(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(got, wanted):
    got, wanted = got.detach().double(), wanted.detach().double()
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("precision", "output", "gradient"), [("fp32", 1e-6, 1e-4), ("bf16", 0.03, 0.25)])
@pytest.mark.parametrize("name", NETWORKS)
def test_clients(name, precision, output, gradient):
    """White-noise gradients flip ReLUs that lie at zero: the tolerance on gradients is that of a flip or two."""
    found = engine(precision)
    if found.activations not in found.kernels.convolves:
        pytest.skip(f"this processor has no instruction for {precision} convolutions")
    exact = StackedModel(network(NETWORKS[name], dtype=torch.float64).bottom, Engine("fp64", "loop"))
    fused = StackedModel(network(NETWORKS[name]).bottom, found)
    flat = exact.flat(network(NETWORKS[name], dtype=torch.float64).bottom)
    weights = flat + 0.05 * noise(LANES, len(flat), seed=1)
    images = noise(LANES, ROWS, 3, 16, 16, seed=2)
    wanted, back = exact.forward_with_pullback(weights, images)
    got, pullback = fused.forward_with_pullback(weights.float(), images.float())
    assert got.dtype is found.activations
    assert torch.equal(got, fused.forward(weights.float(), images.float()))
    assert distance(got, wanted) < output
    upstream = noise(*wanted.shape, seed=3)
    found_gradient = pullback(upstream.to(got.dtype))
    assert found_gradient.dtype is torch.float32
    right = back(upstream)
    assert distance(found_gradient, right) < gradient
    for start, end in fused.spans:  # no tensor is forgotten among larger ones
        assert distance(found_gradient[:, start:end], right[:, start:end]) < 2 * gradient


@pytest.mark.parametrize(("precision", "output", "gradient"), [("fp32", 1e-5, 1e-3), ("bf16", 0.05, 0.4)])
@pytest.mark.parametrize("settings", SERVERS)
def test_server(precision, output, gradient, settings):
    exact = network(settings, dtype=torch.float64).trunk.backbone
    mine = network(settings).trunk.backbone
    shape = network(settings).smashed_shape
    right, fused = TorchPasses(exact, Engine("fp64", "stacked")), FusedPasses(mine, engine(precision))
    x = noise(6, *shape, seed=1)
    for each in (right, fused):
        each.begin()
    outputs = []
    for part in x.split(3):  # two micro-batches: gradients add up
        outputs.append([])
        for each, dtype in ((right, torch.float64), (fused, engine(precision).activations)):
            y, pullback = each.forward_with_pullback(part.to(dtype), wants_input=True)
            assert distance(each.forward(part.to(dtype)), y) == 0
            outputs[-1].append((y, pullback(noise(*y.shape, seed=2).to(dtype))))
    for each in (right, fused):
        each.end()
    for (y, dx), (other, dother) in outputs:
        assert distance(other, y) < output
        assert distance(dother, dx) < gradient
    for one, other in zip(exact.parameters(), mine.parameters(), strict=True):
        assert distance(other.grad, one.grad) < 2 * gradient


def test_parameters_stay_the_modules_own():
    """The optimiser changes the module's tensors in place, and the passes see it at the next begin."""
    backbone = network({"cut_layer": 8}).trunk.backbone
    fused = FusedPasses(backbone, engine("fp32"))
    x = noise(2, *network({"cut_layer": 8}).smashed_shape, seed=1).float()
    fused.begin()
    before = fused.forward(x)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    fused.begin()
    after = fused.forward(x)
    assert distance(after, before) > 0.01
    assert distance(after, backbone(x)) < 1e-5


def test_without_gradient_at_the_input():
    fused = FusedPasses(network({"cut_layer": 7}).trunk.backbone, engine("fp32"))
    x = noise(2, *network({"cut_layer": 7}).smashed_shape, seed=1).float()
    fused.begin()
    y, pullback = fused.forward_with_pullback(x, wants_input=False)
    assert pullback(torch.ones_like(y)) is None


def test_unknown_layers_are_not_taken():
    kernels = load()
    assert not FusedNetwork.supports(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()), kernels, torch.float32, library=True)
    odd = network({"cut_layer": 1, "bottleneck": "C3"})
    assert not FusedNetwork.supports(odd.bottom, kernels, torch.bfloat16, library=False)
    even = network({"cut_layer": 1, "bottleneck": "C2"})
    assert not FusedNetwork.supports(even.bottom, kernels, torch.float64, library=False)
    with pytest.raises(ValueError, match="does not know"):
        FusedNetwork(nn.Sequential(nn.Tanh()), kernels, torch.float32, library=True)


def test_choice_of_engine():
    from mocosfl_mpi.config import Compute

    kernels = load()
    best = "bf16" if torch.bfloat16 in kernels.convolves else "fp32"
    normal, odd = network({"cut_layer": 1}), network({"cut_layer": 1, "bottleneck": "C3"})
    assert choose(Compute(), kernels, normal) == Engine(best, "fused", kernels)
    assert choose(Compute(), None, normal) == Engine("fp32", "stacked")
    assert choose(Compute(precision="bf16"), None, normal) == Engine("bf16", "stacked")
    assert choose(Compute(backend="fused", precision="fp32"), kernels, odd) == Engine("fp32", "stacked")
    assert choose(Compute(precision="fp64"), kernels, normal) == Engine("fp64", "stacked")
    assert choose(Compute(backend="loop", precision="fp32"), kernels, normal) == Engine("fp32", "loop")


@pytest.mark.parametrize("backend", ["stacked", "loop"])
def test_torch_backends_in_bf16(backend):
    built = network({"cut_layer": 3}, dtype=torch.float64)
    exact = StackedModel(built.bottom, Engine("fp64", "loop"))
    model = StackedModel(network({"cut_layer": 3}).bottom, Engine("bf16", backend))
    weights = exact.flat(built.bottom).repeat(LANES, 1)
    images = noise(LANES, ROWS, 3, 16, 16, seed=2)
    got, pullback = model.forward_with_pullback(weights.float(), images.float())
    wanted, back = exact.forward_with_pullback(weights, images)
    assert got.dtype is torch.bfloat16
    assert distance(got, wanted) < 0.03
    upstream = noise(*wanted.shape, seed=3)
    gradient = pullback(upstream.bfloat16())
    assert gradient.dtype is torch.float32
    assert distance(gradient, back(upstream)) < 0.25


def test_sgd_agrees_with_that_of_torch():
    bottom = network({"cut_layer": 1}).bottom
    fused, stacked = StackedModel(bottom, engine("fp32")), StackedModel(bottom, Engine("fp32", "stacked"))
    start = noise(2, LANES, 50, seed=0).float()
    gradient, rates = noise(LANES, 50, seed=1).float(), torch.tensor([0.1, 0.2, 0.3])
    one, other = start.clone(), start.clone()
    for model, state in ((fused, one), (stacked, other)):
        model.sgd(*state, gradient, rates, torch.tensor([True, False, True]), momentum=0.9, decay=0.1)
    assert distance(one, other) < 1e-7
    assert distance(one, start) > 0.1
    for state in (one, other):
        assert torch.equal(state[:, 1], start[:, 1]), "no answer, no change"


def test_two_threads_and_an_odd_batch_leave_memory_whole():
    """oneDNN's own gradient of the 1x1 shortcuts corrupted the heap here; in a process of its own, since it crashes."""
    script = """
import torch
from tests.unit.split import test_fused as here
from mocosfl_mpi.server.passes import FusedPasses, TorchPasses
torch.set_num_threads(2)
built = here.network({"cut_layer": 1})
x = torch.randn(3, *built.smashed_shape).contiguous(memory_format=torch.channels_last)
backbone = built.trunk.backbone
for passes in (FusedPasses(backbone, here.engine("fp32")), TorchPasses(backbone, here.Engine("fp32", "stacked"))):
    for _ in range(40):
        passes.begin()
        y, pullback = passes.forward_with_pullback(x, wants_input=True)
        pullback(torch.randn_like(y))
        passes.end()
"""
    patient = os.environ | {"OMP_WAIT_POLICY": "passive"}  # threads that spin would keep each other off a busy core
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False, env=patient
    )
    assert done.returncode == 0, done.stderr
