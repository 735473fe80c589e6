"""What travels between clients and main server in each step, and what saves some of it (docs/communication.md).

Three-state saving by the loss is that of MocoSFL's published code (Li et al., ICLR 2023: ``loss_based_status`` in
functions/sfl_functions.py, ``--loss_threshold``), to the letter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.config import Communication, Config
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.streams import Streams

STATES = ("A", "B", "C")
"""Everything travels; no gradients come down; nothing travels and the server replays. Recorded as 0, 1, 2."""
SLAB = 2**26
"""Bytes of stored smashed data in one file of a checkpoint, or one step's where that is more."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trip:
    """One step, and what travels in it."""

    epoch: int
    step: int
    up: bool = True
    """Smashed data go up. If not, clients have nothing to do and the server replays."""
    down: bool = True
    """The gradient comes down, and clients learn."""


def whole(config: Config, steps: int, epoch: int, step: int) -> Trip:
    """A step of an epoch in state A, which has ``steps``."""
    due = (epoch * steps + step + 1) % config.communication.download_every == 0
    return Trip(epoch, step, down=due and not config.client.frozen)


def following(settings: Communication, state: str, epoch: int, before: float, loss: float) -> str:
    """The state after the ``epoch``-th epoch (from 1), which was in ``state`` and whose mean loss is ``loss``.

    ``before``: mean loss of the epoch before it.
    As published, the loss of a replayed epoch counts like any other.
    """
    threshold = settings.loss_threshold
    fall = threshold if epoch <= settings.warmup_epochs else max(before - loss, 0.0)
    if fall < threshold:
        return "B" if state == "A" else "C"
    return "A"


def replay_bytes(config: Config, steps: int, floats: int, itemsize: int) -> int:
    """Most bytes of stored smashed data: steps · pool · rows · ``floats`` · ``itemsize``, of queries and of keys."""
    if not config.communication.loss_threshold:
        return 0
    return 2 * steps * config.pool_size * config.rows_per_client * floats * itemsize


def check(config: Config, steps: int, floats: int, itemsize: int) -> None:
    """Refuse a store that is too large, and downloads that never come (BadInput); sizes as in ``replay_bytes``."""
    settings = config.communication
    needed, limit = replay_bytes(config, steps, floats, itemsize), settings.replay_mib * 2**20
    if needed > limit:
        raise BadInput(
            f"communication.loss_threshold = {settings.loss_threshold} makes rank 0 keep the smashed data of an epoch: "
            f"{needed} bytes ({steps} steps of {config.pool_size} clients with {config.rows_per_client} rows of "
            f"{floats} numbers of {itemsize} bytes, queries and keys), and communication.replay_mib = "
            f"{settings.replay_mib} allows {limit}. Set replay_mib = {-(-needed // 2**20)} where that much memory is "
            f"free, cut deeper or use model.bottleneck, or set loss_threshold = 0"
        )
    if settings.download_every > config.epochs * steps:
        raise BadInput(
            f"communication.download_every = {settings.download_every}, and the run has {config.epochs * steps} steps: "
            f"no gradient would ever come down; lower it, or set client.frozen = true"
        )


class Replay:
    """What the server received in the newest epoch in state B, step by step (rank 0).

    State C follows B alone, so that no other epoch's need be kept.
    """

    def __init__(self, streams: Streams, dtype: torch.dtype) -> None:
        self._streams = streams
        self._dtype = dtype
        self._steps: list[tuple[Tensor, Tensor]] = []
        self._pool: Ids = np.empty(0, dtype=np.int64)

    def keep(self, query: Tensor, key: Tensor, pool: Ids) -> None:
        """Add a step of ``pool``'s smashed data, equal in shape and type to the others."""
        self._steps.append((query, key))
        self._pool = pool

    def draw(self, trip: Trip) -> tuple[Tensor, Tensor, Ids]:
        """Query, key and whose they are, for a step: each stored step once in an epoch, in an order drawn for it."""
        order = self._streams.generator("replay order", trip.epoch).permutation(len(self._steps))
        return *self._steps[order[trip.step]], self._pool

    def clear(self) -> None:
        """Forget everything."""
        self._steps = []

    def state(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """For a checkpoint, in slabs of steps: queries and keys ``[steps, …]`` as bytes; and the pool."""
        slab = max(1, SLAB // (2 * self._steps[0][0].nbytes)) if self._steps else 1
        for number, start in enumerate(range(0, len(self._steps), slab)):
            queries, keys = (torch.stack(part) for part in zip(*self._steps[start : start + slab], strict=True))
            raw = {"query": queries.view(torch.uint8), "key": keys.view(torch.uint8)}  # numpy knows no bfloat16
            yield f"replay-{number:06d}", raw | {"pool": torch.from_numpy(self._pool)}

    def restore(self, parts: Iterable[Mapping[str, Tensor]]) -> None:
        """The inverse of ``state``."""
        self.clear()
        for part in parts:
            self._pool = part["pool"].numpy()
            queries, keys = (part[name].clone().view(self._dtype) for name in ("query", "key"))
            self._steps += zip(queries, keys, strict=True)


class Saving:
    """Decides what travels in every step, the same on all ranks: rank 0 knows the loss and tells the others."""

    def __init__(self, config: Config, steps: int, streams: Streams, dtype: torch.dtype, cluster: Cluster) -> None:
        self._config = config
        self._settings = config.communication
        self._steps = steps
        self._cluster = cluster
        self._state = "A"
        self._loss = math.inf
        self.replay = Replay(streams, dtype)

    def trip(self, epoch: int, step: int) -> Trip:
        """What travels in this step."""
        if self._state == "C":
            return Trip(epoch, step, up=False, down=False)
        trip = whole(self._config, self._steps, epoch, step)
        return trip if self._state == "A" else replace(trip, down=False)

    @property
    def keeps(self) -> bool:
        """Whether smashed data of these steps may be replayed."""
        return self._state == "B"

    def received(self, query: Tensor, key: Tensor, pool: Ids) -> None:
        """Keep a step's smashed data ``[rows, h, w, C]`` (rank 0)."""
        # The next step's come to the same place.
        self.replay.keep(query.to("cpu", copy=True), key.to("cpu", copy=True), pool)

    def conclude(self, epoch: int, loss: float) -> dict[str, int]:
        """Choose the next epoch's state by this one's mean ``loss`` (rank 0's counts); what there is to record."""
        if not self.saves:
            return {}
        now = self._state
        choice = following(self._settings, now, epoch + 1, self._loss, loss) if self._cluster.serves else None
        self._state, self._loss = self._cluster.broadcast_json(choice), loss
        if self._state != "C":
            self.replay.clear()
        return {"epochs/state": STATES.index(now), "epochs/next_state": STATES.index(self._state)}

    def state(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """What a checkpoint must hold, a bounded part at a time (rank 0); nothing where saving is off."""
        if self.saves:
            state, loss = torch.tensor(STATES.index(self._state)), torch.tensor(self._loss, dtype=torch.float64)
            yield "saving", {"state": state, "loss": loss}
            yield from self.replay.state()

    @property
    def saves(self) -> bool:
        """Whether there is any state."""
        return self._settings.loss_threshold > 0

    def restore(self, saved: Mapping[str, Tensor] | None, replay: Iterable[Mapping[str, Tensor]]) -> None:
        """The inverse of ``state`` where saving is on (collective; arguments count on rank 0)."""
        found = [STATES[int(saved["state"])], float(saved["loss"])] if saved is not None else None
        self._state, self._loss = self._cluster.broadcast_json(found)
        self.replay.restore(replay)
