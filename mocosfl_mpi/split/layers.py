"""The few layers that the backbones are made of: weight standardisation, GroupNorm, residual block.

Weights keep their own type (the masters'); a convolution is computed in that of its images, which may be narrower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS_PER_GROUP = 4


class WSConv2d(nn.Conv2d):
    """Convolution with weight standardisation (Qiao et al. 2019) as MocoSFL has it.

    Each output filter is centred and divided by (unbiased standard deviation + 1e-5) at every forward pass;
    no gain, no fan-in scaling. Keeps torch's default initialisation.
    """

    def standardised(self) -> Tensor:
        """The filters with which it convolves ``[out, in, k, k]``."""
        filters = self.weight
        centred = filters - filters.mean(dim=(1, 2, 3), keepdim=True)
        deviation = filters.flatten(1).std(dim=1).view(-1, 1, 1, 1) + 1e-5
        return centred / deviation

    def forward(self, images: Tensor) -> Tensor:
        """``[n, in, H, W]`` to ``[n, out, h, w]``."""
        weight, bias = in_type_of(images, self.standardised(), self.bias)
        return F.conv2d(images, weight, bias, self.stride, self.padding, groups=self.groups)


class PlainConv2d(nn.Conv2d):
    """Convolution in the type of its images."""

    def forward(self, images: Tensor) -> Tensor:
        """``[n, in, H, W]`` to ``[n, out, h, w]``."""
        weight, bias = in_type_of(images, self.weight, self.bias)
        return F.conv2d(images, weight, bias, self.stride, self.padding, groups=self.groups)


class PlainLinear(nn.Linear):
    """Linear layer in the type of what it gets."""

    def forward(self, tokens: Tensor) -> Tensor:
        """``[…, in]`` to ``[…, out]``."""
        return F.linear(tokens, *in_type_of(tokens, self.weight, self.bias))


class PlainConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution in the type of its images."""

    def forward(self, images: Tensor, output_size: list[int] | None = None) -> Tensor:
        """``[n, in, H, W]`` to ``[n, out, h, w]``."""
        assert output_size is None
        weight, bias = in_type_of(images, self.weight, self.bias)
        return F.conv_transpose2d(images, weight, bias, self.stride, self.padding, self.output_padding)  # type: ignore[arg-type]


class GroupNorm(nn.GroupNorm):
    """GroupNorm whose sums are taken in the type of its weights."""

    def forward(self, images: Tensor) -> Tensor:
        """``[n, C, H, W]`` to the same."""
        return super().forward(images.to(self.weight.dtype)).to(images.dtype)


class LayerNorm(nn.LayerNorm):
    """LayerNorm whose sums are taken in the type of its weights."""

    def forward(self, tokens: Tensor) -> Tensor:
        """``[…, C]`` to the same."""
        return super().forward(tokens.to(self.weight.dtype)).to(tokens.dtype)


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm by the statistics of the images at hand, in training and evaluation alike; it keeps none.

    The published code keeps running statistics and evaluates with them. Those of its momentum copies are wrong: client
    0's copy is left in evaluation mode and divides by the initial ones, the others' drift by their own data beside
    parameters that follow the online model. Here nothing is kept that could be wrong, at a price: an evaluated image's
    features depend on the images that are encoded together with it, which are more than a client trains with.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)

    def forward(self, images: Tensor) -> Tensor:
        """``[n, C, H, W]`` to the same; statistics over n, H and W in the type of the weights, a single value too."""
        x = images.to(self.weight.dtype)
        y = torch.batch_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, False)
        return y.to(images.dtype)


def mixes_rows(module: nn.Module) -> bool:
    """Whether a row's output depends on the rows that are passed with it: whether there is a BatchNorm."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def in_type_of(images: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias in the type of ``images``."""
    return weight.to(images.dtype), bias.to(images.dtype) if bias is not None else None


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 4 channels per group, at least one group."""
    return GroupNorm(max(channels // CHANNELS_PER_GROUP, 1), channels)


def convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    *,
    standardised: bool = True,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """A same-padded convolution, weight-standardised unless told otherwise."""
    kind = WSConv2d if standardised else PlainConv2d
    return kind(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=bias)


class ConvUnit(nn.Module):
    """Convolution, GroupNorm and, unless told otherwise, ReLU."""

    def __init__(self, conv: nn.Conv2d, *, relu: bool = True) -> None:
        super().__init__()
        self.conv = conv
        self.norm = group_norm(conv.out_channels)
        self.relu = relu

    def forward(self, images: Tensor) -> Tensor:
        """``[n, in, H, W]`` to ``[n, out, h, w]``."""
        out: Tensor = self.norm(self.conv(images))
        return F.relu(out) if self.relu else out


def stem_stride(image_size: int) -> int:
    """Stride of the first convolution: 2 for images of 64 and 224 pixels, as published, otherwise 1."""
    return 2 if image_size in (64, 224) else 1


class Stem(nn.Module):
    """The first convolution: by image size 7x7 stride 2 (224), 3x3 stride 2 (64), else 3x3 stride 1; GN, ReLU.

    Always weight-standardised, as published; no max-pool follows.
    """

    def __init__(self, channels: int, width: int, image_size: int) -> None:
        super().__init__()
        self.conv = convolution(channels, width, 7 if image_size == 224 else 3, stem_stride(image_size))
        self.norm = group_norm(width)

    def forward(self, images: Tensor) -> Tensor:
        """``[n, channels, H, W]`` to ``[n, width, h, w]``."""
        return F.relu(self.norm(self.conv(images)))


class BasicBlock(nn.Module):
    """conv3x3-GN-ReLU-conv3x3-GN plus shortcut, ReLU (He et al. 2016).

    The shortcut is a 1x1 convolution with GN where the stride or the width changes, else the identity;
    with ``residual=False`` there is none at all (the published ``disable_c_residual``).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, residual: bool, standardised: bool) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, 3, stride, standardised=standardised)
        self.norm1 = group_norm(outputs)
        self.conv2 = convolution(outputs, outputs, 3, standardised=standardised)
        self.norm2 = group_norm(outputs)
        self.residual = residual
        self.shortcut: nn.Module = nn.Identity()
        if residual and (stride != 1 or inputs != outputs):
            self.shortcut = nn.Sequential(
                convolution(inputs, outputs, 1, stride, standardised=standardised), group_norm(outputs)
            )

    def forward(self, images: Tensor) -> Tensor:
        """``[n, inputs, H, W]`` to ``[n, outputs, H/stride, W/stride]``."""
        out = F.relu(self.norm1(self.conv1(images)))
        out = self.norm2(self.conv2(out))
        return F.relu(out + self.shortcut(images) if self.residual else out)


def initialise(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every plain linear and convolution layer.

    Weight-standardised convolutions keep torch's Kaiming-uniform(a=sqrt 5), as in the published code (their
    type there is not exactly Conv2d); the scale of their filters is standardised away in any case.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and not isinstance(layer, WSConv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which torch draws from ``seed``; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
