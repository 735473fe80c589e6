"""Can a run's file be read on this file system while it is written? Tried with two processes, as in earnest.

``python -m mocosfl_mpi.record.trial FILE`` is the reader: it prints the number of rows that it sees.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

_ROWS = 3
_TIMEOUT = 60


def try_swmr(directory: Path) -> str | None:
    """Write a small file in ``directory`` (which must exist), let another process read it meanwhile, remove it.

    Returns what went wrong, or None.
    """
    path = directory / f".mocosfl-doctor-{id(directory):x}.h5"
    try:
        with h5py.File(path, "w", libver="latest", locking="best-effort") as file:
            rows = file.create_dataset("rows", (0,), "i8", maxshape=(None,), chunks=(16,))
            file.swmr_mode = True
            rows.resize((_ROWS,))
            rows[:] = np.arange(_ROWS)
            rows.flush()
            command = [sys.executable, "-m", "mocosfl_mpi.record.trial", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"a reader did not finish within {_TIMEOUT} s"
    except (OSError, RuntimeError, ValueError) as error:
        return f"writing failed: {' '.join(str(error).split())[:200]}"
    finally:
        path.unlink(missing_ok=True)
    if done.returncode:
        return f"reading failed: {(done.stderr.strip() or 'no message').splitlines()[-1][:200]}"
    return None if done.stdout.strip() == str(_ROWS) else f"the reader saw {done.stdout.strip()!r} of {_ROWS} rows"


def main(path: str) -> int:
    """Be the reader."""
    with h5py.File(path, "r", libver="latest", swmr=True, locking="best-effort") as file:
        print(int((file["rows"][:] == np.arange(_ROWS)).sum()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
