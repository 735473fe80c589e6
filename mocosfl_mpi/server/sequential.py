"""One trunk for all clients, updated on the rows of one client after the other: SFL-V2, and vanilla split learning.

Thapa, Arachchige, Camtepe, Sun: SplitFed: when federated learning meets split learning. AAAI 2022, algorithm of SFL-V2:
"the forward-backward propagations of the server-side model are conducted sequentially with respect to the client's
smashed data", in an order drawn anew each time. With a pool of one client it is the server of vanilla split learning.
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
from mocosfl_mpi.streams import Streams


class Sequential(Classifier):
    """A trunk that ends in a classifier; within a step it takes an SGD step for each client in turn."""

    def __init__(self, config: Config, trunk: Trunk, key_dim: int, streams: Streams, engine: Engine) -> None:  # noqa: ARG002 - the protocol's
        super().__init__(config, trunk, engine)
        self._streams = streams
        self._steps = torch.zeros(1, dtype=torch.int64)
        """Steps since the run began; the order of clients is drawn by it."""

    def step(
        self,
        smashed: Tensor,
        labels: Tensor,
        pool: npt.NDArray[np.int64],
        /,
        *,
        keep_memory: bool = False,  # noqa: ARG002
    ) -> tuple[Tensor, StepReport]:
        """Forward, backward and SGD for each client of ``pool``, in drawn order; gradients at the cut, and a report.

        ``smashed`` ``[rows, C, h, w]`` and ``labels`` ``[rows]``: equally many rows for each client, in the pool's
        order; so are the gradients, each of the mean loss over the client's own rows. Loss and accuracy are those
        before the client's own update.
        """
        order = self._streams.generator("turns", int(self._steps)).permutation(len(pool))
        parts, own = smashed.chunk(len(pool)), labels.chunk(len(pool))
        gradients, units = list(parts), list(parts)
        loss, hits = 0.0, 0
        for place in order:
            lesson = self._learn(parts[place], own[place])
            gradients[place], units[place] = lesson.gradient, lesson.units
            loss += lesson.loss
            hits += lesson.hits
        self._steps += 1
        return torch.cat(gradients), StepReport(loss / len(pool), hits / len(labels), torch.cat(units))

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Everything that training changes, by kind: trunk, SGD velocity, steps done."""
        return {"online": self.online.state_dict(), "velocity": self._velocity(), "counts": {"steps": self._steps}}

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """The inverse of ``state``, in place. RuntimeError or KeyError where names or shapes differ."""
        self._begin_velocity()
        overwrite(self.state(), state)
