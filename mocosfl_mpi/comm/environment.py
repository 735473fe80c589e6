"""What the process environment says about an MPI launcher, and what it should say before MPI starts.

Importable without MPI: the command line uses it to decide whether it is a launcher or a rank.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

LAUNCHERS = (
    # (rank, size, who sets them)
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "Open MPI's mpirun"),
    ("PMI_RANK", "PMI_SIZE", "a PMI launcher (MPICH's or Intel's mpiexec, srun --mpi=pmi2)"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "srun"),
)
LAUNCHED = "MOCOSFL_RANKS"
"""Set by ``mocosfl run -n N`` to N for the ranks it starts."""

LAST_WORDS = 0.5
"""Seconds that a launcher is given to pass on a rank's last line: ending everything at once loses it now and then."""

DEFAULTS = {
    # MPICH and Open MPI: a rank that waits gives its core away; price: some 50 µs of latency per message
    "MPIR_CVAR_ENABLE_HEAVY_YIELD": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_threads_pthreads_yield_strategy": "nanosleep",
    "OMPI_MCA_threads_pthreads_nanosleep_time": "50000",
    # all windows here are shared memory; the UCX component would print an error for each
    "OMPI_MCA_osc": "^ucx",
}


@dataclass(frozen=True)
class Launcher:
    """A launcher found in the environment: what it calls this process."""

    rank: int
    size: int
    name: str


def launcher(environ: Mapping[str, str] = os.environ) -> Launcher | None:
    """The launcher that started this process, or None outside of any."""
    for rank, size, name in LAUNCHERS:
        if environ.get(rank, "").isdigit() and environ.get(size, "").isdigit():
            if "SLURM" in rank and int(environ[size]) == 1:
                continue  # a batch script is a step of one task: no launcher
            return Launcher(int(environ[rank]), int(environ[size]), name)
    return None


def prepare(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let waiting ranks yield their cores, unless the user has said otherwise. Must run before MPI is initialised."""
    for name, value in DEFAULTS.items():
        environ.setdefault(name, value)
