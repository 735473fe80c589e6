"""A small vision transformer: [patches, block 1, …, block 12, norm] (Dosovitskiy et al. 2021).

Of ViT-Tiny's size (Touvron et al. 2021) at width 64: 192 channels, 12 blocks. Tokens stay a map ``[n, C, h, w]``
between entries, there is no class token, and features are the mean over tokens. Positions are fixed and the
initialisation is Xavier's with query, key and value apart (Chen, Xie & He 2021, MoCo v3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl_mpi.config import Model
from mocosfl_mpi.networks import BLOCKS
from mocosfl_mpi.split.layers import LayerNorm, PlainConv2d, PlainLinear

CHANNELS_PER_HEAD = 32
TOKENS, LARGEST_PATCH = 8, 16
"""Tokens per side that an image is cut into, as long as patches have no more than so many pixels per side."""
EPSILON = 1e-6


class Patches(nn.Module):
    """The image in square patches, each mapped to one token, plus the token's position.

    An incomplete last patch is filled up with zeros.
    """

    def __init__(self, channels: int, width: int, image_size: int) -> None:
        super().__init__()
        patch = min(LARGEST_PATCH, -(-image_size // TOKENS))
        self.conv = PlainConv2d(channels, width, patch, stride=patch)
        self.missing = -image_size % patch

    def forward(self, images: Tensor) -> Tensor:
        """``[n, channels, H, W]`` to ``[n, width, h, w]``."""
        if self.missing:
            images = F.pad(images, (0, self.missing, 0, self.missing))
        maps: Tensor = self.conv(images)
        return maps + positions(maps.shape[-3:], self.conv.weight).to(maps.dtype)


def positions(shape: torch.Size, like: Tensor) -> Tensor:
    """Fixed positions ``[C, h, w]``: sines and cosines, of the row in half of the channels, of the column in the rest.

    Wavelengths are 2π·10000^(i / (C/4)), as in the transformer (Vaswani et al. 2017).
    """
    channels, height, width = shape
    index = torch.arange(channels // 4, dtype=like.dtype, device=like.device)
    frequencies = 10000.0 ** (-index / len(index))
    rows = torch.arange(height, dtype=like.dtype, device=like.device)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=like.dtype, device=like.device).expand(height, width)
    angles = [frequencies[:, None, None] * place for place in (rows, columns)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)])


class Attention(nn.Module):
    """Self-attention of all tokens of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = heads(width)
        self.query = PlainLinear(width, width)
        self.key = PlainLinear(width, width)
        self.value = PlainLinear(width, width)
        self.out = PlainLinear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[n, tokens, C]`` to the same."""
        query, key, value = (
            part(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        weights = (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).softmax(dim=3)
        mixed: Tensor = self.out((weights @ value).transpose(1, 2).flatten(2))
        return mixed


def heads(width: int) -> int:
    """Heads of at least 32 channels, as many as divide the width; one if there is no such number."""
    return next((n for n in range(width // CHANNELS_PER_HEAD, 0, -1) if width % n == 0), 1)


class TransformerBlock(nn.Module):
    """Attention, then an MLP of four times the width, each normalised before and added to what it got.

    With ``residual=False`` nothing is added.
    """

    def __init__(self, width: int, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.norm1 = LayerNorm(width, eps=EPSILON)
        self.attention = Attention(width)
        self.norm2 = LayerNorm(width, eps=EPSILON)
        self.mlp = nn.Sequential(PlainLinear(width, 4 * width), nn.GELU(), PlainLinear(4 * width, width))

    def forward(self, maps: Tensor) -> Tensor:
        """``[n, C, h, w]`` to the same."""
        tokens = maps.flatten(2).transpose(1, 2)
        for norm, part in ((self.norm1, self.attention), (self.norm2, self.mlp)):
            change = part(norm(tokens))
            tokens = tokens + change if self.residual else change
        after: Tensor = tokens.transpose(1, 2).unflatten(2, maps.shape[2:])
        return after


class LastNorm(nn.Module):
    """LayerNorm of each token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width, eps=EPSILON)

    def forward(self, maps: Tensor) -> Tensor:
        """``[n, C, h, w]`` to the same."""
        return self.norm(maps.movedim(1, 3)).movedim(3, 1)  # type: ignore[no-any-return]


def features(model: Model) -> int:
    """Channels of a token."""
    return 3 * model.width


def layers(model: Model, channels: int, image_size: int) -> list[tuple[str, nn.Module]]:
    """Patches, blocks and the norm after the last block.

    Blocks below the cut lose their shortcuts when ``model.client_residual`` is false.
    """
    width = features(model)
    found: list[tuple[str, nn.Module]] = [("patches", Patches(channels, width, image_size))]
    for index in range(1, 1 + BLOCKS[model.backbone]):
        residual = model.client_residual or index >= model.cut_layer
        found.append((f"block{index}", TransformerBlock(width, residual=residual)))
    return [*found, ("norm", LastNorm(width))]
