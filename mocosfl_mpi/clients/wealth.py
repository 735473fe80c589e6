"""Rich and poor clients: who they are, how much larger the batches of the rich are, and who has which network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
