"""Files for the user: all of them or none, and never in the place of others."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from mocosfl_mpi.errors import BadInput

REMEDY = "install it: pip install 'mocosfl-mpi[export]'"


def needed(name: str, kind: str, error: ImportError) -> BadInput:
    """The refusal where a library is missing."""
    return BadInput(f"--to {kind} needs {name}, which cannot be imported ({error}); {REMEDY}")


def deliver(out: Path, make: Callable[[Path], None]) -> list[Path]:
    """Have ``make`` fill an empty directory and move its files to ``out``; where they are then.

    Raises
    ------
    BadInput
        One of them is there already, or ``out`` cannot be written.
    """
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as name:
            folder = Path(name)
            make(folder)
            found = sorted(folder.iterdir())
            targets = [out / path.name for path in found]
            taken = [target for target in targets if target.exists()]
            if taken:
                there = f"{taken[0]} exists" if len(taken) == 1 else f"{taken[0]} and {len(taken) - 1} more exist"
                raise BadInput(f"{there}; nothing is overwritten: name another directory with -o")
            for path, target in zip(found, targets, strict=True):
                path.rename(target)
    except (FileExistsError, NotADirectoryError):
        raise BadInput(f"-o {out}: a file is in the way; name another directory") from None
    except OSError as error:
        raise BadInput(f"cannot write to {out}: {error}; name another directory with -o") from None
    finally:
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()  # of an export that failed
    return targets
