"""One view of every image for learning with labels: a random crop of the padded image, and a flip.

What the field trains small images with (He et al., CVPR 2016, section 4.2): 4 black pixels around an image of 32, a
crop of the original size, a horizontal flip. Contrastive views would be too hard: they may show a twelfth of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.data.normalise import evaluation_images

DRAWS = 3
"""Uniform numbers that a view takes: for the crop's top and left, and the flip."""


class CropFlip:
    """Makes one view of uint8 images, all images of a block at once. ``mean``, ``std`` per channel, on 0 to 1."""

    def __init__(
        self, size: int, flip_probability: float, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype
    ) -> None:
        self._size = size
        self._padding = size // 8
        self._flip_probability = flip_probability
        self._mean, self._std = tuple(mean), tuple(std)
        self._dtype = dtype

    def __call__(self, pixels: Tensor, draws: npt.NDArray[np.float64]) -> Tensor:
        """Views ``[n, B, C, size, size]`` of uint8 ``pixels`` ``[n, B, C, H, W]``.

        ``draws`` float64 ``[n, B, DRAWS]`` are uniform in [0, 1).
        """
        n, batch, channels = pixels.shape[:3]
        if draws.shape != (n, batch, DRAWS):
            raise ValueError(f"draws of shape {draws.shape} for {n} × {batch} images; expected [n, B, {DRAWS}]")
        size, padding, count = self._size, self._padding, n * batch
        images = evaluation_images(pixels.flatten(0, 1), size, self._mean, self._std, self._dtype)
        black = torch.tensor([-m / s for m, s in zip(self._mean, self._std, strict=True)], dtype=self._dtype).to(images)
        side = size + 2 * padding
        canvas = black[None, :, None, None].expand(count, channels, side, side).clone()
        canvas[:, :, padding : padding + size, padding : padding + size] = images
        top, left, flip = draws.reshape(count, DRAWS).T
        places = 2 * padding + 1
        rows = np.floor(top * places).astype(np.int64)[:, None] + np.arange(size)
        columns = np.floor(left * places).astype(np.int64)[:, None] + np.arange(size)
        columns = np.where((flip < self._flip_probability)[:, None], columns[:, ::-1], columns)
        picked = canvas.permute(0, 2, 3, 1)[
            torch.arange(count)[:, None, None],
            torch.from_numpy(rows)[:, :, None],
            torch.from_numpy(np.ascontiguousarray(columns))[:, None, :],
        ]
        return picked.permute(0, 3, 1, 2).reshape(n, batch, channels, size, size).contiguous()
