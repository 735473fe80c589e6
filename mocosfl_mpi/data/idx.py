"""Fashion-MNIST: idx files, and the subset of them inside the package."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.data.check import idx_files
from mocosfl_mpi.data.images import Dataset, Images
from mocosfl_mpi.errors import BadInput

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
MEAN, STD = (0.2860,), (0.3530,)
EMBEDDED = Path(__file__).parent / "embedded" / "fashion_mnist.npz"
_LARGEST = 1 << 28  # bytes; a packed file that unpacks to more is no Fashion-MNIST


def load_embedded() -> Dataset:
    """6,000 training and 1,000 test images of Fashion-MNIST, 600 and 100 per class (embedded/README.md)."""
    with np.load(EMBEDDED, allow_pickle=False) as stored:
        train, test = (
            Images(stored[f"x_{split}"][:, None], stored[f"y_{split}"].astype(np.int64)) for split in ("train", "test")
        )
    return Dataset(train, test, CLASSES, MEAN, STD)


def load_fashion_mnist(folder: Path) -> Dataset:
    """All of Fashion-MNIST from the idx files below the data directory ``folder``."""
    paths = idx_files(folder)
    return Dataset(_images(*paths[:2]), _images(*paths[2:]), CLASSES, MEAN, STD)


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The uint8 array of ``dimensions`` axes in an idx file, gzip-packed when its name ends in ``.gz``.

    An idx file is two zero bytes, a type (8: unsigned byte), the number of axes, the big-endian length of
    each axis, then the data (LeCun, *The MNIST database of handwritten digits*).
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _unusable(path, f"it cannot be read ({error})") from None
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, 8, dimensions)):
        raise _unusable(path, f"it does not begin like an idx file of bytes with {dimensions} axes")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise _unusable(path, f"{len(content) - start:,} bytes of data for the shape {shape}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()


def _images(pixels_path: Path, labels_path: Path) -> Images:
    pixels, labels = read_idx(pixels_path, 3), read_idx(labels_path, 1)
    if pixels.shape[1:] != (28, 28) or not len(pixels):
        raise _unusable(pixels_path, f"images of shape {pixels.shape} instead of (n, 28, 28)")
    if len(labels) != len(pixels):
        raise _unusable(labels_path, f"{len(labels)} labels for {len(pixels)} images")
    if labels.max() >= len(CLASSES):
        raise _unusable(labels_path, f"label {labels.max()} is not within 0 to {len(CLASSES) - 1}")
    return Images(pixels[:, None], labels.astype(np.int64))


def _unusable(path: Path, reason: str) -> BadInput:
    return BadInput(
        f"{path} is not a usable Fashion-MNIST file: {reason}; remove it and run `mocosfl download fashion-mnist`"
    )
