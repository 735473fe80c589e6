import numpy as np
import pytest
import torch
from torch import nn

from mocosfl_mpi.clients.block import Block
from mocosfl_mpi.config import Client
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.split.stacked import StackedModel

LANES = 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(1, 4), nn.ReLU()).double()


def block(backend="stacked", **settings):
    module = network()
    model = StackedModel(module, Engine("fp64", backend))
    flat = model.flat(module)
    state = {
        "online": flat.repeat(LANES, 1),
        "momentum": flat.repeat(LANES, 1),
        "velocity": torch.zeros(LANES, len(flat), dtype=torch.float64),
    }
    return Block(np.arange(LANES), state, model, Client(**settings)), module


EVERYBODY = torch.ones(LANES, dtype=torch.bool)


def images(seed):
    return torch.randn(LANES, 2, 1, 5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("backend", ["stacked", "loop"])
def test_sgd_is_that_of_torch_with_a_rate_for_each_lane(backend):
    mine, module = block(backend, momentum=0.8, weight_decay=0.03)
    rates = torch.tensor([0.1, 0.0, 0.5], dtype=torch.float64)
    networks = [network() for _ in range(LANES)]
    optimisers = [
        torch.optim.SGD(n.parameters(), lr=float(rate), momentum=0.8, weight_decay=0.03)
        for n, rate in zip(networks, rates, strict=True)
    ]
    for step in range(4):
        out, _ = mine.forward(images(step), images(10 + step))
        gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(20 + step), dtype=torch.float64)
        mine.backward(gradient, rates, EVERYBODY)
        for lane, (n, optimiser) in enumerate(zip(networks, optimisers, strict=True)):
            expected = n(images(step)[lane])
            assert torch.allclose(out[lane], expected, rtol=0, atol=1e-12)
            optimiser.zero_grad()
            expected.backward(gradient[lane])
            optimiser.step()
    model = StackedModel(module, Engine("fp64", "loop"))
    for lane, n in enumerate(networks):
        assert torch.allclose(mine.state["online"][lane], model.flat(n), rtol=0, atol=1e-12)
    assert torch.equal(mine.state["online"][1], mine.state["momentum"][1]), "rate 0 leaves the weights bit for bit"


def test_clients_without_an_answer_stay_bit_for_bit_and_the_others_do_not_notice():
    mine, alone = block(momentum=0.8)[0], block(momentum=0.8)[0]
    rates = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    for step, answered in enumerate(([True] * 3, [True, False, True])):
        out, _ = mine.forward(images(step), images(10 + step))
        alone.forward(images(step), images(10 + step))
        before = {name: value.clone() for name, value in mine.state.items()}
        mine.backward(torch.ones_like(out), rates, torch.tensor(answered))
        alone.backward(torch.ones_like(out), rates, EVERYBODY)
    for state in ("online", "velocity"):
        assert torch.equal(mine.state[state][1], before[state][1])
        assert not torch.equal(alone.state[state][1], before[state][1])
        for lane in (0, 2):
            assert torch.equal(mine.state[state][lane], alone.state[state][lane])


def test_momentum_update_before_the_first_step_changes_no_bit():
    mine, _ = block()
    before = mine.state["momentum"].clone()
    mine.update_momentum(0.99)
    assert torch.equal(mine.state["momentum"], before)


@pytest.mark.parametrize("tau", [0.0, 0.5, 0.99, 1.0])
def test_momentum_update(tau):
    mine, _ = block()
    mine.state["online"] = torch.randn_like(mine.state["online"])
    expected = tau * mine.state["momentum"] + (1 - tau) * mine.state["online"]
    online = mine.state["online"].clone()
    mine.update_momentum(tau)
    assert torch.allclose(mine.state["momentum"], expected, rtol=0, atol=1e-14)
    assert torch.equal(mine.state["online"], online)


def test_query_meets_the_online_and_key_the_momentum_model():
    mine, module = block()
    mine.state["momentum"] = mine.state["momentum"] * 1.5
    query, key = mine.forward(images(0), images(1))
    model = StackedModel(module, Engine("fp64", "loop"))
    assert torch.allclose(query, model.forward(mine.state["online"], images(0)), rtol=0, atol=1e-13)
    assert torch.allclose(key, model.forward(mine.state["momentum"], images(1)), rtol=0, atol=1e-13)
    assert not query.requires_grad
    assert not key.requires_grad


def test_frozen_block_keeps_no_graph():
    mine, _ = block(frozen=True)
    query, _ = mine.forward(images(0), images(1))
    with pytest.raises(AssertionError):
        mine.backward(torch.zeros_like(query), torch.zeros(LANES), EVERYBODY)


def test_backward_needs_a_forward_of_its_own():
    mine, _ = block()
    out, _ = mine.forward(images(0), images(1))
    mine.backward(torch.zeros_like(out), torch.ones(LANES, dtype=torch.float64), EVERYBODY)
    with pytest.raises(AssertionError):
        mine.backward(torch.zeros_like(out), torch.ones(LANES, dtype=torch.float64), EVERYBODY)
