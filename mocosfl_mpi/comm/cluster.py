"""The ranks of this run: who serves, who hosts clients, and how all of them agree or end together."""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NoReturn, TypeVar, cast

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.comm import environment
from mocosfl_mpi.comm.patience import Watch
from mocosfl_mpi.errors import FAILURE, BadInput, RunFailed

environment.prepare()

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a launcher that does not match is refused below, in words
        from mpi4py import MPI
except (ImportError, RuntimeError) as error:  # no libmpi on this machine
    raise BadInput(
        f"MPI cannot be loaded ({str(error).splitlines()[0]}); install one with `pip install 'mocosfl-mpi[mpich]'`, "
        f"or load your cluster's MPI module"
    ) from None

T = TypeVar("T")
SHORTEST_NAP, LONGEST_NAP = 20e-6, 2e-3  # seconds
CHUNK = 2**28  # bytes per broadcast of a large array: MPI 3.1 counts are 32-bit


class Cluster:
    """Rank 0 is main server and fed server; the other ranks host clients; alone, rank 0 hosts them too."""

    def __init__(self, comm: MPI.Intracomm | None = None) -> None:
        self.comm = comm or MPI.COMM_WORLD
        self.rank: int = self.comm.rank
        self.size: int = self.comm.size
        self.serves = self.rank == 0
        self.hosts = [0] if self.size == 1 else list(range(1, self.size))
        self.host_name = socket.gethostname()
        self._closing: list[Callable[[], None]] = []
        self.parts: list[MPI.Intracomm] = []
        """Communicators of some of these ranks that last as long."""
        self._refusal: Exception | None = None
        self._waited = 0.0
        self.place = ""
        """Where the run stands, for the last words of a failing rank."""
        if comm is None:
            self._refuse_singletons()
        self._watch: Watch | None = None

    @classmethod
    def alone(cls) -> Cluster:
        """One process by itself, whatever started it: one rank that serves and hosts."""
        return cls(MPI.COMM_SELF)

    def _refuse_singletons(self) -> None:
        """N jobs of size 1 instead of one of size N: the launcher does not speak this MPI library's language."""
        started = environment.launcher()
        expected = int(os.environ.get(environment.LAUNCHED, started.size if started else 1))
        if self.size == 1 and expected > 1:
            name = started.name if started else "the launcher"
            slurm = "; under SLURM try srun --mpi=pmi2 (MPICH) or --mpi=pmix (Open MPI)" if "srun" in name else ""
            raise BadInput(
                f"{name} started {expected} processes, but the MPI library {self.library()!r} sees only one rank: "
                f"launcher and library do not match, and {expected} separate runs would result. Use the mpiexec of "
                f"that library, or `mocosfl run -n {expected}`{slurm}"
            )

    @staticmethod
    def library() -> str:
        """Name and version of the MPI library in one line."""
        return str(MPI.Get_library_version()).replace("\x00", "").split("\n")[0].strip()

    # ------------------------------------------------------------------------------------------ waiting

    def meet(self) -> None:
        """Sleep until every rank is here; the collective that follows then runs at full speed.

        A blocking MPI call spins on its core, which the rank that computes may need. Here a rank that waits
        sleeps between looks, for a twentieth of the time it has waited so far (20 µs to 2 ms).
        """
        if self.size > 1:
            self.wait([self.comm.Ibarrier()])

    def wait(self, requests: Sequence[MPI.Request]) -> None:
        """Sleep until what was begun is done."""
        start = time.perf_counter()
        while not MPI.Request.Testall(requests):
            time.sleep(min(LONGEST_NAP, max(SHORTEST_NAP, (time.perf_counter() - start) / 20)))
        self._waited += time.perf_counter() - start
        if self._watch:
            self._watch.heard()

    def take_waited(self) -> float:
        """Seconds this rank has waited for others since the last call."""
        waited, self._waited = self._waited, 0.0
        return waited

    # ---------------------------------------------------------------------------------------- agreement

    def vote(self, urgency: int) -> Callable[[], int]:
        """Begin to find the largest ``urgency`` of all ranks; the function returned gives it.

        What ranks exchange in between brings them near each other: the answer is there, or soon, when it is asked for.
        """
        if self.size == 1:
            return lambda: urgency
        numbers = np.array([urgency, 0], dtype=np.int64)  # must live until the answer is there
        request = self.comm.Iallreduce(numbers[:1], numbers[1:], op=MPI.MAX)

        def result() -> int:
            self.wait([request])
            return int(numbers[1])

        return result

    def broadcast_json(self, value: Any) -> Any:
        """Rank 0's JSON-ready ``value`` on every rank; nothing is unpickled."""
        data = bytearray(json.dumps(value).encode()) if self.serves else bytearray()
        length = np.array([len(data)], dtype=np.int64)
        self.meet()
        self.comm.Bcast(length, root=0)
        if not self.serves:
            data = bytearray(int(length[0]))
        self.comm.Bcast([data, MPI.BYTE], root=0)
        return json.loads(data.decode())

    def root_decides(self, work: Callable[[], T]) -> T | None:
        """Run ``work`` on rank 0; if it refuses, every rank refuses with it. Its result, on rank 0 only."""
        result: T | None = None
        refusal: BadInput | RunFailed | None = None
        if self.serves:
            try:
                result = work()
            except (BadInput, RunFailed) as error:
                refusal = error
        kind = self.broadcast_json([type(refusal).__name__, str(refusal)] if refusal else None)
        if kind is not None:
            self._refusal = refusal or {"BadInput": BadInput, "RunFailed": RunFailed}[kind[0]](kind[1])
            raise self._refusal
        return result

    def everywhere(self, work: Callable[[], T]) -> T:
        """Run ``work``, the same on every rank, after rank 0 has shown that it does not refuse."""
        done = self.root_decides(work)
        return work() if done is None else done

    def agreed(self, error: Exception) -> bool:
        """Whether every rank raises ``error``: nobody waits for this rank then."""
        return error is self._refusal

    def ended_by(self, error: BadInput | RunFailed) -> int:
        """Say what ended this rank, once where all agree, and end the others where they do not; the exit code."""
        agreed = self.agreed(error)
        if self.serves or not agreed:
            print(f"mocosfl: {error}", file=sys.stderr)
        if not agreed:
            self.end_everything(error.exit_code)
        return error.exit_code

    def share(self, array: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        """Rank 0's array on every rank, read-only, with one copy per node (an MPI shared-memory window)."""
        if self.size == 1:
            assert array is not None
            return array
        header = self.broadcast_json([list(array.shape), array.dtype.str] if array is not None else None)
        shape, dtype = tuple(header[0]), np.dtype(header[1])
        size = int(np.prod(shape)) * dtype.itemsize
        node = self.of_node()
        window = MPI.Win.Allocate_shared(size if node.rank == 0 else 0, 1, comm=node)
        self._closing.append(window.Free)
        memory = np.asarray(window.Shared_query(0)[0], dtype=np.uint8)[:size]
        leaders = self.comm.Split(0 if node.rank == 0 else MPI.UNDEFINED, key=self.rank)
        if leaders != MPI.COMM_NULL:
            if array is not None:
                memory[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            for start in range(0, size, CHUNK):
                leaders.Bcast([memory[start : start + CHUNK], MPI.BYTE], root=0)
            leaders.Free()
        node.Barrier()
        node.Free()
        shared: npt.NDArray[Any] = memory.view(dtype).reshape(shape)
        shared.flags.writeable = False
        return shared

    def of_node(self) -> MPI.Intracomm:
        """A new communicator of the ranks that can share memory with this one, in order (collective)."""
        return cast(MPI.Intracomm, self.comm.Split_type(MPI.COMM_TYPE_SHARED, key=self.rank))

    def gather_json(self, value: Any) -> list[Any] | None:
        """Every rank's JSON-ready ``value`` on rank 0, in rank order."""
        data = np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)
        lengths = np.zeros(self.size, dtype=np.int64)
        self.meet()
        self.comm.Gather(np.array([data.size], dtype=np.int64), lengths if self.serves else None, root=0)
        everything = np.empty(int(lengths.sum()), dtype=np.uint8)
        self.comm.Gatherv(data, [everything, lengths] if self.serves else None, root=0)
        if not self.serves:
            return None
        parts = np.split(everything, np.cumsum(lengths)[:-1])
        return [json.loads(part.tobytes().decode()) for part in parts]

    def close(self) -> None:
        """Free shared windows, all ranks together, at a normal end."""
        if self._watch:
            self._watch.stop()
        for free in self._closing:
            free()
        for comm in self.parts:
            comm.Free()
        self._closing.clear()
        self.parts.clear()

    def at_close(self, work: Callable[[], None]) -> None:
        """Let ``work``, which all ranks do together, be done at a normal end."""
        self._closing.append(work)

    # ------------------------------------------------------------------------------------------ failure

    def _who(self) -> str:
        place = f", {self.place}" if self.place else ""
        return f"rank {self.rank} of {self.size} on {self.host_name}{place}"

    @staticmethod
    def is_loss(error: BaseException) -> bool:
        """Whether ``error`` may say that a rank has died; Open MPI has more errors for it than ERR_PROC_FAILED."""
        return isinstance(error, MPI.Exception)

    def survivors(self) -> Cluster:
        """The ranks that are left after a loss, renumbered; collective over them.

        Shared windows of the old ranks stay mapped: freeing them would need the dead.
        """
        if self._watch:
            self._watch.stop()
        for comm in (self.comm, *self.parts):
            comm.Revoke()  # whoever still waits for the dead hears of it
        return Cluster(cast(MPI.Intracomm, self.comm.Shrink()))

    def leave_at_once(self, code: int) -> NoReturn:
        """End this rank without MPI_Finalize, in which a launcher that has lost a host may wait for ever."""
        self.comm.Barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def watch(self, seconds: float) -> None:
        """From here on this rank ends when it hears nothing from the others for so long."""
        if self.size > 1:
            self._watch = Watch(seconds, self._who)

    def end_everything(self, code: int) -> None:
        """End all ranks now, once the launcher has had the time to pass on what was said."""
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(environment.LAST_WORDS)
        self.comm.Abort(code)

    def abort_on_error(self) -> None:
        """From here on any uncaught error on any rank or thread ends the whole job, with its traceback."""

        def report(
            kind: type[BaseException], value: BaseException | None, trace: TracebackType | None, where: str = ""
        ) -> None:
            lines = "".join(traceback.format_exception(kind, value, trace))
            if issubclass(kind, KeyboardInterrupt):
                lines = "interrupted\n"
            sys.stderr.write(f"{self._who()}{where} failed:\n{lines}")
            self.end_everything(FAILURE)

        def from_thread(args: threading.ExceptHookArgs) -> None:
            name = args.thread.name if args.thread else "unknown"
            report(args.exc_type, args.exc_value, args.exc_traceback, f", thread {name},")

        sys.excepthook = report
        threading.excepthook = from_thread
        faulthandler.enable()  # a crash outside Python (a library, the hardware) says where it happened, too
