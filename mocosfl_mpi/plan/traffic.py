"""What the simulated clients will send, receive and compute: the run's own ledger, without the run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.clients.reliability import Reliability
from mocosfl_mpi.clients.wealth import factors, kinds
from mocosfl_mpi.cost.flops import by_client, defence_work, kinds_of_work
from mocosfl_mpi.plan.experiment import Experiment
from mocosfl_mpi.record.schema import MESSAGES, WORK
from mocosfl_mpi.saving import whole
from mocosfl_mpi.simulated import batch_bytes, codec_flops, models_of
from mocosfl_mpi.streams import Streams

Counts = npt.NDArray[np.int64]


def traffic(experiment: Experiment) -> tuple[Counts, Counts]:
    """(bytes, FLOPs) of every client over the run: int64 ``[clients, messages]`` and ``[clients, kinds of work]``.

    Pools and failures come from the seed's streams, so this is what the run will record, to the byte; the most that it
    can be where `communication.loss_threshold` saves steps, which nobody knows before.
    """
    config, steps = experiment.config, experiment.steps
    models = models_of(config, experiment.sizes_by_kind)
    reliability = Reliability(config, Streams(config.seed))
    joined, learnt, held = (np.zeros(config.client.count, dtype=np.int64) for _ in range(3))
    messages = {message: np.zeros(config.client.count, dtype=np.int64) for message in experiment.sizes.step}
    exchanged, fetched = (np.zeros((len(models), config.client.count), dtype=np.int64) for _ in range(2))
    done = 0
    for epoch, pool in enumerate(experiment.pools()):
        joined[pool] += steps
        for delivery, times in reliability.deliveries(
            [whole(config, steps, epoch, step) for step in range(steps)], pool
        ):
            learnt[pool] += times * delivery.answered
            for message, count in messages.items():
                count[pool] += times * experiment.sizes.senders(message, delivery, pool)
        for row, model in enumerate(models):
            fetched[row, pool] += held[pool] // model.every != done // model.every
        for step in experiment.sync_steps:
            done += 1
            there = pool[reliability.present(epoch, step, pool)]
            for row, model in enumerate(models):
                exchanged[row, there] += done % model.every == 0
        held[pool] = done
    sizes = {
        message: messages[message] * size for message, size in batch_bytes(config, experiment.sizes_by_kind).items()
    }
    for row, model in enumerate(models):
        sizes[f"{model.kind}_up"] = exchanged[row] * model.each_way
        sizes[f"{model.kind}_down"] = exchanged[row] * model.each_way * model.answered + fetched[row] * model.copy
    sent = np.zeros((config.client.count, len(MESSAGES)), dtype=np.int64)
    for message, size in sizes.items():
        sent[:, MESSAGES.index(message)] = size
    work = by_client(
        [cut.bottom.costs.last for cut in experiment.network.cuts],
        steps=joined,
        learnt=learnt,
        rows=config.rows_per_client * factors(config),
        frozen=config.client.frozen,
        momentum=experiment.algorithm.momentum,
        kinds=kinds(config),
    )
    codec = codec_flops(config, experiment.sizes_by_kind)
    passed = {message: learnt if message == "gradient_down" else messages[message] for message in codec}
    further = {
        "alignment": sum(exchanged[row] * model.flops for row, model in enumerate(models)),
        "codec": sum(passed[message] * flops for message, flops in codec.items()),
        "defence": defence_work(
            experiment.network.bottom.costs.last,
            learnt=learnt,
            attacked=-(-learnt // config.defence.resistance_every),
            rows=config.rows_per_client * factors(config),
        ),
    }
    more = [further[kind] + np.zeros_like(joined) for kind in kinds_of_work(config)[len(WORK) :]]
    return sent, np.column_stack([work, *more])
