import pytest
import torch
from torch import nn

from mocosfl_mpi.cost import flops
from mocosfl_mpi.cost.flops import measure, per_image, per_step, totals
from mocosfl_mpi.record.schema import WORK


def _conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def _block():
    return nn.Sequential(_conv(64, 64), nn.GroupNorm(16, 64), nn.ReLU(), _conv(64, 64), nn.GroupNorm(16, 64))


def test_known_macs_of_resnet18():
    stem, block = measure(_conv(3, 64), (3, 32, 32)).last, measure(_block(), (64, 32, 32)).answering
    assert stem.macs == 64 * 3 * 9 * 32 * 32 == 1_769_472  # 1.769 MMAC, spec 1.2
    assert block.macs == 2 * 64 * 64 * 9 * 32 * 32 == 75_497_472  # 75.5 MMAC
    assert stem.forward == 2 * stem.macs
    assert block.parameters == 2 * 64 * 64 * 9 + 4 * 64


def test_an_image_needs_no_gradient_and_smashed_data_do():
    server, client = measure(_conv(3, 64), (3, 32, 32))
    assert client.backward_weights == server.backward_weights == client.forward
    assert client.backward_input == 0
    assert server.backward_input == server.forward
    assert server.backward == 2 * server.forward


def test_gradients_inside_a_segment_are_counted():
    net = nn.Sequential(_conv(3, 8), nn.ReLU(), _conv(8, 4))
    first, second = 2 * 3 * 8 * 9 * 64, 2 * 8 * 4 * 9 * 64
    client = measure(net, (3, 8, 8)).last
    assert client.forward == client.backward_weights == first + second
    assert client.backward_input == second
    assert measure(net, (3, 8, 8)).answering.backward_input == first + second


def test_what_does_not_learn_costs_no_weight_gradient():
    net = nn.Sequential(_conv(3, 8), _conv(8, 4))
    net[0].requires_grad_(False)
    cost = measure(net, (3, 8, 8)).last
    assert cost.backward_weights == 2 * 8 * 4 * 9 * 64
    assert cost.backward_input == 0  # nothing below the first layer that learns is needed
    assert cost.parameters == 8 * 4 * 9
    net.requires_grad_(False)
    assert measure(net, (3, 8, 8)).last.backward == 0


def test_linear_layers_and_batch_norm():
    head = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 10))
    before = {name: value.clone() for name, value in head.state_dict().items()}
    cost = measure(head, (20,)).answering
    assert cost.forward == 2 * (20 * 30 + 30 * 10)
    assert cost.backward == 2 * cost.forward
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in head.parameters())


@pytest.mark.parametrize("rows", [1, 3])
def test_shapes_alone_count_what_a_cpu_counts(rows):
    net = _block()
    x = torch.randn(rows, 64, 8, 8, requires_grad=True)
    cost = measure(net, (64, 8, 8)).answering
    with torch.no_grad(), flops.FlopCounterMode(display=False) as forward:
        net(x)
    out = net(x)
    with flops.FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert forward.get_total_flops() == rows * cost.forward
    assert backward.get_total_flops() == rows * cost.backward


def test_kinds_and_totals():
    cost = flops.SegmentCost(forward=10, backward_weights=7, backward_input=5, parameters=100)
    assert list(per_image(cost, False)) == list(per_step(cost, False)) == list(WORK)
    assert totals(cost, steps=2, rows=3, frozen=False) == {
        "query_forward": 60,
        "key_forward": 60,
        "backward": 72,
        "ema": 600,
        "optimiser": 1200,
    }
    assert totals(cost, steps=2, rows=3, frozen=True) == {
        "query_forward": 60,
        "key_forward": 60,
        "backward": 0,
        "ema": 0,
        "optimiser": 0,
    }
