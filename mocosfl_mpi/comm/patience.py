"""A rank that hears nothing from the others ends: over TCP, MPI itself waits for a lost host for ever."""

from __future__ import annotations

import os
import sys
import threading
import time

from mocosfl_mpi.errors import FAILURE, BadInput

PATIENCE = "MOCOSFL_PATIENCE"
"""Seconds without word from the other ranks after which a rank ends. Unset: no limit, since rank 0's evaluation, during
which nobody speaks, may take long."""


def patience() -> float | None:
    """What the environment says.

    Raises
    ------
    BadInput
        It is no positive number.
    """
    text = os.environ.get(PATIENCE, "")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise BadInput(f"{PATIENCE}={text!r}: seconds without word from other ranks after which a rank ends, e.g. 3600")
    return seconds


class Watch:
    """Ends this process ``seconds`` after the last ``heard``, from a thread, since the main one may be inside MPI."""

    def __init__(self, seconds: float, rank: int, host: str) -> None:
        self._seconds = seconds
        self._who = f"rank {rank} on {host}"
        self._last = time.monotonic()
        self._over = threading.Event()
        threading.Thread(target=self._look, name="patience", daemon=True).start()

    def heard(self) -> None:
        """All ranks have met."""
        self._last = time.monotonic()

    def stop(self) -> None:
        """Nothing more is expected of the others."""
        self._over.set()

    def _look(self) -> None:
        while not self._over.wait(min(1.0, self._seconds / 4)):
            if time.monotonic() - self._last > self._seconds:
                sys.stderr.write(
                    f"mocosfl: {self._who}: no word from the other ranks for {self._seconds:g} s ({PATIENCE}); a host "
                    f"or the network is lost, or {PATIENCE} is too short for an evaluation. Rows flushed are safe.\n"
                )
                sys.stderr.flush()
                os._exit(FAILURE)  # MPI_Abort would have to reach the others
