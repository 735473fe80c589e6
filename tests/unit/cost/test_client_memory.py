from dataclasses import fields

import pytest
import torch
from torch import nn

from mocosfl_mpi.cost.memory import ClientMemory, measure
from mocosfl_mpi.record.schema import MEMORY

B, SIDE = 5, 16
VIEW = B * 3 * SIDE * SIDE * 4
MAP = B * 8 * SIDE * SIDE * 4
WEIGHTS = 8 * 3 * 9 * 4


def _conv(inputs=3, outputs=8):
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def test_the_fields_are_the_kinds():
    assert tuple(field.name for field in fields(ClientMemory)) == MEMORY


def test_one_convolution_by_hand():
    # It saves only its input and its weights. Backward: query, output, gradient of the output, gradient of weights.
    assert measure(_conv(), (3, SIDE, SIDE), B, frozen=False) == ClientMemory(
        weights=WEIGHTS,
        momentum_weights=WEIGHTS,
        velocity=WEIGHTS,
        gradients=WEIGHTS,
        input=2 * VIEW,
        activations=0,
        peak=3 * WEIGHTS + VIEW + 2 * MAP + WEIGHTS,
    )


def test_convolution_and_relu_by_hand():
    # ReLU saves its output. Backward of the convolution: query, output, two gradients of its size, that of the weights.
    found = measure(nn.Sequential(_conv(), nn.ReLU()), (3, SIDE, SIDE), B, frozen=False)
    assert found.activations == MAP
    assert found.peak == 3 * WEIGHTS + VIEW + 3 * MAP + WEIGHTS


def test_the_key_forward_can_be_the_peak():
    # 30 channels in, 1 out: two views outweigh everything that the backward adds to one.
    view, out, weights = B * 30 * SIDE * SIDE * 4, B * SIDE * SIDE * 4, 30 * 9 * 4
    found = measure(_conv(30, 1), (30, SIDE, SIDE), B, frozen=False)
    assert found.peak == 3 * weights + 2 * view + out


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_a_frozen_client_holds_two_maps_at_any_depth(layers):
    net = nn.Sequential(_conv(), *[_conv(8, 8) for _ in range(layers)])
    weights = WEIGHTS + layers * 8 * 8 * 9 * 4
    found = measure(net, (3, SIDE, SIDE), B, frozen=True)
    assert (found.velocity, found.gradients, found.activations) == (0, 0, 0)
    assert found.peak == 2 * weights + 2 * VIEW + 2 * MAP


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_a_learning_client_keeps_every_map(layers):
    net = nn.Sequential(_conv(), *[_conv(8, 8) for _ in range(layers)])
    assert measure(net, (3, SIDE, SIDE), B, frozen=False).activations == layers * MAP


def test_a_saved_tensor_shared_by_two_operators_counts_once():
    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = _conv()

        def forward(self, x):
            y = self.conv(x)
            return y * y + torch.sin(y)

    assert measure(Square(), (3, SIDE, SIDE), B, frozen=False).activations == MAP


def test_precision_and_rows_scale_and_the_module_stays_untouched():
    net = nn.Sequential(_conv(), nn.GroupNorm(2, 8), nn.ReLU())
    before = [p.clone() for p in net.parameters()]
    single, double = measure(net, (3, SIDE, SIDE), B, False), measure(net.double(), (3, SIDE, SIDE), B, False)
    assert all(getattr(double, kind) == 2 * getattr(single, kind) for kind in MEMORY)
    more = measure(net, (3, SIDE, SIDE), 3 * B, False)
    assert more.weights == double.weights
    assert more.activations == 3 * double.activations
    assert all(torch.equal(p, q.double()) and p.grad is None for p, q in zip(net.parameters(), before, strict=True))


def test_buffers_are_part_of_the_model():
    found = measure(nn.Sequential(_conv(), nn.BatchNorm2d(8)), (3, SIDE, SIDE), B, frozen=False)
    assert found.weights == WEIGHTS + 4 * 8 * 4 + 8  # gain, bias, running mean and variance; an int64 counter
    assert found.gradients == WEIGHTS + 2 * 8 * 4


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="rows = 0"):
        measure(_conv(), (3, SIDE, SIDE), 0, frozen=False)
