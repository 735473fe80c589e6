"""Messages of the simulated clients: what real devices would send, in bytes, per client and kind.

It counts payloads: shapes times item size, no headers. What this run moves between MPI ranks is another ledger.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.record.schema import MESSAGES

Members = slice | npt.NDArray[np.int64] | npt.NDArray[np.bool_] | None
Counts = npt.NDArray[np.int64]


class Ledger:
    """Bytes and numbers of messages of the current epoch's pool: int64 ``[members, messages]`` each."""

    def __init__(self, members: int) -> None:
        if members < 1:
            raise ValueError(f"members = {members}: a pool has at least one client")
        self._bytes = np.zeros((members, len(MESSAGES)), dtype=np.int64)
        self._messages = np.zeros_like(self._bytes)

    def count(self, message: str, bytes_each: int | Counts, members: Members = None) -> None:
        """Count one ``message`` of ``bytes_each`` bytes for each of ``members`` (positions in the pool; None = all).

        ``bytes_each`` is one number, or one per member. A position that is named twice is counted twice.

        Raises
        ------
        ValueError
            An unknown message, or a number of bytes that is negative or not whole.
        """
        if message not in MESSAGES:
            raise ValueError(f"unknown message {message!r}; expected one of {', '.join(MESSAGES)}")
        size = np.asarray(bytes_each)
        if not np.issubdtype(size.dtype, np.integer) or bool((size < 0).any()):
            raise ValueError(f"bytes_each = {bytes_each} for {message!r}: bytes are whole and not negative")
        column = MESSAGES.index(message)
        every = np.arange(len(self._bytes))
        where = every if members is None else every[members]
        np.add.at(self._bytes[:, column], where, size)
        np.add.at(self._messages[:, column], where, 1)

    def state(self) -> tuple[Counts, Counts]:
        """(bytes, messages) counted since the last ``take``, for a checkpoint; counting goes on."""
        return self._bytes.copy(), self._messages.copy()

    def restore(self, size: Counts, messages: Counts) -> None:
        """The inverse of ``state``. ValueError for other shapes."""
        self._bytes[...], self._messages[...] = size, messages

    def take(self) -> tuple[Counts, Counts]:
        """(bytes, messages) counted since the last call, int64 ``[members, messages]`` each; counting starts anew."""
        taken = self._bytes.copy(), self._messages.copy()
        self._bytes[:] = 0
        self._messages[:] = 0
        return taken
