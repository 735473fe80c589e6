import pytest
import torch
from torch import nn
from torch.nn.utils import vector_to_parameters

from mocosfl_mpi.config import Model
from mocosfl_mpi.split import cut
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.split.stacked import StackedModel
from mocosfl_mpi.streams import Streams


@pytest.fixture(scope="module")
def bottom():
    torch.set_num_threads(1)
    return cut.build(Model(width=4, cut_layer=5, bottleneck="C2S2"), 1, 16, Streams(0), torch.float64).bottom


def stack(bottom, lanes):
    flat = StackedModel(bottom, Engine("fp64", "loop")).flat(bottom)
    generator = torch.Generator().manual_seed(1)
    weights = flat + 0.1 * torch.randn(lanes, len(flat), generator=generator, dtype=torch.float64)
    return weights, torch.randn(lanes, 3, 1, 16, 16, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("backend", ["stacked", "loop"])
@pytest.mark.parametrize("lanes", [1, 3])
def test_lanes_are_independent_networks(bottom, backend, lanes):
    model = StackedModel(bottom, Engine("fp64", backend))
    weights, images = stack(bottom, lanes)
    out, pullback = model.forward_with_pullback(weights, images)
    assert not out.requires_grad
    assert torch.allclose(model.forward(weights, images), out, rtol=0, atol=1e-13)
    gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = pullback(gradient)
    for lane in range(lanes):
        vector_to_parameters(weights[lane], bottom.parameters())
        bottom.zero_grad()
        expected = bottom(images[lane])
        expected.backward(gradient[lane])
        own = torch.cat([p.grad.reshape(-1) for p in bottom.parameters()])
        assert torch.allclose(out[lane], expected, rtol=0, atol=1e-12)
        assert torch.allclose(found[lane], own, rtol=0, atol=1e-10 * own.abs().max().item())


def test_flat_is_a_copy_in_the_order_of_the_names(bottom):
    model = StackedModel(bottom, Engine("fp64", "stacked"))
    weights = torch.arange(model.parameters, dtype=torch.float64)
    vector_to_parameters(weights, bottom.parameters())
    assert torch.equal(model.flat(bottom), weights)
    assert model.spans[-1][1] == model.parameters == len(weights)
    assert model.names == [name for name, _ in bottom.named_parameters()]
    copied = model.flat(bottom)
    copied.zero_()
    assert torch.equal(model.flat(bottom), weights)


def test_forward_leaves_weights_alone(bottom):
    model = StackedModel(bottom, Engine("fp64", "stacked"))
    weights, images = stack(bottom, 2)
    before = weights.clone()
    _, pullback = model.forward_with_pullback(weights, images)
    pullback(torch.zeros_like(model.forward(weights, images)))
    assert torch.equal(weights, before)
    assert not weights.requires_grad


def test_buffers_are_refused():
    with pytest.raises(ValueError, match="buffers"):
        StackedModel(nn.BatchNorm2d(3), Engine("fp64", "stacked"))


@pytest.mark.parametrize("backend", ["stacked", "loop"])
def test_a_module_of_its_own_computes_the_same_and_shares_nothing(bottom, backend):
    model = StackedModel(bottom, Engine("fp64", backend))
    weights, images = stack(bottom, 2)
    kept = weights.clone()
    own = model.module(weights[1])
    assert torch.allclose(own(images[1]), model.forward(weights, images)[1], rtol=1e-11, atol=1e-13)
    before = [parameter.detach().clone() for parameter in bottom.parameters()]
    with torch.no_grad():
        for parameter in own.parameters():
            assert parameter.requires_grad
            parameter.zero_()
    assert torch.equal(weights, kept)
    assert all(torch.equal(a, b) for a, b in zip(before, bottom.parameters(), strict=True))
