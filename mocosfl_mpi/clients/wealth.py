"""Rich and poor clients: who they are, how much larger their batches are, who has which network, who computes whom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.comm.placement import Deal, deal
from mocosfl_mpi.config import Config

Ids = npt.NDArray[np.int64]


def factors(config: Config) -> Ids:
    """How many times `client.batch_size` each client has in a batch: int64 ``[clients]``; the rich come first."""
    found = np.ones(config.client.count, dtype=np.int64)
    found[: config.rich_clients] = config.client.rich_batch_factor
    return found


def kinds(config: Config) -> Ids:
    """Which of ``SplitNetwork.cuts`` each client has: int64 ``[clients]``; 0 = the deepest, which rich clients have."""
    found = np.zeros(config.client.count, dtype=np.int64)
    if config.model.between_cuts:
        found[config.rich_clients :] = 1
    return found


def dealt(config: Config, pool: Ids, hosts: Sequence[int]) -> Deal:
    """The sorted ``pool`` (of an epoch, perhaps without some) in the configuration's blocks, and their ``hosts``."""
    equal = None if config.compute.block_size else config.blocks
    return deal(pool, config.block_size, hosts, factors(config)[pool], kinds(config)[pool], equal=equal)
