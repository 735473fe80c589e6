"""Seconds per step and per run, from what rehearsals took.

    alone            views + clients + server + other
    several ranks    clients + max(server, views) + views / steps + other

The server works while hosts draw the next views, which takes cores from it where there are not enough; the first views
of an epoch are waited for. Each term is its load over a rate between those of the profile's rehearsals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mocosfl_mpi.clients.wealth import dealt
from mocosfl_mpi.plan.experiment import Experiment
from mocosfl_mpi.plan.profile import Load, Profile, Rehearsal

SERIAL = 0.1
"""Of a host's work, the share by which each further thread falls short of its own."""
EVALUATIONS_PER_ITERATION = 1.25
"""Of the probe's objective; the line search mostly needs one."""

REPORT = 16
"""Bytes that each client of a method without a main server has for the record in a step: loss and hits."""


@dataclass(frozen=True)
class Layout:
    """How many ranks with how many threads compute."""

    ranks: int
    server_threads: int
    host_threads: int

    @property
    def hosts(self) -> int:
        """Ranks that compute clients."""
        return max(1, self.ranks - 1)

    def speed(self, cores: int) -> float:
        """What a host computes of what one thread with a core of its own would."""
        threads = self.host_threads
        return threads / (1.0 + SERIAL * (threads - 1)) * min(1.0, cores / (self.hosts * threads))

    def crowding(self, cores: int) -> float:
        """Seconds by which a second of all hosts' views delays the server."""
        wanted = self.server_threads + self.hosts * self.host_threads
        return 0.0 if self.ranks == 1 or wanted <= cores else self.hosts * self.host_threads / cores


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step by part (``server`` with what the hosts take from it), of one synchronisation, and idle."""

    server: float
    clients: float
    views: float
    other: float
    synchronisation: float
    ranks: int
    steps: int
    syncs: int

    @property
    def seconds(self) -> float:
        """One step, with its part of the epoch's synchronisations."""
        return explained(self.server, self.clients, self.views, self.ranks, self.steps) + self.other + self._averaging

    @property
    def _averaging(self) -> float:
        return self.synchronisation * self.syncs / self.steps

    @property
    def idle(self) -> tuple[float, float]:
        """Share of the step in which rank 0, and the busiest host, wait."""
        if self.ranks == 1:
            return 0.0, 0.0
        busy = self.server + self.other / 2, self.clients + self.views + self.other / 2
        return tuple(max(0.0, 1.0 - (own + self._averaging) / self.seconds) for own in busy)  # type: ignore[return-value]


def explained(server: float, clients: float, views: float, ranks: int, steps: int) -> float:
    """Seconds of a step as far as its parts tell."""
    if ranks == 1:
        return views + clients + server
    return clients + max(server, views) + views / steps


def load(experiment: Experiment, ranks: int) -> Load:
    """What a step asks for."""
    config, network = experiment.config, experiment.network
    hosts = [0] if ranks == 1 else list(range(1, ranks))
    placed = dealt(config, np.arange(config.pool_size), hosts)
    batches = max(placed.work_of(rank) for rank in hosts)
    rows = batches * config.rows_per_client
    bottoms, frozen = [cut.bottom.costs.last for cut in network.cuts], config.client.frozen
    every = config.defence.resistance_every
    learning = [0 if frozen else bottom.backward + bottom.defence + bottom.attacker // every for bottom in bottoms]
    flops = [2 * bottom.forward + more for bottom, more in zip(bottoms, learning, strict=True)]
    most = max(sum(placed.work_of(rank, kind) * each for kind, each in enumerate(flops)) for rank in hosts)
    server = sum(experiment.server_flops.values())
    return Load(
        server_flops=server,
        client_flops=config.rows_per_client * most,
        views=config.views_each * batches * config.client.batch_size * network.input,
        moved=experiment.moved_bytes or config.pool_size * REPORT,
        averaged=config.pool_size * network.cuts[0].bottom.parameters * experiment.alignment.means,
        server_row=max(server / experiment.rows, 1.0),  # without a main server there is nothing to compare
        client_row=config.rows_per_client * most / rows,
    )


def step_time(experiment: Experiment, layout: Layout, profile: Profile) -> StepTime:
    """The step's time on the profile's machine."""
    wanted, cores = load(experiment, layout.ranks), profile.machine.cores
    config = experiment.config

    def rate(value: str, amount: str, row: str) -> float:
        """Seconds per unit of ``amount``, for one thread of a host."""

        def of(rehearsal: Rehearsal) -> float:
            then = Layout(rehearsal.ranks, rehearsal.server_threads, rehearsal.host_threads)
            scale = then.speed(cores) if value in ("clients", "views") else 1.0
            return float(getattr(rehearsal, value)) * scale / max(float(getattr(rehearsal.load, amount)), 1.0)

        return profile.near(config.compute.precision, config.compute.backend, wanted, of, row)

    views = rate("views", "views", "client_row") * wanted.views / layout.speed(cores)
    return StepTime(
        server=rate("server", "server_flops", "server_row") * wanted.server_flops + views * layout.crowding(cores),
        clients=rate("clients", "client_flops", "client_row") * wanted.client_flops / layout.speed(cores),
        views=views,
        other=rate("other", "moved", "server_row") * wanted.moved,
        synchronisation=rate("synchronisation", "averaged", "client_row") * wanted.averaged,
        ranks=layout.ranks,
        steps=experiment.steps,
        syncs=experiment.syncs,
    )


def evaluation_seconds(experiment: Experiment, profile: Profile) -> float:
    """Seconds of all evaluations of a run: roughly, since nobody knows how long the probe takes to converge."""
    config, network, images = experiment.config, experiment.network, experiment.images
    settings, machine, classes = config.evaluation, profile.machine, len(images.classes)
    train, test = len(images.labels), images.test
    encoding = profile.near(
        config.compute.precision, config.compute.backend, load(experiment, 1), lambda r: r.encoding, "server_row"
    )
    forward = (network.bottom.costs.last.forward + network.trunk.costs.last.forward) / encoding

    def neighbours(bank: int, width: int) -> float:
        return 2.0 * bank * test * width / machine.products + 5e-9 * bank * test  # and the search for the nearest

    def probe(width: int) -> float:
        passes = 2 * EVALUATIONS_PER_ITERATION * settings.probe_iterations * len(settings.probe_l2)
        return passes * 2.0 * train * width * classes / machine.double_products if settings.linear_probe else 0.0

    def look(bank: int) -> float:
        return (bank + test) * forward + neighbours(bank, network.features) + neighbours(bank, network.keys)

    own = min(config.own_models, config.pool_size)
    apart = max(1, own) if config.judged_apart else 1
    looks = 1 + apart * (config.epochs // settings.every if settings.every else 0)
    judged = 1 + own if config.judged_apart else 2 + own  # the untrained network, a common one, clients' own ones
    verdicts = judged * (look(train) + images.validation * forward + probe(network.features))
    pixels = neighbours(train, network.input) + probe(network.input)
    return looks * look(min(settings.bank_images or train, train)) + verdicts + pixels
