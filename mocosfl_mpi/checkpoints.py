"""The whole state of a run, to disk and back, on any number of ranks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.chronicle import Chronicle
from mocosfl_mpi.clients.population import Population
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.errors import BadInput, RunFailed
from mocosfl_mpi.experts import Keeper
from mocosfl_mpi.record import misfit
from mocosfl_mpi.record.checkpoint import DIRECTORY, Checkpoint, Draft, Manifest
from mocosfl_mpi.record.writer import Recorder
from mocosfl_mpi.saving import Saving
from mocosfl_mpi.server.protocol import Server
from mocosfl_mpi.speaker import Speaker

GROWING = ("losses", "hits")
"""Of a chronicle: as many as steps of the epoch are done."""


class Checkpoints:
    """Saves and restores. Collective; rank 0 writes and reads, and never holds more than a slab of clients' rows."""

    def __init__(
        self,
        out: Path,
        facts: Manifest | None,
        cluster: Cluster,
        clients: Population,
        main_server: Server | None,
        saving: Saving,
        chronicle: Chronicle,
        recorder: Recorder | None,
        speaker: Speaker,
        keeper: Keeper | None = None,
    ) -> None:
        self._keeper = keeper
        self._directory = out / DIRECTORY
        self._facts = facts
        self._cluster = cluster
        self._clients = clients
        self._main_server = main_server
        self._saving = saving
        self._chronicle = chronicle
        self._recorder = recorder
        self._speaker = speaker

    def save(self, epoch: int, step: int, *, must: bool = False) -> float:
        """Save everything, ``step`` of ``epoch`` being the next to do; seconds it took.

        A disk that refuses costs this checkpoint, not the run: the one before it stays.

        Raises
        ------
        RunFailed
            On every rank, where it ``must`` be saved and cannot; or on rank 0, where the run's file cannot be written.
        """
        start = time.monotonic()
        rows = self._recorder.sync() if self._recorder is not None else {}
        draft, problem = None, ""
        try:
            if self._cluster.serves:
                draft = Draft(self._directory, self._chronicle.steps)
                for name, arrays in self._own():
                    draft.add(name, arrays)
        except OSError as error:
            problem = str(error)
        for name, tensors in self._clients.state():  # collective: goes on whatever the disk says
            try:
                if draft is not None and not problem:
                    draft.add(name, {key: value.numpy() for key, value in tensors.items()})
            except OSError as error:
                problem = str(error)
        try:
            if draft is not None and self._facts is not None and not problem:
                position = {"epoch": epoch, "step": step, "steps": self._chronicle.steps, "rows": rows}
                draft.commit(self._facts.model_copy(update=position))
        except OSError as error:
            problem = str(error)
        if problem:
            self._fail(draft, problem, must)
        self._cluster.root_decides(lambda: self._refuse(problem) if problem and must else None)
        return time.monotonic() - start

    def _own(self) -> Iterator[tuple[str, dict[str, npt.NDArray[np.generic]]]]:
        """What rank 0 alone holds."""
        for kind, tensors in self._main_server.state().items() if self._main_server else ():
            yield f"server-{kind}", {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
        for name, tensors in self._saving.state():
            yield name, {key: value.numpy() for key, value in tensors.items()}
        if self._keeper is not None:
            yield "expert", self._keeper.state()
        yield "chronicle", self._chronicle.state()

    def _fail(self, draft: Draft | None, problem: str, must: bool) -> None:
        if draft is not None:
            draft.abandon()
        if not must:
            self._speaker.say(f"Warning: no checkpoint could be saved ({problem}); the one before it stays, going on.")

    def _refuse(self, problem: str) -> None:
        raise RunFailed(
            f"cannot save a checkpoint below {self._directory}: {problem}. The one before it, if any, is good; free "
            f"some space and start the same command again to continue from there"
        )

    def restore(self, saved: Checkpoint | None) -> None:
        """Bring back everything but the pool at work; ``saved`` on rank 0, None elsewhere. RunFailed or BadInput."""
        self._cluster.root_decides(lambda: self._restore_own(saved))
        shared = _tensors(saved, "shared") if saved else None
        self._clients.restore(shared, self._parts(saved, "parked-"))
        if self._saving.saves:
            state = _tensors(saved, "saving") if saved else None
            self._saving.restore(state, self._parts(saved, "replay-"))

    def restore_pool(self, saved: Checkpoint | None) -> None:
        """Bring back the pool at work and what the record had counted, after the epoch was entered again."""
        self._clients.restore_pool(self._parts(saved, "pool-"))
        self._restore_chronicle(saved)

    def _restore_own(self, saved: Checkpoint | None) -> None:
        assert saved is not None
        try:
            if self._main_server is not None:
                self._main_server.restore(
                    {kind: _tensors(saved, f"server-{kind}") for kind in self._main_server.state()}
                )
            if self._keeper is not None:
                self._keeper.restore(saved.arrays("expert"))
            self._restore_chronicle(saved)
        except (KeyError, RuntimeError, ValueError) as error:
            raise BadInput(misfit.message(saved, self._differences(saved) or [str(error)])) from None
        _, shared = next(self._clients.state())  # the first part is rank 0's own
        reasons = misfit.differences(_tensors(saved, "shared"), shared, "shared")
        numbers = sum(keep.numbers for keep in self._clients.private)
        for name in saved.names("parked-")[:1]:
            rows = saved.arrays(name)["rows"]
            reasons += misfit.differences({"rows": rows}, {"rows": np.empty((len(rows), numbers))}, name)
        if reasons:
            raise BadInput(misfit.message(saved, reasons))

    def _differences(self, saved: Checkpoint) -> list[str]:
        """Of the server's state and of what is counted: what the checkpoint has otherwise."""
        own: dict[str, Mapping[str, misfit.Shaped]] = {}
        for kind, state in self._main_server.state().items() if self._main_server else ():
            own[f"server-{kind}"] = state
        own["chronicle"] = {name: value for name, value in self._chronicle.state().items() if name not in GROWING}
        found: list[str] = []
        for name, here in own.items():
            there = saved.arrays(name) if name in saved else {}
            found += misfit.differences(there, here, name)
        return found

    def _restore_chronicle(self, saved: Checkpoint | None) -> None:
        if saved is not None:
            self._chronicle.restore(saved.arrays("chronicle"))

    @staticmethod
    def _parts(saved: Checkpoint | None, prefix: str) -> Iterator[dict[str, Tensor]]:
        return (_tensors(saved, name) for name in saved.names(prefix)) if saved else iter(())


def _tensors(saved: Checkpoint, name: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in saved.arrays(name).items()}
