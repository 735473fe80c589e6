"""What the simulated clients will send, receive and compute: the run's own ledger, without the run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.plan.experiment import Experiment
from mocosfl_mpi.record.schema import MESSAGES, WORK

Counts = npt.NDArray[np.int64]
STATES = {"weights": "online", "momentum": "momentum", "velocity": "velocity"}
"""What a message of this kind carries."""


def traffic(experiment: Experiment) -> tuple[Counts, Counts]:
    """(bytes, FLOPs) of every client over the run: int64 ``[clients, messages]`` and ``[clients, kinds of work]``.

    Pools come from the seed's streams, so this is what the run will record, to the byte.
    """
    config, steps, syncs = experiment.config, experiment.steps, experiment.syncs
    joined, stale, held = (np.zeros(config.client.count, dtype=np.int64) for _ in range(3))
    version = 0
    for pool in experiment.pools():
        joined[pool] += 1
        stale[pool] += held[pool] != version
        version += syncs
        held[pool] = version
    sizes = experiment.sizes
    bytes_of = {message: joined * steps * size for message, size in sizes.step.items()}
    for kind, state in STATES.items():
        if state in experiment.aligned:
            bytes_of[f"{kind}_up"] = joined * syncs * sizes.weights
            bytes_of[f"{kind}_down"] = (joined * syncs + stale) * sizes.weights
    sent = np.zeros((config.client.count, len(MESSAGES)), dtype=np.int64)
    for message, size in bytes_of.items():
        sent[:, MESSAGES.index(message)] = size
    work = np.array([experiment.client_flops[kind] for kind in WORK], dtype=np.int64)
    return sent, joined[:, None] * work
