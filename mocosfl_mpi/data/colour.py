"""Colour jitter on planes ``[C, m, H, W]`` with values 0 to 1, one set of parameters per view, in place."""

from __future__ import annotations

import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION = range(3)


def luma(planes: Tensor) -> Tensor:
    """Grey value ``[m, H, W]``, ITU-R 601 as in Pillow; of a single channel, that channel."""
    if len(planes) == 1:
        return planes[0].clone()
    return (planes[0] * 0.299).add_(planes[1], alpha=0.587).add_(planes[2], alpha=0.114)


def blend(planes: Tensor, factor: Tensor, kind: Tensor) -> None:
    """Change brightness, contrast or saturation by ``factor`` ``[m]``, each view its own ``kind`` ``[m]``.

    All three mix the image with a duller one, f·x + (1 - f)·d clamped to 0 to 1, where d is black, the mean
    grey of the view, or the grey image (Haeberli, *Image Processing by Interpolation and Extrapolation*, 1994;
    ``PIL.ImageEnhance``).
    """
    grey = luma(planes)
    rest = (1.0 - factor)[:, None, None]
    mean = grey.mean(dim=(1, 2), keepdim=True)
    mean.mul_(rest).mul_((kind == CONTRAST)[:, None, None])
    dull = grey.mul_(rest * (kind == SATURATION)[:, None, None]).add_(mean)
    planes.mul_(factor[:, None, None]).add_(dull).clamp_(0.0, 1.0)


def shift_hue(planes: Tensor, turns: Tensor) -> None:
    """Turn the hue (HSV) of three planes by ``turns`` ``[m]`` of the colour circle, at most a sixth.

    In sixths of the circle a fully saturated colour of hue h has red clamp(|h - 3| - 1), green
    clamp(2 - |h - 2|), blue clamp(2 - |h - 4|), each to 0 to 1 (Smith, *Color Gamut Transform Pairs*, 1978).
    """
    r, g, b = planes
    value = torch.maximum(torch.maximum(r, g), b)
    low = torch.minimum(torch.minimum(r, g), b)
    chroma = value - low
    green_max = torch.add(b - r, chroma, alpha=2.0)
    blue_max = torch.add(r - g, chroma, alpha=4.0)
    hue = torch.where(value == r, g - b, torch.where(value == g, green_max, blue_max))
    hue.div_(chroma.clamp(min=1e-12)).add_((6.0 * turns)[:, None, None])  # -2 to 6; 0 for greys
    hue.add_(hue < 0, alpha=6)
    for plane, centre, sign, offset in ((r, 3.0, 1.0, -1.0), (g, 2.0, -1.0, 2.0), (b, 4.0, -1.0, 2.0)):
        torch.sub(hue, centre, out=plane).abs_().mul_(sign).add_(offset).clamp_(0.0, 1.0)
        plane.mul_(chroma).add_(low)
