"""Sizes of a data set: read where it lies, known from its publication where it does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.config import Config
from mocosfl_mpi.data.check import check
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.problem import read
from mocosfl_mpi.streams import Streams

PUBLISHED = {
    "fashion-mnist": (60_000, 10_000, 1, 28, 10),
    "cifar10": (50_000, 10_000, 3, 32, 10),
    "cifar100": (50_000, 10_000, 3, 32, 100),
    "svhn": (73_257, 26_032, 3, 32, 10),
}
"""Training images, test images, channels, pixels per side, classes."""
EMBEDDED = (6_000, 1_000, 1, 28, 10)
"""The same of the subset inside the package."""


@dataclass(frozen=True)
class ImageSet:
    """How many images there are of which size; pixels themselves are not kept."""

    stored: int
    """Images of both splits as stored, before any is left out."""
    labels: npt.NDArray[np.int64]
    """Labels of the training images that clients own."""
    validation: int
    test: int
    channels: int
    side: int
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    auxiliary: int = 0
    """Images of an expert's other data set."""
    auxiliary_bytes: int = 0
    """Bytes that rank 0 has of that data set, both splits."""

    @property
    def image_bytes(self) -> int:
        """Bytes of one image as it is stored."""
        return self.channels * self.side**2


def image_set(config: Config, data_dir: Path | None) -> ImageSet:
    """The sizes of ``config``'s images.

    Where the data set is not on this machine its published sizes are taken, with equally many images per class.

    Raises
    ------
    BadInput
        The data set is damaged, too small for what is asked, or neither here nor of a published size.
    """
    found = _target(config, data_dir)
    other = config.auxiliary_data
    if other is None:
        return found
    train, test, channels, side, _ = PUBLISHED.get(other.source, EMBEDDED)
    wanted = other.train_images or train
    if wanted > train:
        raise BadInput(
            f"pretraining.auxiliary_images = {wanted}, but the data set has {train}; lower it, or leave it out"
        )
    if channels != found.channels:
        raise BadInput(
            f"pretraining.auxiliary = {other.source!r} has images of {channels} channels and data.source = "
            f"{config.data.source!r} has {found.channels}; choose two of a kind"
        )
    return replace(found, auxiliary=wanted, auxiliary_bytes=(wanted + test) * channels * side**2)


def _target(config: Config, data_dir: Path | None) -> ImageSet:
    """Of `data.source` alone."""
    name = config.data.source
    try:
        check(config.data, data_dir)
    except BadInput:
        if name not in PUBLISHED:
            raise
        return _published(config)
    alone = config.pretraining.model_copy(update={"auxiliary": ""})
    plain = config.model_copy(update={"evaluation": config.evaluation.plain(), "pretraining": alone})
    source = read(plain, data_dir, Streams(config.seed))
    train, test = PUBLISHED[name][:2] if name in PUBLISHED else (len(source.data.train), len(source.data.test))
    return ImageSet(
        train + test,
        source.train.labels,
        len(source.validation) if source.validation else 0,
        len(source.data.test),
        source.data.channels,
        source.data.image_size,
        source.data.classes,
    )


def _published(config: Config) -> ImageSet:
    train, test, channels, side, classes = PUBLISHED[config.data.source]
    wanted, tested = config.data.train_images or train, config.data.test_images or test
    for key, asked, there in (("train_images", wanted, train), ("test_images", tested, test)):
        if asked > there:
            raise BadInput(f"data.{key} = {asked}, but the data set has {there}; lower it, or leave it empty")
    owned = wanted - config.data.validation_images
    if owned < 1:
        raise BadInput(
            f"data.validation_images = {config.data.validation_images} leaves none of the {wanted} training images; "
            f"choose fewer"
        )
    return ImageSet(
        train + test,
        np.arange(owned, dtype=np.int64) % classes,
        config.data.validation_images,
        tested,
        channels,
        side,
        tuple(str(label) for label in range(classes)),
        (f"{config.data.source} is not on this machine; planned with its published sizes",),
    )
