"""Frozen features of an image set, in chunks of one fixed size."""

from __future__ import annotations

from collections.abc import Callable
from typing import overload

import torch
from torch import Tensor

Prepare = Callable[[Tensor], Tensor]


@overload
def extract(encoder: Callable[[Tensor], Tensor], images: Tensor, prepare: Prepare, chunk: int = 250) -> Tensor: ...
@overload
def extract(
    encoder: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor, prepare: Prepare, chunk: int = 250
) -> tuple[Tensor, ...]: ...
def extract(
    encoder: Callable[[Tensor], Tensor | tuple[Tensor, ...]], images: Tensor, prepare: Prepare, chunk: int = 250
) -> Tensor | tuple[Tensor, ...]:
    """Features of uint8 ``images [n, C, H, W]``, without gradient: ``[n, d]``, or a tuple of such tensors.

    ``prepare`` turns a uint8 chunk ``[chunk, C, H, W]`` into the encoder's input (scale, normalise, device);
    ``encoder`` returns ``[chunk, d]``, or a tuple, for example (backbone features, projector output). Put the
    encoder into eval mode first. The result is on the CPU.

    The encoder always sees ``chunk`` rows: a kernel chosen by the number of rows can change the last bits, so
    the last chunk is filled up by repeating its own images and cut afterwards. An image's features therefore do
    not depend on how many images follow it.

    Raises
    ------
    ValueError
        No image, a dtype other than uint8, or an encoder output without one row per image.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"images must be uint8 [n ≥ 1, C, H, W], not {str(images.dtype).removeprefix('torch.')} "
            f"{list(images.shape)}"
        )
    if chunk < 1:
        raise ValueError(f"chunk = {chunk}: at least one image at a time")
    whole: list[Tensor] = []  # filled piece by piece: pieces and their concatenation would be twice the memory
    single = True
    with torch.no_grad():
        for start in range(0, len(images), chunk):
            rows = min(chunk, len(images) - start)
            index = start + torch.arange(chunk, device=images.device) % rows
            out = encoder(prepare(images[index]))
            single = isinstance(out, Tensor)
            outs = (out,) if isinstance(out, Tensor) else out
            for place, features in enumerate(outs):
                if features.ndim != 2 or len(features) != chunk:
                    raise ValueError(
                        f"the encoder returned {list(features.shape)} for {chunk} images; expected [{chunk}, d]"
                    )
                if place == len(whole):
                    whole.append(torch.empty((len(images), features.shape[1]), dtype=features.dtype))
                whole[place][start : start + rows] = features[:rows]
    return whole[0] if single else tuple(whole)
