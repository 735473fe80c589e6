"""A trunk that is entered at two places is the same function, with the same gradients, as its layers one by one."""

import copy

import pytest
import torch

from mocosfl_mpi.config import Model
from mocosfl_mpi.native import load
from mocosfl_mpi.rows import Rows
from mocosfl_mpi.server.stretches import Stretches
from mocosfl_mpi.split import cut
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.streams import Streams
from tests.kernels import kernels_or_skip

RESNET = {"cut_layer": 2, "rich_cut_layer": 4}
BATCH_NORM = {"backbone": "mobilenetv2_published", "cut_layer": 6, "rich_cut_layer": 8}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def built(model, dtype):
    return cut.build(Model(width=8, **model), 1, 16, Streams(0), dtype)


def rows(network, counts, dtype):
    generator = torch.Generator().manual_seed(1)
    shapes = [part.smashed_shape for part in network.cuts]
    parts = zip(counts, shapes, strict=True)
    drawn = [torch.randn(n, *shape, generator=generator, dtype=torch.float64) for n, shape in parts]
    return Rows(tuple(part.relu().to(dtype) for part in drawn))


def reference(backbone, between, rows):
    """The outputs, and what ``backward`` finds at the rows and at the weights."""
    backbone = copy.deepcopy(backbone).double()
    deep, shallow = (part.double().requires_grad_() for part in rows.parts)
    maps = [deep] * (len(deep) > 0) + [backbone[:between](shallow)] * (len(shallow) > 0)
    y = backbone[between:](torch.cat(maps))
    return backbone, (deep, shallow), y


def close(found, wanted, tolerance):
    assert found.shape == wanted.shape
    if found.numel():
        assert ((found.double() - wanted.double()).norm() / wanted.double().norm().clamp(min=1e-30)).item() <= tolerance


@pytest.mark.parametrize(
    ("model", "precision", "tolerance"),
    [(RESNET, "fp64", 1e-13), (BATCH_NORM, "fp64", 1e-10), (RESNET, "fused", 1e-3)],
    ids=["resnet", "batch norm", "fused"],
)
@pytest.mark.parametrize("counts", [(3, 4), (3, 0), (0, 4)], ids=["both", "deep", "shallow"])
@pytest.mark.parametrize("wants_input", [True, False])
def test_forward_and_backward_are_those_of_the_layers(model, precision, tolerance, counts, wants_input):
    if precision == "fused":
        kernels_or_skip(torch.float32)
    engine = Engine("fp32", "fused", load()) if precision == "fused" else Engine("fp64", "stacked")
    network = built(model, engine.weights)
    backbone, between = network.trunk.backbone, model["rich_cut_layer"] - model["cut_layer"]
    entering = rows(network, counts, engine.activations)
    alone, at_rows, wanted = reference(backbone, between, entering)
    stretches = Stretches(backbone, engine, between)
    stretches.begin()
    close(stretches.forward(entering), wanted, tolerance)
    y, pullback = stretches.forward_with_pullback(entering, wants_input=wants_input)
    close(y, wanted, tolerance)
    upstream = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted.backward(upstream)
    found = pullback(upstream.to(engine.activations))
    stretches.end()
    assert (found is not None) == wants_input
    for part, expected in zip(found.parts if found else (), at_rows, strict=found is not None):
        close(part, torch.zeros_like(expected) if expected.grad is None else expected.grad, tolerance)
    for (name, own), expected in zip(backbone.named_parameters(), alone.parameters(), strict=True):
        assert (own.grad is None) == (expected.grad is None), name
        if own.grad is not None:
            close(own.grad, expected.grad, tolerance)


def test_rows_of_one_cut_enter_at_the_beginning():
    network = built(RESNET, torch.float64)
    entering = rows(network, (0, 4), torch.float64)
    stretches = Stretches(network.trunk.backbone, Engine("fp64", "stacked"), 2)
    stretches.begin()
    (_, x), found = entering.parts, stretches.forward(entering.parts[1])
    assert torch.equal(found, stretches.forward(entering))
    assert torch.equal(found, network.trunk.backbone(x))


def test_one_stretch_is_the_backbone():
    network = built({"cut_layer": 2}, torch.float64)
    stretches = Stretches(network.trunk.backbone, Engine("fp64", "stacked"), 0)
    x = torch.randn(3, *network.smashed_shape, dtype=torch.float64)
    stretches.begin()
    y, pullback = stretches.forward_with_pullback(x, wants_input=True)
    assert torch.equal(y, network.trunk.backbone(x))
    own = x.clone().requires_grad_()
    network.trunk.backbone(own).sum().backward()
    assert torch.equal(pullback(torch.ones_like(y)), own.grad)
