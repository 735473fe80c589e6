"""Which clients take part in an epoch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.config import Config
from mocosfl_mpi.streams import Streams


def pool(config: Config, streams: Streams, epoch: int) -> npt.NDArray[np.int64]:
    """The sorted ids of the epoch's P clients: all, or a fresh uniform sample without replacement.

    Sorted, not in drawn order: with means over rows and shared memory the order is a convention, and client
    order is the one that no rank count can change.
    """
    clients = config.client.count
    if config.pool_size == clients:
        return np.arange(clients, dtype=np.int64)
    chosen = streams.generator("pool", epoch).choice(clients, size=config.pool_size, replace=False)
    return np.sort(chosen).astype(np.int64)
