"""What real clients would send and compute: the ledger of the simulated federation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.clients.reliability import Delivery
from mocosfl_mpi.clients.wealth import factors, kinds
from mocosfl_mpi.codecs import codec
from mocosfl_mpi.config import Config
from mocosfl_mpi.cost.flops import SegmentCost, by_client, codec_work, defence_work, kinds_of_work
from mocosfl_mpi.cost.ledger import Ledger
from mocosfl_mpi.record.schema import MESSAGES, WORK
from mocosfl_mpi.server.alignments import Traffic

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Arrays = dict[str, npt.NDArray[Any]]
LABEL = 8
"""Bytes of a label on the wire: an int64."""


@dataclass(frozen=True)
class WireSizes:
    """Bytes of the simulated messages of one kind of clients, and their work to compress them."""

    step: dict[str, int]
    """In every step in which it travels, by message; rich clients send multiples."""
    models: tuple[Traffic, ...]
    """For the alignment."""
    codec: dict[str, int]
    """FLOPs for what travels in a step, by kind, where there are any: quantised if sent, restored if it arrived."""
    of_first: frozenset[str] = frozenset()
    """Messages that the first client alone sends."""

    def senders(self, message: str, delivery: Delivery, pool: Ids) -> Mask:
        """By whom of ``pool``, or to whom, such a message is sent in a step ``[P]``."""
        sent = delivery.sent(message)
        return sent & (pool == 0) if message in self.of_first else sent

    @classmethod
    def of(cls, config: Config, floats: int, itemsize: int, features: int, models: tuple[Traffic, ...]) -> WireSizes:
        """``floats``: numbers of ``itemsize`` bytes in a sample's smashed data: two go up (with labels, one) and a
        gradient comes down. ``features``: bytes of a client's, where these come down and their gradient goes up.
        """
        settings, rows = config.communication, config.rows_per_client
        up, down = (
            rows * codec(name, settings.topk).bytes(floats, itemsize) for name in (settings.smashed, settings.gradient)
        )
        step = {} if config.whole_network else {"query_up": up, "key_up": up, "gradient_down": down}
        if config.supervised and step:
            del step["key_up"]
            if config.keeps_labels:
                step |= {"features_down": features, "gradient_up": features}
            elif config.client.holds_labels or not config.vertical:
                step["labels_up"] = config.rows_per_client * LABEL
        if config.client.frozen:
            step.pop("gradient_down")
        work = {message: rows * flops for message, flops in codec_work(config, floats).items()}
        return cls(step, models, work, frozenset({"labels_up"} if config.vertical else ()))


@dataclass(frozen=True)
class Models:
    """``Traffic`` of one kind of message, its bytes and work by client: int64 ``[clients]``."""

    kind: str
    each_way: Ids
    copy: Ids
    every: int
    answered: bool
    flops: Ids


def batch_bytes(config: Config, sizes: Sequence[WireSizes]) -> dict[str, Ids]:
    """Bytes of each client's message in a step, by message: ``[clients]``; ``sizes`` by kind of clients."""
    return {
        message: np.array([of_kind.step[message] for of_kind in sizes])[kinds(config)] * factors(config)
        for message in sizes[0].step
    }


def codec_flops(config: Config, sizes: Sequence[WireSizes]) -> dict[str, Ids]:
    """FLOPs of each client for a message that is compressed, by message: ``[clients]``; as ``batch_bytes``."""
    return {
        message: np.array([of_kind.codec[message] for of_kind in sizes])[kinds(config)] * factors(config)
        for message in sizes[0].codec
    }


def models_of(config: Config, sizes: Sequence[WireSizes]) -> list[Models]:
    """What each client sends and gets for the alignment; ``sizes`` by kind of clients."""
    found = []
    for same in zip(*(of_kind.models for of_kind in sizes), strict=True):
        each_way, copy, flops = (
            np.array([getattr(t, name) for t in same])[kinds(config)] for name in ("each_way", "copy", "flops")
        )
        found.append(Models(same[0].kind, each_way, copy, same[0].every, same[0].answered, flops))
    return found


