"""What the simulated clients will send, receive and compute: the run's own ledger, without the run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.cost.flops import LEARNING
from mocosfl_mpi.plan.experiment import Experiment
from mocosfl_mpi.record.schema import MESSAGES, WORK
from mocosfl_mpi.saving import downloads

Counts = npt.NDArray[np.int64]


def traffic(experiment: Experiment) -> tuple[Counts, Counts]:
    """(bytes, FLOPs) of every client over the run: int64 ``[clients, messages]`` and ``[clients, kinds of work]``.

    Pools come from the seed's streams, so this is what the run will record, to the byte; the most that it can be where
    `communication.loss_threshold` saves steps, which nobody knows before.
    """
    config, steps, syncs = experiment.config, experiment.steps, experiment.syncs
    models = experiment.sizes.models
    joined, held, learned = (np.zeros(config.client.count, dtype=np.int64) for _ in range(3))
    exchanged, fetched = (np.zeros((len(models), config.client.count), dtype=np.int64) for _ in range(2))
    done = 0
    for epoch, pool in enumerate(experiment.pools()):
        joined[pool] += 1
        learned[pool] += downloads(config, steps, epoch)
        for row, model in enumerate(models):
            fetched[row, pool] += held[pool] // model.every != done // model.every
            exchanged[row, pool] += (done + syncs) // model.every - done // model.every
        done += syncs
        held[pool] = done
    sizes = {
        message: (learned if message.endswith("_down") else joined * steps) * size
        for message, size in experiment.sizes.step.items()
    }
    for row, model in enumerate(models):
        sizes[f"{model.kind}_up"] = exchanged[row] * model.each_way
        sizes[f"{model.kind}_down"] = exchanged[row] * model.each_way + fetched[row] * model.copy
    sent = np.zeros((config.client.count, len(MESSAGES)), dtype=np.int64)
    for message, size in sizes.items():
        sent[:, MESSAGES.index(message)] = size
    step = experiment.client_flops
    times = [learned if kind in LEARNING else joined * steps for kind in WORK]
    return sent, np.stack([count * step[kind] for count, kind in zip(times, WORK, strict=True)], axis=1)
