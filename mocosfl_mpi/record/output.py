"""The output directory of a run: new or empty, and writable."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from mocosfl_mpi.errors import BadInput


def prepare_output(path: Path) -> None:
    """Create the directory ``path``, or accept an empty one, and try that it can be written.

    Raises
    ------
    BadInput
        It holds something (earlier results are never touched), is no directory, or cannot be written.
    """
    try:
        if path.is_dir():
            if any(path.iterdir()):
                raise BadInput(
                    f"the output directory {path} exists and is not empty; results are never overwritten: "
                    f"name another one with --out, or move that one away"
                )
        else:
            path.mkdir(parents=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (FileExistsError, NotADirectoryError):
        raise BadInput(f"the output directory {path}: a file is in the way; name another one with --out") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot write to the output directory {path}: {error}; name another one with --out") from None


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
