"""Clients and links that fail: who drops out of an epoch, which messages are lost, who misses a synchronisation.

Every draw comes from the client's own stream of (seed, purpose, epoch, step, client): all ranks know it, and so does
whoever plans or repeats the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.config import Config
from mocosfl_mpi.saving import Trip
from mocosfl_mpi.streams import Streams

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Delivery:
    """What becomes of the messages of one step, by clients of the pool in order: ``[P]`` each, True = not lost."""

    trip: Trip
    query: Mask
    key: Mask
    gradient: Mask

    @property
    def heard(self) -> Mask:
        """Of whom the server has both query and key data; of the others it has no pair, and does without them."""
        return self.query & self.key & self.trip.up

    @property
    def answered(self) -> Mask:
        """Who gets a gradient, and learns."""
        return self.sent("gradient_down") & self.gradient

    def sent(self, message: str) -> Mask:
        """By whom, or to whom, a message of this kind was sent: the server answers those it has heard, if at all."""
        if message == "gradient_down":
            return self.heard & self.trip.down
        return np.full_like(self.query, self.trip.up)

    def lost(self, message: str) -> Mask:
        """Whose message of this kind was sent and did not arrive."""
        arrives = {"query_up": self.query, "key_up": self.key, "gradient_down": self.gradient}
        return self.sent(message) & ~arrives.get(message, np.ones_like(self.query))


class Reliability:
    """The draws of one run."""

    def __init__(self, config: Config, streams: Streams) -> None:
        self._chances = config.reliability
        self._streams = streams

    def survivors(self, epoch: int, drawn: Ids) -> Ids:
        """Who of the ``drawn`` clients takes part in the epoch; if all failed, the one that was nearest to staying."""
        return drawn[self._spared("dropout", self._chances.client_dropout, epoch, 0, drawn)]

    def present(self, epoch: int, step: int, pool: Ids) -> Mask:
        """Who of ``pool`` takes part in the synchronisation after ``step`` ``[P]``; at least one."""
        return self._spared("missed synchronisation", self._chances.sync_miss, epoch, step, pool)

    def _spared(self, purpose: str, chance: float, epoch: int, step: int, clients: Ids) -> Mask:
        if not chance:
            return np.ones(len(clients), dtype=bool)
        drawn = self._streams.uniforms(purpose, epoch=epoch, step=step, clients=clients, count=1)[:, 0]
        spared: Mask = drawn >= chance
        spared[np.argmax(drawn)] = True
        return spared

    @property
    def _losses(self) -> tuple[float, float, float]:
        chances = self._chances
        return chances.query_loss, chances.key_loss, chances.gradient_loss

    def delivery(self, trip: Trip, pool: Ids) -> Delivery:
        """What becomes of the messages that clients of ``pool`` and the server send each other on a ``trip``."""
        if not any(self._losses):
            return Delivery(trip, *np.ones((3, len(pool)), dtype=bool))
        drawn = self._streams.uniforms("message loss", epoch=trip.epoch, step=trip.step, clients=pool, count=3)
        return Delivery(trip, *(drawn >= self._losses).T)

    def deliveries(self, trips: Sequence[Trip], pool: Ids) -> Iterator[tuple[Delivery, int]]:
        """The deliveries of an epoch's ``trips``, and how many of its steps have each."""
        if any(self._losses):
            yield from ((self.delivery(trip, pool), 1) for trip in trips)
            return
        for down in (True, False):
            alike = [trip for trip in trips if trip.down == down]
            if alike:
                yield self.delivery(alike[0], pool), len(alike)
