"""The fed server: averages client models, and measures how far they had drifted apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.clients.population import Population
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.config import Config
from mocosfl_mpi.cost.divergence import layer_distance, relative_distance, spread
from mocosfl_mpi.meter import Meter
from mocosfl_mpi.server.alignments import Alignment, Means
from mocosfl_mpi.server.protocol import Server
from mocosfl_mpi.split.stacked import StackedModel


@dataclass(frozen=True)
class Drift:
    """Distances at one synchronisation; rows are the pool's clients in order.

    online_mean, online_momentum, momentum_mean : ``[members, layers]`` L2 norms per parameter tensor, before; NaN for
        layers that the client has not.
    online_momentum_distance, momentum_spread : ``[members]`` |C-C'|/|C| and |C'-mean C'|/|mean C'|, after.
    kept : ``[members]`` the share of its own model with which each client went on; NaN where all take the common one.
    """

    online_mean: npt.NDArray[np.float64]
    online_momentum: npt.NDArray[np.float64]
    momentum_mean: npt.NDArray[np.float64]
    online_momentum_distance: npt.NDArray[np.float64]
    momentum_spread: npt.NDArray[np.float64]
    kept: npt.NDArray[np.float64]


def due(step: int, steps: int, sync_freq: int) -> bool:
    """Whether to synchronise after ``step`` (0-based) of an epoch: every steps//sync_freq, and at its end."""
    every = steps // sync_freq
    return step % every == every - 1 or step == steps - 1


def number(epoch: int, step: int, steps: int, sync_freq: int) -> int:
    """Which synchronisation of the run, counted from 1, is the one after ``step`` of ``epoch``, where one is due."""
    every = steps // sync_freq
    return epoch * -(-steps // every) + -(-(step + 1) // every)


class FedServer:
    """Makes common to all clients what the alignment says, and measures the drift."""

    def __init__(
        self,
        config: Config,
        alignment: Alignment,
        model: StackedModel,
        exchange: Exchange,
        meter: Meter,
        main_server: Server | None = None,
    ) -> None:
        self._alignment = alignment
        self._vertical = config.vertical
        self._by_data = config.federation.weighting == "data"
        self._model = model
        self._exchange = exchange
        self._meter = meter
        self._main_server = main_server

    def _together(self, clients: Population) -> Tensor:
        """The online models of all clients ``[clients·P]``, in order."""
        return self._exchange.together(
            [block.state["online"] for block in clients.blocks], self._model.parameters, clients.dtype
        )

    def _distances(self, models: Tensor, others: Tensor) -> Tensor:
        """Distances by layer ``[lanes, layers]`` of ``models [lanes, p]`` from ``others``, one or as many of [P] or p.

        NaN for layers behind the first p numbers, which clients with fewer layers than others have not.
        """
        width = models.shape[1]
        spans = [span for span in self._model.spans if span[1] <= width]
        found = layer_distance(models, others[..., :width], spans)
        missing = len(self._model.spans) - len(spans)
        return torch.cat([found, found.new_full((len(found), missing), torch.nan)], dim=1) if missing else found

    def synchronise(
        self, clients: Population, images: npt.NDArray[np.int64], number: int, present: npt.NDArray[np.bool_]
    ) -> Drift | None:
        """Synchronisation ``number`` of the run (from 1), by the pool; the drift it found, on the server.

        ``images``: image counts of the pool's clients, the weights where the mean is by data. Clients that are not
        ``present [P]`` neither contribute nor receive; their distances are those from the others' mean. Means of online
        and momentum models are also taken where they are not aligned, to measure how far these have drifted. Those of
        layers that only some clients have are theirs; where none of these is present, what was common of them stays,
        and distances from a mean of momentum models that are not aligned are NaN.
        """
        weights = np.where(present, images if self._by_data else 1, 0).astype(np.float64)
        clients.reach(present)
        stretches = _stretches(clients, weights)

        def over(stacks: Sequence[Tensor]) -> Tensor:
            mean = torch.zeros(self._model.parameters, dtype=clients.dtype)
            for (start, stop), own in stretches:
                if own.any():
                    rows = [stack[:, start:stop] for stack in stacks]
                    mean[start:stop] = self._exchange.mean(rows, stop - start, clients.dtype, own)
            return mean

        with self._meter.phase("synchronise"):
            vacant = tuple(span for span, own in stretches if not own.any())
            means = Means(over, clients, vacant, self._alignment.momentum_columns)
            online, momentum = means.of("online"), means.of("momentum")
            spans = self._model.spans
            before = [
                torch.cat(
                    [
                        self._distances(block.own("online"), online),
                        self._distances(block.own("online"), block.own("momentum")),
                        self._distances(block.own("momentum"), momentum),
                    ],
                    dim=1,
                )
                for block in clients.blocks
            ]
            parts = self._alignment.due(number)
            done = [part.synchronise(clients, means, self._alignment.scope) for part in parts]
            kept = next((shares for shares in done if shares is not None), None)
            if kept is None:
                kept = [torch.full([lanes], torch.nan, dtype=torch.float64) for lanes in clients.lanes]
            clients.averaged(self._together(clients) if self._vertical else online)
            if self._main_server is not None:
                self._main_server.synchronise(weights)
            after = [
                torch.stack(
                    [
                        relative_distance(block.own("online"), block.own("momentum")),
                        spread(block.own("momentum"), momentum[: block.width]),
                        share,
                    ],
                    dim=1,
                )
                for block, share in zip(clients.blocks, kept, strict=True)
            ]
            layers = len(spans)
            rows = self._exchange.up(
                [torch.cat([b, a], dim=1) for b, a in zip(before, after, strict=True)], [3 * layers + 3], torch.float64
            )
        if rows is None:
            return None
        table = rows.numpy()
        return Drift(
            table[:, :layers],
            table[:, layers : 2 * layers],
            table[:, 2 * layers : 3 * layers],
            table[:, -3],
            table[:, -2],
            table[:, -1],
        )


def _stretches(
    clients: Population, weights: npt.NDArray[np.float64]
) -> list[tuple[tuple[int, int], npt.NDArray[np.float64]]]:
    """Columns of the clients' states, and the weights ``[P]`` of the clients that have them in the mean over these."""
    found, start = [], 0
    for model in reversed(clients.models):
        found.append(((start, model.parameters), weights * clients.having(model)))
        start = model.parameters
    return found
