"""Start the real command in a process of its own, and find what it started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TIMEOUT = 120
MOCOSFL = [sys.executable, "-m", "mocosfl_mpi"]


def clean_environment(**extra: str) -> dict[str, str]:
    """This environment without what a launcher around the tests may have put in."""
    prefixes = ("PMI", "OMPI_COMM", "PMIX", "MPI_LOCAL", "SLURM", "MOCOSFL", "HYDI")
    return {k: v for k, v in os.environ.items() if not k.startswith(prefixes)} | extra


def mocosfl(*arguments: str | Path, timeout: float = TIMEOUT, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MOCOSFL, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=clean_environment(**extra),
    )


def says_once(stderr: str) -> str:
    """The one message of ours in ``stderr``; Open MPI's launcher adds words of its own."""
    said = [line for line in stderr.splitlines() if line.startswith("mocosfl: ")]
    assert len(said) == 1, stderr
    assert "Traceback" not in stderr
    return said[0]


def processes(mark: str) -> list[tuple[int, str]]:
    """(pid, command line) of every living process whose command line holds ``mark``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if mark in line and state != "Z":
                found.append((int(entry.name), line))
    return found
