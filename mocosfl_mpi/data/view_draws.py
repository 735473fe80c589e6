"""From uniform numbers to the parameters of a view, as torchvision's transforms would draw them.

The fast and the exact views share these parameters, so that both make nearly the same view.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.config import Views

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_ATTEMPTS = 10
_LOG_RATIO = np.log(4 / 3)
_CROP_DRAWS = 2 * _ATTEMPTS + 2
DRAWS = _CROP_DRAWS + 10
"""Uniform numbers that one view takes: for its crop, then those named in `view_parameters`."""

BLEND_ORDERS: tuple[tuple[int, ...], ...] = tuple(permutations(range(3)))
"""Orders of brightness (0), contrast (1) and saturation (2)."""


@dataclass(frozen=True)
class ViewParameters:
    """The parameters of m views, one array of length m each; lengths are in pixels of the source image."""

    top: Ints
    left: Ints
    height: Ints
    width: Ints
    flip: Bools
    jitter: Bools
    factors: Floats
    """``[m, 3]``: brightness, contrast, saturation; 1 changes nothing."""
    hue: Floats
    """Turns of the colour circle."""
    blend_order: Ints
    """Index into ``BLEND_ORDERS``."""
    hue_slot: Ints
    """Hue is shifted before blend number 0, 1 or 2, or after all (3)."""
    grey: Bools
    blur: Bools
    radius: Floats
    """Standard deviation of the blur in pixels of the view."""

    def __len__(self) -> int:
        return len(self.top)


def view_parameters(config: Views, draws: Floats, height: int, width: int) -> ViewParameters:
    """Parameters of m views of images ``height`` × ``width`` from uniform numbers ``[m, DRAWS]`` in [0, 1)."""
    h, w, i, j = _crop(config.crop_scale_min, draws[:, :_CROP_DRAWS], height, width)
    flip, jitter, *factors, hue, order, grey, blur, radius = draws[:, _CROP_DRAWS:].T
    place = (order * 4 * len(BLEND_ORDERS)).astype(np.int64)
    return ViewParameters(
        top=i,
        left=j,
        height=h,
        width=w,
        flip=flip < config.flip_probability,
        jitter=jitter < config.jitter_probability,
        factors=0.6 + 0.8 * np.stack(factors, axis=1),
        hue=-0.1 + 0.2 * hue,
        blend_order=place // 4,
        hue_slot=place % 4,
        grey=grey < config.grey_probability,
        blur=blur < (config.blur_probability if config.pipeline == "mocov2" else 0.0),
        radius=0.1 + 1.9 * radius,
    )


def _crop(scale_min: float, draws: Floats, height: int, width: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Height, width, top and left of random resized crops.

    torchvision's ``RandomResizedCrop.get_params``: the first of ten (area, aspect ratio) pairs that fits, at
    a uniform position; if none fits, the largest central crop of an admissible ratio. Drawing the position
    after the choice gives the same distribution and needs two numbers, not twenty.
    """
    area_draws, ratio_draws = draws[:, :_ATTEMPTS], draws[:, _ATTEMPTS : 2 * _ATTEMPTS]
    at_top, at_left = draws[:, 2 * _ATTEMPTS :].T
    area = height * width * (scale_min + (1.0 - scale_min) * area_draws)
    ratio = np.exp(_LOG_RATIO * (2.0 * ratio_draws - 1.0))
    w = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    h = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = np.arange(len(w)), fits.argmax(axis=1)
    central_h = min(height, round(width * 4 / 3))
    central_w = min(width, round(height * 4 / 3))
    found = fits.any(axis=1)
    h = np.where(found, h[first], central_h)
    w = np.where(found, w[first], central_w)
    top = np.where(found, np.floor(at_top * (height - h + 1)).astype(np.int64), (height - central_h) // 2)
    left = np.where(found, np.floor(at_left * (width - w + 1)).astype(np.int64), (width - central_w) // 2)
    return h, w, top, left
