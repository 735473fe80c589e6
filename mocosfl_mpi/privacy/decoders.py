"""Decoders of ResSFL and MocoSFL: networks that draw images from smashed data, as attackers train them.

Li, Rakin, Chen, He, Fan, Chakrabarti: ResSFL: a resistance transfer framework for defending model inversion attack in
split federated learning. CVPR 2022. `res_normN<N>C<C>` and `conv_normN<N>C<C>` have N blocks of C channels at the
resolution of the smashed data, then a stage for each doubling up to the image (at least two stages), then one to the
image's channels and a sigmoid. Equal names are not equal work: `res_normN4C64` takes 532 million multiply-accumulates
an image behind 64x32x32 and 25 million behind 512x4x4.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.split.layers import WSConv2d, group_norm

Norm = Literal["batch", "group"]
FEWEST_FOR_BATCH_NORM = 20
"""Rows of a batch below which the published co-trained attacker has GroupNorm (4 channels a group) and
weight-standardised convolutions in the place of BatchNorm and plain ones."""

_GRAMMAR = re.compile(r"(res|conv)_normN(\d+)C(\d+)")


def norm_for(rows: int) -> Norm:
    """The published choice for a co-trained attacker with batches of ``rows``."""
    return "group" if rows < FEWEST_FOR_BATCH_NORM else "batch"


def decoder(name: str, smashed_shape: Sequence[int], image_shape: Sequence[int], norm: Norm = "batch") -> nn.Sequential:
    """The decoder ``name`` from maps ``[n, *smashed_shape]`` to images ``[n, *image_shape]`` between 0 and 1.

    Shapes are (C, h, w). Weights are torch's default ones, of the global generator. With ``batch`` the running
    statistics of BatchNorm (momentum 0.1) are buffers.

    Raises
    ------
    BadInput
        A name outside the grammar, or an image that is no power of two times as large as the map.
    """
    match = _GRAMMAR.fullmatch(name)
    if not match or int(match[3]) < 4 or int(match[3]) % 4:
        raise BadInput(
            f"no decoder is called {name!r}; expected res_normN<N>C<C> or conv_normN<N>C<C> with N blocks of C "
            f"channels, a multiple of 4, for example res_normN4C64"
        )
    blocks, width = int(match[2]), int(match[3])
    (inputs, height, tall), (channels, *size) = smashed_shape, image_shape
    times = size[0] // height
    if [height * times, tall * times] != size or times & (times - 1):
        raise BadInput(
            f"a decoder doubles the resolution, and images of {size[0]}x{size[1]} pixels are no power of two times as "
            f"large as the {height}x{tall} map at the cut; set views.size to a power of two, or another cut"
        )
    unit = _PreActivated if match[1] == "res" else _Plain
    doublings = times.bit_length() - 1
    layers: list[nn.Module] = [unit(inputs, width, norm), nn.ReLU()]
    for _ in range(blocks):
        layers += [unit(width, width, norm), nn.ReLU()]
    for stage in range(max(2, doublings)):
        layers += [_Doubling(width, norm) if stage < doublings else unit(width, width, norm), nn.ReLU()]
    return nn.Sequential(*layers, unit(width, channels, norm), nn.Sigmoid())


def _convolution(inputs: int, outputs: int, norm: Norm) -> nn.Conv2d:
    return (WSConv2d if norm == "group" else nn.Conv2d)(inputs, outputs, 3, padding=1)


def _norm(channels: int, norm: Norm) -> nn.Module:
    return group_norm(channels) if norm == "group" else BatchNorm(channels)


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm whose only buffers are its running mean and variance: no count of batches, which nothing needs."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.num_batches_tracked = None


class _Plain(nn.Sequential):
    """Convolution and norm."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__(_convolution(inputs, outputs, norm), _norm(outputs, norm))


class _Doubling(nn.Sequential):
    """Transposed convolution to twice the resolution, and norm."""

    def __init__(self, width: int, norm: Norm) -> None:
        grow = nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1)
        super().__init__(grow, _norm(width, norm))


class _PreActivated(nn.Module):
    """norm-ReLU-conv3x3-norm-ReLU-conv3x3 plus shortcut, which is a 1x1 convolution with norm where widths differ."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.norm1 = _norm(inputs, norm)
        self.conv1 = _convolution(inputs, outputs, norm)
        self.norm2 = _norm(outputs, norm)
        self.conv2 = _convolution(outputs, outputs, norm)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), _norm(outputs, norm))

    def forward(self, maps: Tensor) -> Tensor:
        """``[n, inputs, h, w]`` to ``[n, outputs, h, w]``."""
        out = self.conv1(F.relu(self.norm1(maps)))
        out = self.conv2(F.relu(self.norm2(out)))
        found: Tensor = out + self.shortcut(maps)
        return found
