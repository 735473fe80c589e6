"""The whole plan of one experiment on one layout of ranks: whether it fits, what it takes, what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mocosfl_mpi.config import Config
from mocosfl_mpi.cost.flops import kinds_of_work
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.plan.disk import checkpoint_bytes, record_bytes
from mocosfl_mpi.plan.experiment import Experiment
from mocosfl_mpi.plan.memory import RankMemory, rank_memory
from mocosfl_mpi.plan.profile import Profile
from mocosfl_mpi.plan.timing import Layout, StepTime, evaluation_seconds, step_time
from mocosfl_mpi.plan.traffic import traffic
from mocosfl_mpi.privacy.exposure import protection
from mocosfl_mpi.record.schema import MESSAGES

MOST_CLIENTS, MOST_IMAGES = 10**7, 10**6
"""Where a search for the largest number of clients, or of images in a batch, ends."""


@dataclass(frozen=True)
class Plan:
    """An experiment on ``layout``, with what ``profile`` says of the machine; ``limit`` is the memory in bytes."""

    experiment: Experiment
    layout: Layout
    profile: Profile
    limit: int

    @cached_property
    def parts(self) -> list[RankMemory]:
        """What every rank needs beyond the program."""
        return rank_memory(self.experiment, self.layout.ranks)

    @property
    def resident(self) -> list[int]:
        """Peak resident bytes of every rank, as `measured/resident_bytes` will have them."""
        return [self.profile.program(serves=rank == 0) + part.peak for rank, part in enumerate(self.parts)]

    @property
    def memory(self) -> int:
        """Bytes of all ranks on one node, pages that they share counted once."""
        return sum(self.resident) - sum(part.shared for part in self.parts[1:])

    @property
    def fits(self) -> bool:
        """Whether the memory suffices."""
        return self.memory <= self.limit

    @cached_property
    def time(self) -> StepTime:
        """Seconds of a step by part."""
        return step_time(self.experiment, self.layout, self.profile)

    @property
    def seconds(self) -> float:
        """The run: its steps, synchronisations and evaluations."""
        steps = self.experiment.config.epochs * self.experiment.steps
        return steps * self.time.seconds + evaluation_seconds(self.experiment, self.profile)

    def on(self, experiment: Experiment | None = None, layout: Layout | None = None) -> Plan:
        """The same machine with another experiment or layout."""
        return Plan(experiment or self.experiment, layout or self.layout, self.profile, self.limit)

    def summary(self) -> dict[str, Any]:
        """Everything, ready for JSON. Bytes are bytes, seconds seconds; simulated figures are of the whole run."""
        experiment, time = self.experiment, self.time
        config, steps = experiment.config, experiment.config.epochs * experiment.steps
        sent, work = traffic(experiment)
        best = best_layout(self)
        return {
            "fits": self.fits,
            "memory_limit_bytes": self.limit,
            "memory_bytes": self.memory,
            "resident_bytes": self.resident,
            "resident_bytes_sum": sum(self.resident),
            "program_bytes": [self.profile.program(serves=rank == 0) for rank in range(self.layout.ranks)],
            "memory_by_use": [part.uses for part in self.parts],
            "rank_clients": [part.clients for part in self.parts],
            "ranks": self.layout.ranks,
            "server_threads": self.layout.server_threads,
            "host_threads": self.layout.host_threads,
            "precision": config.compute.precision,
            "backend": config.compute.backend,
            "epochs": config.epochs,
            "steps_per_epoch": experiment.steps,
            "steps": steps,
            "syncs": config.epochs * experiment.syncs,
            "seconds_per_step": time.seconds,
            "seconds_per_step_by_part": {
                name: getattr(time, name) for name in ("server", "clients", "views", "other", "synchronisation")
            },
            "seconds_evaluating": evaluation_seconds(experiment, self.profile),
            "seconds": self.seconds,
            "idle_share_server": time.idle[0],
            "idle_share_hosts": time.idle[1],
            "client_flops": dict(zip(kinds_of_work(config), work.sum(axis=0).tolist(), strict=True)),
            "client_flops_mean": float(work.sum(axis=1).mean()),
            "server_flops": {kind: steps * count for kind, count in experiment.server_flops.items()},
            "simulated_bytes": dict(zip(MESSAGES, sent.sum(axis=0).tolist(), strict=True)),
            "simulated_bytes_per_client_mean": float(sent.sum(axis=1).mean()),
            "simulated_bytes_per_client_most": int(sent.sum(axis=1).max()),
            "participants": experiment.participants,
            "stage": "pretrain" if config.pretraining.expert else "run",
            "clients": config.client.count,
            "pool": config.pool_size,
            "protection": self._protection(),
            "record_bytes": record_bytes(experiment, self.layout.ranks),
            "checkpoint_bytes": checkpoint_bytes(experiment),
            "best_ranks": best.ranks,
            "best_host_threads": best.host_threads,
            "best_seconds_per_step": self.on(layout=best).time.seconds,
            "processor": self.profile.machine.processor,
            "cores": self.profile.machine.cores,
            "notes": [*experiment.images.notes, *_left_out(config)],
        }

    def _protection(self) -> dict[str, Any] | None:
        """What defences guarantee of the image that is sent most often; None where there are none."""
        experiment = self.experiment
        if not experiment.config.defence.anything or experiment.config.pretraining.expert:
            return None  # an expert's images are the server's own
        return protection(experiment.config, experiment.steps, experiment.owners.parts).summary()


def _left_out(config: Config) -> Iterator[str]:
    """What the plan does not count."""
    if config.compute.device != "cpu":
        yield f"memory and time are those of processors; compute.device = {config.compute.device} is not in this plan"
    if config.compute.compile:
        yield "memory and time are those of passes that are not compiled, without the time of compute.compile"
    if config.compute.pipeline == "on":
        yield "time is the most that it can be: what compute.pipeline hides of the clients' work is not in this plan"
    if config.evaluation.further:
        yield f"time and memory of {', '.join(config.evaluation.further)} at the end of the run are not in this plan"
    if config.communication.loss_threshold:
        yield (
            "bytes and computation are the most that they can be: what communication.loss_threshold saves depends on "
            "losses that nobody knows yet; so are memory and checkpoint, which hold smashed data for a replay"
        )


# ----------------------------------------------------------------------------------------------------- solutions


def layouts(experiment: Experiment, server_threads: int, cores: int) -> list[Layout]:
    """Layouts worth a thought: one process, and every number of hosts that the cores and the blocks can employ."""
    config = experiment.config
    alone = [Layout(1, server_threads, threads) for threads in sorted({1, cores})]
    return alone + [
        Layout(hosts + 1, server_threads, max(1, cores // hosts)) for hosts in range(1, min(cores, config.blocks) + 1)
    ]


def best_layout(plan: Plan) -> Layout:
    """The layout with the quickest step, of those that fit (of all, where none does)."""
    found = layouts(plan.experiment, plan.layout.server_threads, plan.profile.machine.cores)
    fitting = [layout for layout in found if plan.on(layout=layout).fits]
    return min(fitting or found, key=lambda layout: plan.on(layout=layout).time.seconds)


def most_clients(plan: Plan) -> int:
    """The largest number of clients that fits and that the partition can serve; 0 where none does."""
    return _largest(lambda count: _possible(plan, clients=count), MOST_CLIENTS)


def largest_batch(plan: Plan) -> int:
    """The largest batch that fits; 0 where none does."""
    return _largest(lambda size: _possible(plan, batch=size), MOST_IMAGES)


def _possible(plan: Plan, *, clients: int | None = None, batch: int | None = None) -> bool:
    changed = plan.experiment.resized(clients=clients, batch=batch)
    try:
        _validated(changed.config)
        changed.check()
        return plan.on(changed).fits
    except BadInput:
        return False


def _validated(config: Config) -> None:
    """Refuse what the configuration's own rules refuse."""
    try:
        Config.model_validate(config.model_dump())
    except ValueError as error:
        raise BadInput(str(error)) from None