class Simulated:
    """What real clients would have sent and computed. A client holds the last models it was sent."""

    def __init__(
        self, config: Config, sizes: Sequence[WireSizes], costs: Sequence[SegmentCost], *, momentum: bool
    ) -> None:
        self._config = config
        self._sizes = sizes[0]
        self._bytes = batch_bytes(config, sizes)
        self._codec = codec_flops(config, sizes)
        self._models = models_of(config, sizes)
        self._costs = costs
        self._momentum = momentum
        self._syncs = 0
        self._held = np.zeros(config.client.count, dtype=np.int64)
        """Synchronisations until each client was last in the pool."""
        self._pool: Ids = np.empty(0, dtype=np.int64)
        self._at: Ids = np.empty(0, dtype=np.int64)
        """Places of the pool's clients among those that were drawn: the members of the ledger."""
        self._ledger = Ledger(config.pool_size)
        self._factors = factors(config)
        self._kinds = kinds(config)
        self._lost = np.zeros((config.pool_size, len(MESSAGES)), dtype=np.int64)
        self._learnt = np.zeros(config.pool_size, dtype=np.int64)
        """Steps of each member in which it got its gradient."""
        self._done = np.zeros(config.client.count, dtype=np.int64)
        """Steps of each client in which it got its gradient, since the run began."""
        self._steps = 0
        """Steps in which clients had something to do."""
        self._further = {
            kind: np.zeros(config.pool_size, dtype=np.int64) for kind in kinds_of_work(config)[len(WORK) :]
        }
        """FLOPs of each member, of kinds that not all runs have."""

    def enter(self, pool: Ids, at: Ids) -> None:
        """Clients of the pool whose models are out of date download the current ones first."""
        self._pool, self._at = pool, at
        for model in self._models:
            stale = self._held[pool] // model.every != self._syncs // model.every
            stale &= model.copy[pool] > 0
            self._ledger.count(f"{model.kind}_down", model.copy[pool[stale]], at[stale])
        self._held[pool] = self._syncs

    def step(self, delivery: Delivery) -> None:
        """Every client of the pool does a step and sends and receives what belongs to it; what is lost was sent."""
        self._steps += delivery.trip.up
        self._learnt[self._at] += delivery.answered
        if "defence" in self._further:
            self._count_defence(delivery.answered)
        for message, size in self._bytes.items():
            sent = self._sizes.senders(message, delivery, self._pool)
            self._ledger.count(message, size[self._pool[sent]], self._at[sent])
            self._lost[self._at, MESSAGES.index(message)] += delivery.lost(message)
        for message, flops in self._codec.items():
            done = delivery.answered if message == "gradient_down" else delivery.sent(message)
            self._further["codec"][self._at] += flops[self._pool] * done

    def _count_defence(self, answered: Mask) -> None:
        """Those who got a gradient have added what their defence asks for; of some the attacker has learnt too."""
        due = self._done[self._pool] % self._config.defence.resistance_every == 0
        self._further["defence"][self._at] += defence_work(
            self._costs[0],
            learnt=answered.astype(np.int64),
            attacked=(answered & due).astype(np.int64),
            rows=self._config.rows_per_client * self._factors[self._pool],
        )
        self._done[self._pool] += answered

    def synchronise(self, present: Mask) -> None:
        """Clients of the pool that are present send up what is due to be aligned and get what became of it down."""
        self._syncs += 1
        for model in self._models:
            if self._syncs % model.every == 0:
                there = present & (model.each_way[self._pool] > 0)
                size = model.each_way[self._pool[there]]
                self._ledger.count(f"{model.kind}_up", size, self._at[there])
                if model.answered:
                    self._ledger.count(f"{model.kind}_down", size, self._at[there])
                if model.flops.any():
                    self._further["alignment"][self._at[there]] += model.flops[self._pool[there]]
        self._held[self._pool] = self._syncs

    def take(self) -> dict[str, npt.NDArray[np.int64]]:
        """The epoch's rows: bytes, messages and FLOPs of each client of the pool."""
        size, messages = self._ledger.take()
        steps, batches, kind = (np.zeros_like(self._learnt) for _ in range(3))
        steps[self._at], batches[self._at] = self._steps, self._factors[self._pool]
        kind[self._at] = self._kinds[self._pool]
        flops = by_client(
            self._costs,
            steps=steps,
            learnt=self._learnt,
            rows=self._config.rows_per_client * batches,
            frozen=self._config.client.frozen,
            momentum=self._momentum,
            kinds=kind,
        )
        flops = np.column_stack([flops, *self._further.values()])
        found = {"simulated/bytes": size, "simulated/messages": messages, "simulated/client_flops": flops}
        found["simulated/lost"] = self._lost.copy()
        self._steps, self._lost[:], self._learnt[:] = 0, 0, 0
        for amount in self._further.values():
            amount[:] = 0
        return found

    def state(self) -> Arrays:
        """What has been counted and is not yet recorded, and who holds which model."""
        size, messages = self._ledger.state()
        counts = np.array([self._syncs, self._steps], dtype=np.int64)
        own = {"held": self._held.copy(), "bytes": size, "messages": messages, "counts": counts}
        own["done"] = self._done.copy()
        further = {f"work_{kind}": amount.copy() for kind, amount in self._further.items()}
        return own | {"lost": self._lost.copy(), "learnt": self._learnt.copy()} | further

    def restore(self, state: Arrays) -> None:
        """The inverse of ``state``. ValueError for other shapes."""
        self._held[...] = state["held"]
        self._ledger.restore(state["bytes"], state["messages"])
        self._syncs, self._steps = (int(count) for count in state["counts"])
        # Checkpoints of runs in which nothing could fail were once without these.
        self._lost[...] = state.get("lost", 0)
        self._learnt[...] = state.get("learnt", self._steps)
        self._done[...] = state.get("done", 0)
        for kind, amount in self._further.items():  # not counted by earlier versions
            amount[...] = state.get(f"work_{kind}", 0)
