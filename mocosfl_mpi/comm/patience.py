"""A rank that hears nothing from the others ends: MPI itself waits for a hung rank or a lost host for ever."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

from mocosfl_mpi.errors import FAILURE


class Watch:
    """Ends this process ``seconds`` after the last ``heard``, from a thread, since the main one may be inside MPI.

    ``who`` says which rank this is and where it stands.
    """

    def __init__(self, seconds: float, who: Callable[[], str]) -> None:
        self._seconds = seconds
        self._who = who
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
                    f"{self._who()}: no word from the other ranks for {self._seconds:g} s, so one hangs, or its host "
                    f"or the network is lost: everything ends. Start the same command again to continue from the last "
                    f"checkpoint; raise --patience if this was an honest evaluation\n"
                )
                sys.stderr.flush()
                os._exit(FAILURE)  # MPI_Abort would have to reach the others
