"""What must lie in the data directory, checked before MPI starts.

Nothing heavy is imported and no image is read: the launcher runs this first, so that a wrong path costs a
moment and not a job. Reading (`data.sources`, `data.cifar`) checks the contents.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mocosfl_mpi.config import Config, Data
from mocosfl_mpi.errors import BadInput


@dataclass(frozen=True)
class CifarFile:
    """One file of a CIFAR release: its name, official md5 and number of images (0 for the list of names)."""

    name: str
    md5: str
    images: int


@dataclass(frozen=True)
class CifarRelease:
    """The files of one CIFAR release, in the layout of its archive, which is also torchvision's."""

    folder: str
    train: tuple[CifarFile, ...]
    test: tuple[CifarFile, ...]
    meta: CifarFile
    label_key: str
    names_key: str
    classes: int


CIFAR = {
    "cifar10": CifarRelease(
        folder="cifar-10-batches-py",
        train=(
            CifarFile("data_batch_1", "c99cafc152244af753f735de768cd75f", 10_000),
            CifarFile("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec", 10_000),
            CifarFile("data_batch_3", "54ebc095f3ab1f0389bbae665268c751", 10_000),
            CifarFile("data_batch_4", "634d18415352ddfa80567beed471001a", 10_000),
            CifarFile("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb", 10_000),
        ),
        test=(CifarFile("test_batch", "40351d587109b95175f43aff81a1287e", 10_000),),
        meta=CifarFile("batches.meta", "5ff9c542aee3614f3951f8cda6e48888", 0),
        label_key="labels",
        names_key="label_names",
        classes=10,
    ),
    "cifar100": CifarRelease(
        folder="cifar-100-python",
        train=(CifarFile("train", "16019d7e3df5f24257cddd939b257f8d", 50_000),),
        test=(CifarFile("test", "f0ef6b0ae62326f3e7ffdfab6717acfc", 10_000),),
        meta=CifarFile("meta", "7973b15100ade9c7d40fb424638fde48", 0),
        label_key="fine_labels",
        names_key="fine_label_names",
        classes=100,
    ),
}
CIFAR_IMAGE_BYTES = 3 * 32 * 32
IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
IDX_FOLDERS = ("FashionMNIST/raw", "fashion-mnist", ".")
SVHN_FILES = ("train_32x32.mat", "test_32x32.mat")
DOWNLOADABLE = ("fashion-mnist", "cifar10", "cifar100", "svhn")


def check_all(config: Config, data_dir: Path | None) -> None:
    """``check`` for every data set that an experiment reads."""
    check(config.data, data_dir)
    if config.transfer_data is not None:
        try:
            check(config.transfer_data, data_dir)
        except BadInput as error:
            raise BadInput(f"evaluation.transfer = {config.evaluation.transfer!r}: {error}") from None
    if config.auxiliary_data is not None:
        try:
            check(config.auxiliary_data, data_dir)
        except BadInput as error:
            raise BadInput(f"pretraining.auxiliary = {config.pretraining.auxiliary!r}: {error}") from None


def check(config: Data, data_dir: Path | None) -> None:
    """Raise BadInput unless the files that ``config`` needs are present and not plainly cut short."""
    if config.source == "embedded":
        return
    folder = directory(config, data_dir)
    if config.source in CIFAR:
        _check_cifar(CIFAR[config.source], config, folder)
    elif config.source == "fashion-mnist":
        idx_files(folder)
    elif config.source == "svhn":
        require_scipy()
        _require([folder / name for name in SVHN_FILES], config.source, folder)
    else:
        image_folders(config, folder)


def directory(config: Data, data_dir: Path | None) -> Path:
    """The data directory, which must exist; every source but `embedded` needs one."""
    if data_dir is None:
        raise BadInput(
            f"data.source = {config.source!r} is read from a data directory and none is given; "
            f"set --data-dir or MOCOSFL_DATA{_fetch(config.source, Path('D'))}"
        )
    if not data_dir.is_dir():
        raise BadInput(
            f"the data directory {data_dir} does not exist or is not a folder; "
            f"set --data-dir or MOCOSFL_DATA to the right one{_fetch(config.source, data_dir)}"
        )
    return data_dir


def idx_files(folder: Path) -> tuple[Path, ...]:
    """The four idx files of Fashion-MNIST below ``folder``, packed or not, in the order of ``IDX_NAMES``."""
    for place in IDX_FOLDERS:
        found = [_plain_or_packed(folder / place / name) for name in IDX_NAMES]
        if any(path.is_file() for path in found):
            _require(found, "fashion-mnist", folder)
            return tuple(found)
    raise BadInput(
        f"{folder} holds no Fashion-MNIST: {IDX_NAMES[0]}[.gz] and its companions are neither there nor in "
        f"{IDX_FOLDERS[0]}/ or {IDX_FOLDERS[1]}/; set --data-dir or MOCOSFL_DATA"
        f"{_fetch('fashion-mnist', folder)}"
    )


def image_folders(config: Data, folder: Path) -> tuple[Path, Path]:
    """``(train, val)`` folders of an `image-folder` data set."""
    pair = (folder / config.folder / "train", folder / config.folder / "val")
    for path in pair:
        if not path.is_dir() or not any(item.is_dir() for item in path.iterdir()):
            raise BadInput(
                f"data.source = 'image-folder' needs {path} with one sub-folder of images per class; "
                f"put it there or correct data.folder = {config.folder!r} or --data-dir"
            )
    return pair


def require_scipy() -> None:
    """SVHN comes as MATLAB files, which torchvision reads with scipy."""
    if importlib.util.find_spec("scipy") is None:
        raise BadInput("data.source = 'svhn' is read from MATLAB files, for which scipy is missing; pip install scipy")


def _check_cifar(release: CifarRelease, config: Data, folder: Path) -> None:
    place = folder / release.folder
    files = (*release.train, *release.test, release.meta)
    if not place.is_dir() and (folder / release.train[0].name).is_file():
        raise BadInput(
            f"{folder} holds the files of {config.source} itself; the data directory is the folder above, "
            f"named so that {release.folder}/ lies in it"
        )
    _require([place / file.name for file in files], config.source, folder)
    if config.allow_unofficial:
        return
    for file in files:
        size = (place / file.name).stat().st_size
        if size < file.images * CIFAR_IMAGE_BYTES:
            raise BadInput(
                f"{place / file.name} has {size:,} bytes, too few for the {file.images:,} images of the "
                f"official file: it is cut short{_fetch(config.source, folder)}"
            )


def _require(paths: Sequence[Path], source: str, folder: Path) -> None:
    missing = [str(path) for path in paths if not path.is_file() or path.stat().st_size == 0]
    if missing:
        raise BadInput(
            f"data.source = {source!r}: missing or empty: {', '.join(missing)}; "
            f"set --data-dir or MOCOSFL_DATA to the folder that holds the data{_fetch(source, folder)}"
        )


def _plain_or_packed(path: Path) -> Path:
    return path if path.is_file() else path.with_name(path.name + ".gz")


def _fetch(source: str, folder: Path) -> str:
    return f", or run `mocosfl download {source} --data-dir {folder}`" if source in DOWNLOADABLE else ""
