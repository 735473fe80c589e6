"""The file of an expert: a client's model and the main server's, with what must be known to go on from them.

A safetensors file: `client.online.…`, `client.momentum.…`, `server.online.…` and `server.momentum.…` by parameter; its
header says from which experiment they come. Feature memories are no part of it: they hold keys of the images from which
the expert has learnt.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mocosfl_mpi.config import Config
from mocosfl_mpi.errors import BadInput, RunFailed
from mocosfl_mpi.methods import METHODS

FILE = "expert.safetensors"
KIND = "mocosfl-expert"
"""The one key of the header, whose value is JSON: safetensors would store several in any order."""
FORMAT = 1

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class ExpertFile:
    """An expert as it was read."""

    path: Path
    sha256: str
    facts: dict[str, Any]
    arrays: Arrays

    def part(self, prefix: str) -> dict[str, npt.NDArray[Any]]:
        """Tensors whose names begin with ``prefix``, without it."""
        return {name.removeprefix(prefix): value for name, value in self.arrays.items() if name.startswith(prefix)}

    def fact(self, name: str) -> Any:
        """A value of the header. BadInput where it is missing."""
        if name not in self.facts:
            raise BadInput(f"{self.path} is damaged: its header says nothing of {name!r}")
        return self.facts[name]


def locate(config: Config) -> Path | None:
    """The file with which the experiment begins, which is there; None for random weights.

    Raises
    ------
    BadInput
        The method begins with an expert and none is named, or there is no such file.
    """
    given = config.client.pretrained
    if not given:
        if METHODS[config.method].pretrained:
            raise BadInput(
                f"method = {config.method} begins with an expert, and client.pretrained is empty: train one with "
                f"`mocosfl pretrain CONFIG --out DIR`, then set client.pretrained = DIR"
            )
        return None
    path = Path(given) / FILE if Path(given).is_dir() else Path(given)
    if not path.is_file():
        raise BadInput(
            f"client.pretrained = {given!r}: there is no file {path}; name a file that `mocosfl pretrain` wrote, or "
            f"the directory in which it lies"
        )
    return path


def read(path: Path) -> ExpertFile:
    """Read and verify an expert's file.

    Raises
    ------
    BadInput
        It cannot be read, is damaged, or is no expert's.
    """
    try:
        data = path.read_bytes()
        arrays = dict(load(data))  # refuses what has no sound header
        length = int.from_bytes(data[:8], "little")
        facts = json.loads((json.loads(data[8 : 8 + length]).get("__metadata__") or {}).get(KIND, "{}"))
        version = facts.get("format")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise BadInput(f"the expert {path} cannot be read: {' '.join(str(error).split())[:200]}") from None
    if version is None:
        raise BadInput(f"{path} is no expert; `mocosfl pretrain` writes one")
    if version != FORMAT:
        raise BadInput(f"{path} has format {version!r} and this program reads {FORMAT}; pretrain it again")
    strange = [name for name, value in arrays.items() if not np.isfinite(value).all()]
    if strange:
        raise BadInput(f"{path} holds numbers that are not finite ({strange[0]}); pretrain it again")
    return ExpertFile(path, hashlib.sha256(data).hexdigest(), facts, arrays)


def write(path: Path, facts: Mapping[str, Any], arrays: Arrays) -> None:
    """Write an expert's file, whole or not at all. RunFailed where the disk refuses."""
    metadata = {KIND: json.dumps({"format": FORMAT, **facts}, sort_keys=True)}
    data = save({name: np.ascontiguousarray(value) for name, value in arrays.items()}, metadata)
    unfinished = path.with_name(f".unfinished-{path.name}")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise RunFailed(f"cannot write {path}: {error}; free some space, and the same command goes on") from None
