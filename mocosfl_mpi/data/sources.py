"""Data sets by name: load one into memory, or fetch it on request."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mocosfl_mpi.config import Data
from mocosfl_mpi.data import cifar, idx
from mocosfl_mpi.data._torchvision import torchvision
from mocosfl_mpi.data.check import CIFAR, DOWNLOADABLE, check, directory, image_folders, require_scipy
from mocosfl_mpi.data.images import Dataset, Images
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.streams import Streams

__all__ = ["Dataset", "Images", "download", "load"]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_SVHN = ((0.3522, 0.4004, 0.4463), (0.1189, 0.1377, 0.1784))
_SVHN_CLASSES = 10


def load(config: Data, data_dir: Path | None, streams: Streams) -> Dataset:
    """Read the data set of ``config``, cut down to `train_images` and `test_images`.

    A cut is drawn without replacement from the stream "subset" (0: training, 1: test) and keeps the images in
    their original order.

    Raises
    ------
    BadInput
        No data directory, missing or unusable files, or more images asked for than there are.
    """
    check(config, data_dir)
    dataset = _read(config, data_dir)
    train = _subset(dataset.train, config.train_images, "train_images", streams, 0)
    test = _subset(dataset.test, config.test_images, "test_images", streams, 1)
    return replace(dataset, train=train, test=test)


@dataclass(frozen=True)
class Scale:
    """What images look like to a network, known without reading any."""

    mean: tuple[float, ...]
    """By channel, where a pixel is 0 to 1."""
    std: tuple[float, ...]
    side: int
    """Pixels, before they are resized to those of the views."""

    @property
    def channels(self) -> int:
        """Of an image."""
        return len(self.mean)


def scale(config: Data) -> Scale:
    """Of the data set that ``config`` names. BadInput where it lacks `data.image_size`."""
    if config.source in CIFAR:
        return Scale(*cifar.MEAN_STD[config.source], 32)
    if config.source in ("embedded", "fashion-mnist"):
        return Scale(idx.MEAN, idx.STD, 28)
    return Scale(*_SVHN, 32) if config.source == "svhn" else Scale(*_IMAGENET, _side(config))


def _side(config: Data) -> int:
    if config.image_size is None:
        raise BadInput("data.source = 'image-folder' needs data.image_size, for example 64")
    return config.image_size


def download(source: str, data_dir: Path) -> None:
    """Fetch a data set from its makers into ``data_dir`` (which is created), through torchvision.

    Raises
    ------
    BadInput
        The source has nothing to fetch, or the network, the disk or the fetched file failed.
    """
    if source not in DOWNLOADABLE:
        raise BadInput(f"{source!r} cannot be downloaded; choose one of {', '.join(DOWNLOADABLE)}")
    if source == "svhn":
        require_scipy()
    datasets = torchvision().datasets
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if source == "svhn":
            for split in ("train", "test"):
                datasets.SVHN(str(data_dir), split=split, download=True)
        else:
            name = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion-mnist": "FashionMNIST"}[source]
            getattr(datasets, name)(str(data_dir), download=True)
    except (OSError, EOFError, RuntimeError) as error:  # urllib's errors are OSErrors
        raise BadInput(
            f"{source} could not be downloaded to {data_dir}: {' '.join(str(error).split())}; "
            f"try again on a machine with internet access and room on the disk, and copy the folder here"
        ) from None


def _read(config: Data, data_dir: Path | None) -> Dataset:
    if config.source == "embedded":
        return idx.load_embedded()
    folder = directory(config, data_dir)
    if config.source in CIFAR:
        return cifar.load_cifar(config, folder)
    if config.source == "fashion-mnist":
        return idx.load_fashion_mnist(folder)
    if config.source == "svhn":
        return _svhn(folder)
    return _image_folder(config, folder)


def _subset(images: Images, count: int | None, name: str, streams: Streams, split: int) -> Images:
    if count is None:
        return images
    if count > len(images):
        raise BadInput(
            f"data.{name} = {count}, but the data set has {len(images)}; lower it, or leave it empty to use all"
        )
    return images.take(np.sort(streams.generator("subset", split).permutation(len(images))[:count]))


def _svhn(folder: Path) -> Dataset:
    splits = []
    for split in ("train", "test"):
        try:
            stored = torchvision().datasets.SVHN(str(folder), split=split)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{folder} holds no usable SVHN ({error}); set --data-dir or MOCOSFL_DATA, "
                f"or run `mocosfl download svhn --data-dir {folder}`"
            ) from None
        splits.append(Images(np.ascontiguousarray(stored.data, dtype=np.uint8), stored.labels.astype(np.int64)))
    return Dataset(splits[0], splits[1], tuple(str(digit) for digit in range(_SVHN_CLASSES)), *_SVHN)


def _image_folder(config: Data, folder: Path) -> Dataset:
    size = _side(config)
    paths = image_folders(config, folder)
    try:
        train, test = (torchvision().datasets.ImageFolder(str(path)) for path in paths)
    except (OSError, RuntimeError) as error:
        raise BadInput(f"data.folder = {config.folder!r}: {error}; put images into every class folder") from None
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise BadInput(f"{paths[0]} and {paths[1]} must have the same class folders; only one has {', '.join(odd)}")
    return Dataset(_decode(train, size), _decode(test, size), tuple(train.classes), *_IMAGENET)


def _decode(source: Any, size: int) -> Images:
    """All images of a torchvision ImageFolder: short side resized to ``size``, centre crop, RGB."""
    functional = torchvision().transforms.functional
    pixels = np.empty((len(source.samples), 3, size, size), dtype=np.uint8)
    for row, (path, _) in zip(pixels, source.samples, strict=True):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a decompression bomb begins as a warning
                image = functional.center_crop(functional.resize(source.loader(path), size), [size, size])
        except Exception as error:  # image decoders raise nearly anything
            raise BadInput(f"{path} cannot be decoded ({error}); repair or remove it") from None
        row[:] = np.asarray(image).transpose(2, 0, 1)
    return Images(pixels, np.array([label for _, label in source.samples], dtype=np.int64))
