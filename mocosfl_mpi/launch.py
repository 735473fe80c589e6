"""Starting the ranks: find the launcher that belongs to the MPI library, and give it the right environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mocosfl_mpi.comm.environment import LAUNCHED, prepare
from mocosfl_mpi.errors import BadInput

TERMINAL = "MOCOSFL_TERMINAL"
"""Columns of the launcher's terminal, for rank 0, whose own output is a pipe to mpiexec."""

MALLOC = (
    "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776:glibc.malloc.top_pad=268435456"
    ":glibc.malloc.hugetlb=1"
)
"""Keep freed memory, in huge pages: otherwise every step pays page faults again (10-25 % of the server's time)."""
SPIN = "10000"
"""Turns (about a tenth of a millisecond) that an OpenMP thread waits before it sleeps: long enough for the gap between
two kernels (measured: 8 % of the server's time), too short to take a core from a rank that works."""


def find_mpiexec() -> tuple[str, str]:
    """Path and kind (``openmpi`` or ``other``) of the launcher: beside this Python first, then on PATH.

    Raises
    ------
    BadInput
        There is none.
    """
    beside = Path(sys.executable).parent
    for name in ("mpiexec", "mpirun"):
        path = shutil.which(name, path=str(beside)) or shutil.which(name)
        if path:
            break
    else:
        raise BadInput(
            "no mpiexec found beside this Python or on PATH; `pip install 'mocosfl-mpi[mpich]'`, load your cluster's "
            "MPI module, or run with -n 1, which needs none"
        )
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=30)
    text = version.stdout + version.stderr
    return path, "openmpi" if any(mark in text for mark in ("Open MPI", "OpenRTE", "prterun", "PRRTE")) else "other"


def environment(kind: str, *, ranks: int) -> dict[str, str]:
    """The ranks' environment: idle ranks sleep, memory is kept, Open MPI takes root and more ranks than cores.

    Nothing the user has set is changed, and no transport is forced.
    """
    environ = dict(os.environ)
    prepare(environ)
    environ.setdefault("GLIBC_TUNABLES", MALLOC)
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a spinning thread pool takes the core of a rank that works
    environ.setdefault("GOMP_SPINCOUNT", SPIN)
    environ[LAUNCHED] = str(ranks)
    if sys.stdout.isatty():
        environ[TERMINAL] = str(shutil.get_terminal_size().columns)
    if kind == "openmpi":
        if os.geteuid() == 0:
            environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
            environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        for name, value in {
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # Open MPI 5
            "PRTE_MCA_hwloc_default_binding_policy": "none",
            "OMPI_MCA_rmaps_base_oversubscribe": "1",  # Open MPI 4
            "OMPI_MCA_hwloc_base_binding_policy": "none",
        }.items():
            environ.setdefault(name, value)
    return environ


def start(arguments: Sequence[str], ranks: int) -> NoReturn:
    """Become ``mpiexec -n ranks python -m mocosfl_mpi arguments``; with one rank, become that rank.

    The launcher replaces this process, so a signal to this command reaches it and nothing is left behind.
    """
    command = [sys.executable, "-m", "mocosfl_mpi", *arguments]
    kind = "none"
    if ranks > 1:
        path, kind = find_mpiexec()
        command = [path, "-n", str(ranks), *command]
    sys.stdout.flush()
    os.execve(command[0], command, environment(kind, ranks=ranks))
