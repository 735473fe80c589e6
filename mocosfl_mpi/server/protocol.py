"""What the rest of a run asks of the main server, whatever it learns from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mocosfl_mpi.config import Config
from mocosfl_mpi.rows import Maps, one_after_another
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


class Traffic(Protocol[Maps]):
    """One step's smashed data as they come in, and gradients as they go out: rows of clients in the pool's order."""

    def __len__(self) -> int:
        """Rows."""

    def take(self, at: slice) -> tuple[Maps, Maps]:
        """Query and key rows ``[n, C, h, w]`` as soon as they are there; of the rich perhaps of another shape."""

    def answer(self, gradient: Maps) -> None:
        """The gradient of the rows that follow those answered before."""


class AtHand(Generic[Maps]):
    """Traffic that is there at once: query and key."""

    def __init__(self, query: Maps, key: Maps) -> None:
        self._query: Maps = query
        self._key: Maps = key
        self._answers: list[Maps] = []

    def __len__(self) -> int:
        """See ``Traffic``."""
        return len(self._query)

    def take(self, at: slice) -> tuple[Maps, Maps]:
        """See ``Traffic``."""
        return self._query[at], self._key[at]

    def answer(self, gradient: Maps) -> None:
        """See ``Traffic``."""
        self._answers.append(gradient)

    @property
    def gradient(self) -> Maps:
        """Of all rows, as they were."""
        return one_after_another(self._answers)


@runtime_checkable
class LossServer(Server, Protocol):
    """One where the loss lives, too."""

    def step(
        self, smashed: Tensor, beside: Tensor, pool: npt.NDArray[np.int64], /, *, keep_memory: bool = False
    ) -> tuple[Tensor | None, StepReport]:
        """One step on the pool's smashed data ``[rows, C, h, w]`` in its order; the gradient at the cut, and a report.

        ``beside``: smashed keys of the same shape, or labels ``[rows]``.
        """
