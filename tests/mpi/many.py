"""Many small runs in one start of MPI: a fresh interpreter on each rank takes seconds, a small run less than one.

``python -m tests.mpi.many FILE`` is one rank; it carries out the commands that FILE lists, one after the other.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mocosfl_mpi.cli import main
from mocosfl_mpi.launch import environment, find_mpiexec
from tests import measured
from tests.mpi.command import clean_environment


def carry_out(
    commands: Sequence[Sequence[str]],
    ranks: int,
    file: Path,
    *,
    expect: int = 0,
    timeout: float = 300,
    module: str = "tests.mpi.many",
):
    """Each of ``commands`` (words after ``mocosfl``) on ``ranks`` ranks; all must end with exit code ``expect``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([expect, [[*map(str, words)] for words in commands]]))
    kind, launcher = "none", []
    if ranks > 1:
        path, kind = find_mpiexec()
        launcher = [path, "-n", str(ranks)]
    done = subprocess.run(
        [*launcher, sys.executable, "-m", module, str(file)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=Path(__file__).parents[2],
        env=environment(kind, clean_environment(), ranks=ranks),
    )
    assert done.returncode == 0, f"{ranks} ranks: {done.stdout}{done.stderr}"
    return done


def as_rank(file: Path) -> int:
    expected, commands = json.loads(file.read_text())
    measured.once()
    for words in commands:
        code = main(words)
        if code != expected:
            print(f"exit code {code}, not {expected}: {words}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(as_rank(Path(sys.argv[1])))
