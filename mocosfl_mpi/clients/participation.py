"""Which clients take part in an epoch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.config import Config
from mocosfl_mpi.streams import Streams

Ids = npt.NDArray[np.int64]


def pool(config: Config, streams: Streams, epoch: int, images: Ids) -> Ids:
    """The sorted ids of the epoch's P clients: all, or a choice without replacement; ``images``: counts of all clients.

    Sorted, not in drawn order: with means over rows and shared memory the order is a convention, and client
    order is the one that no rank count can change.
    """
    if config.pool_size == config.client.count:
        return np.arange(config.client.count, dtype=np.int64)
    sampling = "round_robin" if config.one_at_a_time else config.client.sampling
    chosen = SAMPLERS[sampling](config, streams, epoch, images)
    return np.sort(chosen).astype(np.int64)


def _uniform(config: Config, streams: Streams, epoch: int, images: Ids) -> Ids:
    """P of all, drawn alike."""
    return streams.generator("pool", epoch).choice(len(images), size=config.pool_size, replace=False)


def _by_data(config: Config, streams: Streams, epoch: int, images: Ids) -> Ids:
    """One after the other, with probabilities proportional to the image counts of those that are left."""
    return streams.generator("pool", epoch).choice(
        len(images), size=config.pool_size, replace=False, p=images / images.sum()
    )


def _round_robin(config: Config, streams: Streams, epoch: int, images: Ids) -> Ids:
    """The next P of a circle of all clients, which is shuffled once for the whole run."""
    circle = streams.generator("circle").permutation(len(images))
    return circle[(epoch * config.pool_size + np.arange(config.pool_size)) % len(images)]


def _trace(config: Config, streams: Streams, epoch: int, images: Ids) -> Ids:
    """P of those that are there, drawn alike; the configuration has been refused where they are too few."""
    rows = config.client.availability
    column = np.array([row[epoch % len(row)] == "1" for row in rows])
    there = np.flatnonzero(column[np.arange(len(images)) % len(rows)])
    return streams.generator("pool", epoch).choice(there, size=config.pool_size, replace=False)


SAMPLERS: dict[str, Callable[[Config, Streams, int, Ids], Ids]] = {
    "uniform": _uniform,
    "by_data": _by_data,
    "round_robin": _round_robin,
    "trace": _trace,
}
"""What `client.sampling` can name."""
