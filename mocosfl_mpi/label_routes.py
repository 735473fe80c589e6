"""One step's traffic between clients and main server where clients learn from labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.meter import Meter
from mocosfl_mpi.routes import Smashed
from mocosfl_mpi.server.protocol import Server
from mocosfl_mpi.server.report import StepReport


class LabelsUp:
    """The loss lives on the main server: smashed data and labels up, the gradient at the cut down. One round trip."""

    def __init__(
        self,
        server: Server | None,
        exchange: Exchange,
        meter: Meter,
        rows: int,
        smashed_shape: tuple[int, ...],
        dtype: torch.dtype,
    ) -> None:
        self._server = server
        self._exchange = exchange
        self._meter = meter
        channels, height, width = smashed_shape
        self._rows = rows
        self._shape = (rows, height, width, channels)  # as fast convolutions have it in memory, and on the wire
        self._dtype = dtype
        self.report: StepReport | None = None

    def gradient_at_cut(
        self,
        smashed: Smashed,
        pool: npt.NDArray[np.int64],
        heard: npt.NDArray[np.bool_],  # noqa: ARG002 - all of them: the configuration refuses losses here
        *,
        keep_memory: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> list[Tensor] | None:
        """Smashed data of this rank's blocks to their gradients, ``[lanes, rows, C, h, w]`` per block.

        ``meanwhile`` is what clients can do until the gradient comes.
        """
        lanes = [len(part) for part in smashed[0]]
        with self._meter.phase("exchange"):
            maps = self._exchange.up([part.movedim(2, -1) for part in smashed[0]], self._shape, self._dtype)
            labels = self._exchange.up(smashed[1], [self._rows], torch.int64)
        if meanwhile is not None:
            meanwhile()
        gradient = None
        if self._server is not None and maps is not None and labels is not None:
            with self._meter.phase("server"):
                found, self.report = self._server.step(
                    maps.flatten(0, 1).movedim(-1, 1), labels.flatten(), pool, keep_memory=keep_memory
                )
                assert found is not None
                gradient = found.movedim(1, -1).to(self._dtype)
        with self._meter.phase("exchange"):
            parts = self._exchange.down(gradient, lanes, self._shape, self._dtype)
            return [part.movedim(-1, 2) for part in parts]
