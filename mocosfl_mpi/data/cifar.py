"""CIFAR-10 and CIFAR-100 in their official Python files, read without trusting them.

The files are pickles (Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009), and a
pickle can name any function to be called. This is the one module of the package that reads any, and its reader
knows five names, each of which makes an inert record: no function outside this file can be reached. It is the
interpreter written in Python, because the one in C allocates as much memory as a damaged file asks for.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.config import Data
from mocosfl_mpi.data.check import CIFAR, CIFAR_IMAGE_BYTES, CifarFile, CifarRelease
from mocosfl_mpi.data.images import Dataset, Images
from mocosfl_mpi.errors import BadInput

MEAN_STD = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5070752, 0.4865489, 0.4409178), (0.2673343, 0.2564385, 0.2761505)),
}


def load_cifar(config: Data, folder: Path) -> Dataset:
    """The whole of CIFAR-10 or CIFAR-100 below the data directory ``folder``.

    Raises
    ------
    BadInput
        A file is not the official one and `data.allow_unofficial` is false, or it does not hold images and
        labels of the right kind.
    """
    release = CIFAR[config.source]
    place = folder / release.folder
    files = (*release.train, *release.test, release.meta)
    content = {file.name: _read(place / file.name) for file in files}
    odd = [(file, digest) for file in files if (digest := _md5(content[file.name])) != file.md5]
    if odd and not config.allow_unofficial:
        raise BadInput(
            f"{place}: not the official {config.source} (md5 differs): "
            f"{', '.join(file.name for file, _ in odd)}; fetch the official files with "
            f"`mocosfl download {config.source} --data-dir {folder}`, or accept these with "
            f"data.allow_unofficial = true if you trust where they come from"
        )
    differing = ", ".join(f"{file.name} (md5 {digest}, official {file.md5})" for file, digest in odd)
    note = f"{place}: not the official files, so images or labels may differ from published ones: {differing}"
    mean, std = MEAN_STD[config.source]
    return Dataset(
        train=_join(release, release.train, content, place),
        test=_join(release, release.test, content, place),
        classes=_class_names(release, content[release.meta.name], place / release.meta.name),
        mean=mean,
        std=std,
        notes=(note,) if odd else (),
    )


def read_batch(content: bytes, path: Path, label_key: str, classes: int) -> Images:
    """Images ``[n, 3, 32, 32]`` and labels ``[n]`` in the bytes of a batch file; ``path`` is for messages."""
    values = _unpickle(content, path)
    record, labels = values.get(b"data"), values.get(label_key.encode())
    if not isinstance(record, _Array) or not isinstance(labels, list):
        raise _unusable(path, f"no array 'data' with a list {label_key!r}")
    pixels = record.pixels(path)
    try:
        target = np.array(labels)
    except (ValueError, OverflowError):
        raise _unusable(path, f"{label_key!r} is not a list of whole numbers") from None
    if target.dtype != np.int64 or target.shape != (len(pixels),):
        raise _unusable(path, f"{len(pixels)} images need {len(pixels)} whole numbers as {label_key!r}")
    if target.min() < 0 or target.max() >= classes:
        raise _unusable(path, f"labels {target.min()} to {target.max()} are not within 0 to {classes - 1}")
    return Images(pixels, target)


def _join(release: CifarRelease, files: tuple[CifarFile, ...], content: Mapping[str, bytes], place: Path) -> Images:
    parts = [read_batch(content[f.name], place / f.name, release.label_key, release.classes) for f in files]
    return Images(np.concatenate([p.pixels for p in parts]), np.concatenate([p.labels for p in parts]))


def _class_names(release: CifarRelease, content: bytes, path: Path) -> tuple[str, ...]:
    names = _unpickle(content, path).get(release.names_key.encode())
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise _unusable(path, f"no list of names {release.names_key!r}")
    if len(names) != release.classes:
        raise _unusable(path, f"{len(names)} class names instead of {release.classes}")
    return tuple(name.decode("ascii", "replace") if isinstance(name, bytes) else name for name in names)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}; see `mocosfl download`") from None


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()  # what the makers of CIFAR publish


def _unusable(path: Path, reason: str) -> BadInput:
    return BadInput(f"{path} is not a usable CIFAR file: {reason}; fetch it again with `mocosfl download`")


# ------------------------------------------------------------------------------------- pickles, kept harmless


class _Array:
    """What a pickled numpy array says of itself: nothing is built from it before it is checked."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, tuple) else ()

    def pixels(self, path: Path) -> npt.NDArray[np.uint8]:
        """The array as images ``[n, 3, 32, 32]``."""
        match self.state:
            case (_, (int(rows), int(columns)), _Type(code=b"u1" | "u1"), fortran, bytes(data)):
                if columns != CIFAR_IMAGE_BYTES or rows < 1 or len(data) != rows * columns or fortran:
                    raise _unusable(path, f"{len(data)} bytes for images of shape ({rows}, {columns})")
                return np.frombuffer(data, dtype=np.uint8).reshape(rows, 3, 32, 32)
        raise _unusable(path, "'data' is not a two-dimensional array of uint8")


class _Type:
    """A pickled numpy dtype: the code it was made from, such as ``u1``."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Byte order and flags do not matter to uint8."""


def _encode(text: object = "", codec: object = "") -> bytes:
    """Stand-in for ``_codecs.encode``, with which protocol 2 writes bytes."""
    if not isinstance(text, str) or codec != "latin1":
        raise pickle.UnpicklingError("unexpected text encoding")
    return text.encode("latin1")


class _Reader(pickle._Unpickler):
    """An unpickler for which numpy arrays, dtypes and byte strings exist, and nothing else."""

    known: ClassVar[dict[tuple[str, str], object]] = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image file needs")
        return self.known[module, name]


def _unpickle(content: bytes, path: Path) -> dict[Any, Any]:
    """The dict in a pickle, with byte strings as keys.

    Raises
    ------
    BadInput
        Whatever goes wrong: a damaged pickle can raise nearly any exception.
    """
    try:
        values = _Reader(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:
        what = " ".join(str(error).split())[:120]  # it may quote the whole file
        reason = f"cut short, damaged or made to do harm ({type(error).__name__}: {what})"
        raise _unusable(path, reason) from None
    if not isinstance(values, dict):
        raise _unusable(path, "it holds no dictionary")
    return {key.encode() if isinstance(key, str) else key: value for key, value in values.items()}
