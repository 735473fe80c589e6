"""The records that every data source fills."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Images:
    """Images ``pixels`` uint8 ``[n, C, H, W]`` and their ``labels`` int64 ``[n]``."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64]) -> Images:
        """The images at ``indices`` ``[m]``, copied."""
        return Images(self.pixels[indices], self.labels[indices])


def with_channels(images: Images, channels: int) -> Images:
    """The images with one or three channels: grey repeated, colour as its luma (ITU-R 601, as in Pillow).

    Raises
    ------
    ValueError
        Channels that are neither one nor three.
    """
    own = images.pixels.shape[1]
    if own == channels:
        return images
    if {own, channels} != {1, 3}:
        raise ValueError(f"images of {own} channels cannot be given {channels}")
    if channels == 3:
        return Images(np.repeat(images.pixels, 3, axis=1), images.labels)
    weights = np.array([19595, 38470, 7471], dtype=np.uint32)  # of 2^16
    grey = np.einsum("nchw,c->nhw", images.pixels, weights, dtype=np.uint32, casting="unsafe") + (1 << 15) >> 16
    return Images(grey[:, None].astype(np.uint8), images.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, its class names, and the published per-channel normalisation.

    ``mean`` and ``std`` are on the scale where a pixel is 0 to 1; ``notes`` are warnings for the user.
    """

    train: Images
    test: Images
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Channels of an image, C."""
        return int(self.train.pixels.shape[1])

    @property
    def image_size(self) -> int:
        """Pixels per side; all sources give square images."""
        return int(self.train.pixels.shape[-1])

    @property
    def class_count(self) -> int:
        """Number of classes."""
        return len(self.classes)
