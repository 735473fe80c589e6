"""Checkpoints on disk: a directory of safetensors files and a manifest with their hashes, whole or not there at all.

``DIR/step-0000000120/`` appears under its name only when everything in it has reached the disk: written under a
temporary name, flushed through, renamed, and the rename flushed through. The last two are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mocosfl_mpi.errors import BadInput

DIRECTORY = "checkpoints"
MANIFEST = "manifest.json"
FORMAT = 1
KEPT = 2
_UNFINISHED = ".unfinished-"
_LARGEST_MANIFEST = 64 << 20

Arrays = dict[str, npt.NDArray[Any]]
Count = Annotated[int, Field(ge=0, lt=2**63)]
FileName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,100}\.safetensors$")]


class Part(BaseModel):
    """One file of a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    bytes: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """What a checkpoint is of, and which files make it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    kind: Literal["mocosfl-checkpoint"] = "mocosfl-checkpoint"
    format: Count = FORMAT
    config_hash: str
    data_sha256: str
    versions: dict[str, str]
    threads: dict[str, int]
    epoch: Count
    """Epoch of the next step."""
    step: Count
    """The next step within its epoch."""
    steps: Count
    """Steps completed."""
    rows: dict[str, Count]
    """Whole rows of the run's file per growing dimension, at this moment."""
    files: dict[FileName, Part] = {}


class Draft:
    """A checkpoint being written; ``commit`` makes it one. Any method raises OSError where the disk refuses."""

    def __init__(self, directory: Path, steps: int) -> None:
        self._target = directory / f"step-{steps:010d}"
        self._path = directory / f"{_UNFINISHED}{self._target.name}"
        self._files: dict[str, Part] = {}
        self.abandon()
        self._path.mkdir(parents=True)

    def add(self, name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write one file of arrays, through to the disk."""
        data = save({key: np.asarray(value, order="C") for key, value in arrays.items()})
        self._files[f"{name}.safetensors"] = Part(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        _write(self._path / f"{name}.safetensors", data)

    def commit(self, manifest: Manifest) -> Path:
        """Write the manifest, give the directory its name, remove all but the last two; its path."""
        whole = manifest.model_copy(update={"files": dict(self._files)})
        _write(self._path / MANIFEST, whole.model_dump_json(indent=1).encode())
        _sync_directory(self._path)
        shutil.rmtree(self._target, ignore_errors=True)  # a damaged one of the same step
        self._path.rename(self._target)
        _sync_directory(self._target.parent)
        for old in _found(self._target.parent)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
        return self._target

    def abandon(self) -> None:
        """Remove what has been written."""
        shutil.rmtree(self._path, ignore_errors=True)


class Checkpoint:
    """A checkpoint whose every byte has been verified."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    def __contains__(self, name: str) -> bool:
        return f"{name}.safetensors" in self.manifest.files

    def names(self, prefix: str) -> list[str]:
        """Names of the files that begin with ``prefix``, sorted."""
        return sorted(n.removesuffix(".safetensors") for n in self.manifest.files if n.startswith(prefix))

    def arrays(self, name: str) -> Arrays:
        """The arrays of one file. BadInput where it is missing or not what was verified."""
        file = f"{name}.safetensors"
        if file not in self.manifest.files:
            raise BadInput(f"the checkpoint {self.path} has no {file}: it was written by another program")
        return _read(self.path / file, self.manifest.files[file])


def newest(directory: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest good checkpoint below ``directory`` and a warning for each newer one that is damaged.

    Raises
    ------
    BadInput
        There are checkpoints and none of them is good.
    """
    warnings: list[str] = []
    for path in _found(directory):
        try:
            manifest = _manifest(path)
            for name, part in manifest.files.items():
                _verify(path / name, part)
        except BadInput as error:
            warnings.append(f"{error}; falling back to the one before it")
        else:
            return Checkpoint(path, manifest), warnings
    if warnings:
        raise BadInput(
            f"no checkpoint in {directory} is good: {warnings[0].partition('; falling')[0]}. Bring one back, or remove "
            f"{directory} to begin again from the first step"
        )
    return None, []


def remove_unfinished(directory: Path) -> None:
    """Remove what a killed run had begun to write."""
    if directory.is_dir():
        for path in directory.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)


def size(directory: Path) -> int:
    """Bytes of the newest checkpoint, 0 where there is none."""
    found = _found(directory)
    return sum(path.stat().st_size for path in found[0].iterdir()) if found else 0


def _found(directory: Path) -> list[Path]:
    """Checkpoints by name, newest first."""
    return sorted((path for path in directory.glob("step-*") if path.is_dir()), reverse=True)


def _manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    try:
        if file.stat().st_size > _LARGEST_MANIFEST:
            raise BadInput(f"the checkpoint {path} is damaged: its manifest is larger than any can be")
        values = json.loads(file.read_bytes())
        written = values.get("format") if isinstance(values, dict) else None
        if isinstance(written, int) and written != FORMAT:
            raise BadInput(
                f"the checkpoint {path} has format {written} and this program reads {FORMAT}; continue the run with "
                f"the version of mocosfl_mpi that wrote it"
            )
        return Manifest.model_validate(values)
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc'])) or 'manifest'}: {first['msg']}"
        raise BadInput(f"the checkpoint {path} is damaged ({' '.join(reason.split())[:200]})") from None


def _verify(path: Path, part: Part) -> None:
    try:
        found = path.stat().st_size
        if found != part.bytes:
            raise BadInput(f"the checkpoint {path.parent} is damaged ({path.name}: {found} of {part.bytes} bytes)")
        with path.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == part.sha256
    except OSError as error:
        raise BadInput(f"the checkpoint {path.parent} is damaged ({error})") from None
    if not same:
        raise BadInput(f"the checkpoint {path.parent} is damaged ({path.name}: its sha256 differs from the manifest's)")


def _read(path: Path, part: Part) -> Arrays:
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise BadInput(f"{path} has changed since it was verified a moment ago")
        return dict(load(data))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadInput(f"the checkpoint file {path} cannot be read: {error}") from None


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network file systems know no fsync of a directory
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
