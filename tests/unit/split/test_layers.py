import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mocosfl_mpi.split.layers import (
    BasicBlock,
    PlainConv2d,
    Stem,
    WSConv2d,
    convolution,
    group_norm,
    initialise,
    seeded,
)


def test_weight_standardised_convolution_by_its_definition():
    torch.manual_seed(0)
    layer = WSConv2d(3, 5, 3, stride=2, padding=1, bias=True).double()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    filters = torch.empty_like(layer.weight)
    for out in range(5):
        values = layer.weight[out].flatten().tolist()
        mean = sum(values) / len(values)
        unbiased = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
        with torch.no_grad():
            filters[out] = (layer.weight[out] - mean) / (unbiased + 1e-5)
    expected = F.conv2d(images, filters, layer.bias, 2, 1)
    assert torch.allclose(layer(images), expected, rtol=0, atol=1e-12)


def test_weight_standardisation_forgets_scale_and_shift_of_a_filter():
    torch.manual_seed(0)
    layer = WSConv2d(3, 4, 3).double()
    images = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    before = layer(images)
    with torch.no_grad():
        layer.weight.mul_(1e4).add_(7.0)
    assert torch.allclose(layer(images), before, rtol=2e-4, atol=0), "up to the 1e-5 beside the deviation"


def test_weight_standardisation_is_differentiated_through():
    torch.manual_seed(0)
    layer = WSConv2d(1, 2, 3, bias=False).double()
    images = torch.randn(1, 1, 4, 4, dtype=torch.float64)

    def output(weight):
        return torch.func.functional_call(layer, {"weight": weight}, (images,))

    assert torch.autograd.gradcheck(output, (layer.weight.detach().requires_grad_(),))
    (layer(images) ** 2).sum().backward()
    assert layer.weight.grad.sum(dim=(1, 2, 3)).abs().max() < 1e-9, "a shift of a filter changes nothing"


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (8, 2), (64, 16), (512, 128), (2, 1)])
def test_four_channels_per_group(channels, groups):
    norm = group_norm(channels)
    assert (norm.num_groups, norm.eps, norm.affine) == (groups, 1e-5, True)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(224, 7, 2), (64, 3, 2), (32, 3, 1), (96, 3, 1), (16, 3, 1)])
def test_stem_by_image_size(size, kernel, stride):
    stem = Stem(3, 8, size)
    assert stem.conv.kernel_size == (kernel, kernel)
    assert stem.conv.stride == (stride, stride)
    assert stem.conv.bias is None
    assert type(stem.conv) is WSConv2d


def test_block_shortcuts():
    plain = BasicBlock(4, 4, 1, residual=True, standardised=True)
    assert isinstance(plain.shortcut, nn.Identity)
    for outputs, stride in ((8, 1), (4, 2)):
        block = BasicBlock(4, outputs, stride, residual=True, standardised=True)
        assert block.shortcut[0].kernel_size == (1, 1)
        assert type(block.shortcut[0]) is WSConv2d
    none = BasicBlock(4, 8, 2, residual=False, standardised=True)
    assert sum(p.numel() for p in none.parameters()) == 4 * 8 * 9 + 8 * 8 * 9 + 4 * 8
    assert type(BasicBlock(4, 8, 2, residual=True, standardised=False).shortcut[0]) is PlainConv2d


def test_block_by_hand():
    torch.manual_seed(0)
    block = BasicBlock(4, 8, 2, residual=True, standardised=True).double()
    images = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    out = block.norm2(block.conv2(torch.relu(block.norm1(block.conv1(images)))))
    assert torch.equal(block(images), torch.relu(out + block.shortcut(images)))
    bare = BasicBlock(4, 4, 1, residual=False, standardised=True).double()
    assert torch.equal(bare(images), torch.relu(bare.norm2(bare.conv2(torch.relu(bare.norm1(bare.conv1(images)))))))


def test_initialisation_reaches_plain_layers_only():
    with seeded(3):
        standardised, plain = convolution(16, 16, 3), convolution(16, 16, 3, standardised=False)
        linear, transposed = nn.Linear(20, 30), nn.ConvTranspose2d(8, 8, 3)
        kept = standardised.weight.detach().clone()
        for layer in (standardised, plain, linear, transposed):
            initialise(layer)
    assert torch.equal(standardised.weight, kept), "WSConv2d keeps torch's own initialisation"
    assert kept.abs().max() <= 1 / math.sqrt(16 * 9)  # Kaiming-uniform with a = sqrt 5: bound 1/sqrt(fan in)
    for layer, fan_in, fan_out in ((plain, 144, 144), (linear, 20, 30), (transposed, 72, 72)):
        bound = math.sqrt(6 / (fan_in + fan_out))  # Xavier-uniform, gain 1
        assert 0.95 * bound < layer.weight.abs().max() <= bound
        assert layer.bias is None or not layer.bias.any()
    norm = group_norm(8)
    initialise(norm)
    assert norm.weight.eq(1).all()
    assert norm.bias.eq(0).all()
