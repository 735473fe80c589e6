"""The output directory of a run: new, empty, or one that holds the run to be continued; never used by two at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Literal

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.checkpoint import DIRECTORY
from mocosfl_mpi.record.schema import FILE_NAME

Resume = Literal["auto", "never", "must"]
LOCK = "lock"
PATIENCE = 15.0
"""Seconds to wait for a run that is just ending."""
_OURS = {LOCK, DIRECTORY, f"{FILE_NAME}.part", f"{FILE_NAME}.recovered"}


def prepare_output(path: Path, resume: Resume = "auto") -> None:
    """Create the directory ``path``, accept an empty one or one with a run to continue, and try that it is writable.

    Raises
    ------
    BadInput
        It holds something else, or a run where ``resume`` is `never`, or none where it is `must`; it is no
        directory, or cannot be written.
    """
    try:
        present = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
        if present - _OURS and (FILE_NAME not in present or resume == "never"):
            raise BadInput(
                f"the output directory {path} exists and is not empty; results are never overwritten: "
                f"name another one with --out, or move that one away"
            )
        if resume == "must" and FILE_NAME not in present:
            raise BadInput(f"--resume must: there is no run in {path} to continue; check --out, or use --resume auto")
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (FileExistsError, NotADirectoryError):
        raise BadInput(f"the output directory {path}: a file is in the way; name another one with --out") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot write to the output directory {path}: {error}; name another one with --out") from None


class Lock:
    """Held by rank 0 while a run is at work in a directory; the system lets go of it when the process ends."""

    def __init__(self, directory: Path, patience: float = PATIENCE) -> None:
        self._path = directory / LOCK
        try:
            self._file = self._path.open("a+")
        except OSError as error:
            raise BadInput(f"cannot write to the output directory {directory}: {error}") from None
        deadline = time.monotonic() + patience
        while not self._taken():
            if time.monotonic() > deadline:
                self._file.seek(0)
                holder = self._file.read(200).strip() or "an unknown process"
                self._file.close()
                raise BadInput(
                    f"another run is at work in {directory} ({holder}); wait for its end, stop it, or name another "
                    f"directory with --out"
                )
            time.sleep(0.1)
        with contextlib.suppress(OSError):
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            self._file.flush()

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: then nobody can be kept out
            return True
        return True

    def release(self) -> None:
        """Let go, and leave nothing behind."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._file.close()


def at_work(directory: Path) -> bool | None:
    """Whether a process of this machine holds the lock on ``directory``; None where no lock was left behind."""
    try:
        file = (directory / LOCK).open("rb")
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks: nobody can tell
            return False
    return False


def give_back(path: Path | None) -> None:
    """Remove the output directory of a refused run, if nothing was written into it."""
    if path is not None:
        with contextlib.suppress(OSError):
            path.rmdir()


def free_directory(name: str, parent: Path = Path("runs")) -> Path:
    """The first of ``runs/NAME-001``, ``runs/NAME-002``, … that does not exist yet."""
    number = 1
    while (path := parent / f"{name}-{number:03d}").exists():
        number += 1
    return path
