"""From uint8 pixels to what the network sees, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mocosfl_mpi.data.resample import crop_matrices

_CHUNK = 1024


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> Tensor:
    """``(pixel / 255 - mean) / std`` per channel: uint8 ``[..., C, H, W]`` to ``dtype`` of that shape."""
    x = pixels.to(dtype).div_(255.0)
    return x.sub_(per_channel(mean, x)).div_(per_channel(std, x))


def denormalise(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The inverse of `normalise` on the scale 0 to 1: ``[..., C, H, W]``, not clamped."""
    return (x * per_channel(std, x)).add_(per_channel(mean, x))


def evaluation_images(
    pixels: Tensor, size: int, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype
) -> Tensor:
    """Images without augmentation: uint8 ``[n, C, H, W]`` to normalised ``[n, C, size, size]``.

    Resizing is antialiased bilinear, as Pillow's but without its rounding to uint8 between the two axes.
    """
    height, width = pixels.shape[-2:]
    if height == width == size:
        return normalise(pixels, mean, std, dtype)
    rows, columns = (resizing(length, size, dtype, pixels.device) for length in (height, width))
    parts = [rows @ normalise(part, mean, std, dtype) @ columns.T for part in torch.split(pixels, _CHUNK)]
    return torch.cat(parts)


def resizing(length: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix ``[size, length]`` by which columns of pixels are resized."""
    whole = torch.full((1,), float(length), dtype=dtype, device=device)
    return crop_matrices(torch.zeros_like(whole), whole, length, size)[0]


def per_channel(values: Sequence[float], like: Tensor) -> Tensor:
    """``[C, 1, 1]`` in the type and on the device of ``like``."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]
