"""How often smashed data of one image leave its client, and what defences guarantee of that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mocosfl_mpi.clients.participation import Ids, pool
from mocosfl_mpi.clients.reliability import Reliability
from mocosfl_mpi.clients.wealth import factors
from mocosfl_mpi.config import Config
from mocosfl_mpi.privacy.accounting import Guarantee, guarantee
from mocosfl_mpi.streams import Streams


def sends(config: Config, steps: int, parts: Sequence[Ids]) -> Ids:
    """Samples of smashed data that are sent of every image in a run with ``steps`` an epoch ``[images]``.

    ``parts``: each client's indices into the training images. Pools and batches come from the seed's streams, so this
    is what happens; the most that can, where `communication.loss_threshold` lets epochs send nothing. Messages that are
    lost were sent. Query and key are two samples, and so are both roles of both views; of an image in pieces, each.
    """
    streams = Streams(config.seed)
    reliability, batches = Reliability(config, streams), config.client.batch_size * factors(config)
    images = np.array([len(part) for part in parts])
    found = np.zeros(1 + max(int(part.max()) for part in parts), dtype=np.int64)
    for epoch in range(config.epochs):
        for client in reliability.survivors(epoch, pool(config, streams, epoch, images)).tolist():
            own = 0 if config.vertical else client  # all have pieces of the first one's batches
            passes, rest = divmod(steps * int(batches[own]), len(parts[own]))
            np.add.at(found, parts[own], passes)
            if rest:
                order = streams.generator("order", epoch, own, passes).permutation(parts[own])
                np.add.at(found, order[:rest], 1)
    each = config.rows_per_client // config.client.batch_size
    return found * each * config.views_each


def protection(config: Config, steps: int, parts: Sequence[Ids]) -> Guarantee:
    """What is guaranteed of the image that is sent most often."""
    return guarantee(config, int(sends(config, steps, parts).max()))