def _largest(possible: Callable[[int], bool], end: int) -> int:
    """The largest number up to ``end`` that is ``possible``, taken to be so for all smaller ones from the first on."""
    first = next((n for n in (2**power for power in range(end.bit_length())) if possible(n)), 0)
    if not first:
        return 0
    low, high = first, min(2 * first, end)
    while high < end and possible(high):
        low, high = high, min(2 * high, end)
    if possible(high):
        return high
    while high - low > max(1, low // 1000):
        middle = (low + high) // 2
        low, high = (middle, high) if possible(middle) else (low, middle)
    return low


def changes(plan: Plan) -> Iterator[tuple[str, int]]:
    """What would lower the memory, and the bytes that would remain; most effective first."""
    found = [(text, changed.memory) for text, changed in _changed(plan) if changed.memory < plan.memory]
    yield from sorted(found, key=lambda item: item[1])


def _changed(plan: Plan) -> Iterator[tuple[str, Plan]]:
    from dataclasses import replace

    config = plan.experiment.config

    def with_(section: str, **values: object) -> Plan:
        part = getattr(config, section).model_copy(update=values)
        return plan.on(replace(plan.experiment, config=config.model_copy(update={section: part})))

    if plan.layout.ranks > 1:
        ranks = max(1, plan.layout.ranks // 2)
        yield f"-n {ranks}", plan.on(layout=Layout(ranks, plan.layout.server_threads, plan.layout.host_threads))
    if config.evaluation.linear_probe:
        yield "--set evaluation.linear_probe=false", with_("evaluation", linear_probe=False)
    labels = plan.experiment.images.labels
    half = replace(plan.experiment.images, labels=labels[: max(1, len(labels) // 2)])
    yield f"--set data.train_images={len(half.labels)}", plan.on(replace(plan.experiment, images=half))
    if config.pool_size > 1:
        ratio = config.client.sampling_ratio / 2
        yield f"--set client.sampling_ratio={ratio:g}", with_("client", sampling_ratio=ratio)
    if config.client.batch_size > 1:
        size = config.client.batch_size // 2
        name, own = "client.batch_size", size
        if config.pretraining.expert:
            name, own = "pretraining.batch", config.pretraining.batch // 2
        yield f"--set {name}={own}", plan.on(plan.experiment.resized(batch=size))
    rows = config.rows_per_client
    if not plan.experiment.network.mixes_rows and (config.server.micro_batch or 64) > rows:
        yield f"--set server.micro_batch={rows}", with_("server", micro_batch=rows)
    if config.contrast.memory_length > 1000:
        length = config.contrast.memory_length // 2
        yield f"--set contrast.memory_length={length}", with_("contrast", memory_length=length)
