"""What this run spends on this rank: seconds per phase, under the thread budget of the phase."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

PHASES = ("views", "client_forward", "exchange", "server", "client_backward", "synchronise", "evaluate", "record")
SERVER_PHASES = frozenset({"server", "evaluate"})


class Meter:
    """Times phases and gives each the torch threads it may use.

    Where ranks share cores phases alternate (the server works while hosts wait and the other way round), so the server
    may use every one of them. A rank that does both changes its budget at each phase.

    ``settle`` waits until what a phase has begun is done: a GPU goes on when the call returns.
    """

    def __init__(self, server_threads: int, host_threads: int, settle: Callable[[], None] = lambda: None) -> None:
        self._settle = settle
        self._threads = {phase: server_threads if phase in SERVER_PHASES else host_threads for phase in PHASES}
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._current: str | None = None
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside the block as phase ``name``; that of a phase inside it is not counted twice."""
        outer = self._current
        if outer is not None:
            self._settle()
        self._turn(outer, name)
        self._current = name
        try:
            yield
            self._settle()
        finally:
            self._turn(name, outer)
            self._current = outer

    def _turn(self, before: str | None, after: str | None) -> None:
        """One phase stops and another begins, or goes on."""
        now = time.perf_counter()
        if before is not None:
            self._seconds[before] += now - self._since
        self._since = now
        if after is not None and torch.get_num_threads() != self._threads[after]:
            torch.set_num_threads(self._threads[after])

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds per phase since the last ``take``."""
        return dict(self._seconds)

    def take(self) -> list[float]:
        """Seconds per phase since the last call, in the order of ``PHASES``."""
        seconds = [self._seconds[phase] for phase in PHASES]
        self._seconds = dict.fromkeys(PHASES, 0.0)
        return seconds
