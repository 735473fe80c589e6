"""What the rest of a run asks of the main server, whatever it learns from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mocosfl_mpi.config import Config
from mocosfl_mpi.server.report import StepReport
from mocosfl_mpi.split.cut import Trunk
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.streams import Streams


class Server(Protocol):
    """Holds what lies behind the cut. Exists on rank 0 only."""

    online: Trunk
    """The model that is judged."""

    def __init__(self, config: Config, trunk: Trunk, key_dim: int, streams: Streams, engine: Engine) -> None:
        """Begin with the weights of ``trunk``."""

    def begin_epoch(self, epoch: int) -> float:
        """Set the epoch's learning rate and return it."""

    def synchronise(self, weights: npt.NDArray[np.float64]) -> None:
        """The fed server has averaged the pool's clients with these ``weights [clients]``."""

    def encode(self, smashed: Tensor) -> tuple[Tensor, Tensor]:
        """Features and projections (or logits) of smashed data, for evaluation."""

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Everything that training changes, by kind."""

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """The inverse of ``state``, in place. RuntimeError or KeyError where names or shapes differ."""


@runtime_checkable
class LossServer(Server, Protocol):
    """One where the loss lives, too."""

    def step(
        self, smashed: Tensor, beside: Tensor, pool: npt.NDArray[np.int64], /, *, keep_memory: bool = False
    ) -> tuple[Tensor | None, StepReport]:
        """One step on the pool's smashed data ``[rows, C, h, w]`` in its order; the gradient at the cut, and a report.

        ``beside``: smashed keys of the same shape, or labels ``[rows]``.
        """
