"""One step's traffic between clients and main server."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.meter import Meter
from mocosfl_mpi.server.main_server import MainServer, StepReport


class AtServer:
    """The loss lives on the main server: smashed query and key data up, the gradient at the cut down.

    One round trip. Frozen clients want no gradient, and none travels.
    """

    def __init__(
        self,
        server: MainServer | None,
        exchange: Exchange,
        meter: Meter,
        rows: int,
        smashed_shape: tuple[int, int, int],
        dtype: torch.dtype,
        *,
        frozen: bool,
    ) -> None:
        self._server = server
        self._exchange = exchange
        self._meter = meter
        channels, height, width = smashed_shape
        self._shape = (rows, height, width, channels)  # as fast convolutions have it in memory, and on the wire
        self._dtype = dtype
        self._frozen = frozen
        self.report: StepReport | None = None

    def gradient_at_cut(
        self,
        smashed: tuple[list[Tensor], list[Tensor]],
        pool: npt.NDArray[np.int64],
        *,
        keep_memory: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> list[Tensor] | None:
        """Smashed data of this rank's blocks to their gradients, ``[lanes, rows, C, h, w]`` per block.

        None when clients are frozen. The server's report of the step is in ``report`` (None on other ranks).
        ``meanwhile`` is what clients can do until the gradient comes.
        """
        lanes = [len(part) for part in smashed[0]]
        with self._meter.phase("exchange"):
            query, key = (
                self._exchange.up([block.movedim(2, -1) for block in part], self._shape, self._dtype)
                for part in smashed
            )
        if meanwhile is not None:
            meanwhile()
        gradient = None
        if self._server is not None and query is not None and key is not None:
            with self._meter.phase("server"):
                query, key = (part.flatten(0, 1).movedim(-1, 1) for part in (query, key))
                gradient, self.report = self._server.step(query, key, pool, keep_memory=keep_memory)
                gradient = gradient.movedim(1, -1) if gradient is not None else None
        if self._frozen:
            return None
        with self._meter.phase("exchange"):
            parts = self._exchange.down(gradient, lanes, self._shape, self._dtype)
            return [part.movedim(-1, 2) for part in parts]
