"""One trunk behind clients that see pieces of the same images: the server of split learning on vertical data.

Vepakomma, Gupta, Swedish, Raskar: Split learning for health: distributed deep learning without sharing raw patient
data. 2018, the configuration for vertically partitioned data: outputs of several clients are put together before the
server's layers. The labels are the server's own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.config import Config
from mocosfl_mpi.server.classifier import Classifier
from mocosfl_mpi.server.report import StepReport
from mocosfl_mpi.server.trunk_server import overwrite
from mocosfl_mpi.split.cut import Trunk
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.split.pieces import apart, together
from mocosfl_mpi.streams import Streams


class Merged(Classifier):
    """A trunk that ends in a classifier; the clients' maps are pieces of one."""

    def __init__(self, config: Config, trunk: Trunk, key_dim: int, streams: Streams, engine: Engine) -> None:  # noqa: ARG002 - the protocol's
        super().__init__(config, trunk, engine)

    def step(
        self,
        smashed: Tensor,
        labels: Tensor,
        pool: npt.NDArray[np.int64],
        /,
        *,
        keep_memory: bool = False,  # noqa: ARG002
    ) -> tuple[Tensor, StepReport]:
        """Put the pool's maps together, learn, cut the gradient apart; gradients at the cut, and a report.

        ``smashed`` ``[rows, C, h, w]`` and ``labels`` ``[rows]``: the same images in the same order for each client of
        ``pool``; the labels are therefore the same too.
        """
        own = labels.chunk(len(pool))[0]
        lesson = self._learn(together(smashed.chunk(len(pool))), own)
        gradient = torch.cat(apart(lesson.gradient, len(pool)))
        return gradient, StepReport(lesson.loss, lesson.hits / len(own), lesson.units)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Everything that training changes, by kind: trunk, SGD velocity."""
        return {"online": self.online.state_dict(), "velocity": self._velocity()}

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """The inverse of ``state``, in place. RuntimeError or KeyError where names or shapes differ."""
        self._begin_velocity()
        overwrite(self.state(), state)
