"""What a run took, in the figures of its plan, and the plan of a run that is over."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import RenderableType

from mocosfl_mpi.config import parse
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.plan.disk import record_bytes
from mocosfl_mpi.plan.estimate import Plan
from mocosfl_mpi.plan.experiment import Elsewhere, Experiment, experiment
from mocosfl_mpi.plan.images import image_set
from mocosfl_mpi.plan.profile import Profile, cached
from mocosfl_mpi.plan.timing import Layout
from mocosfl_mpi.plan.traffic import traffic
from mocosfl_mpi.record.reader import Run
from mocosfl_mpi.record.schema import MESSAGES, WORK
from mocosfl_mpi.record.show import figures, operations, section, size

TRAINING = ("views", "client_forward", "exchange", "server", "client_backward", "synchronise")
"""Phases whose seconds on rank 0 make up the time of training: where it does not work it waits in one of them."""

SHOWN = 4
"""Ranks whose memory is shown one by one."""


def actual(run: Run) -> dict[str, Any]:
    """What the run took, under the names of ``Plan.summary``; None for what is not known."""
    resident, phases = run.last("measured/resident_bytes"), run["phase"].tolist()
    resident = resident if resident is None else resident[: run.attrs["ranks"]]  # an earlier session may have had more
    epochs, steps = run.rows["epoch"], run.rows["step"]
    seconds = None
    if epochs > 1:  # the first epoch warms up
        training = run["measured/seconds"][1:, 0][:, [phases.index(name) for name in TRAINING]].sum(axis=1)
        seconds = float(np.median(training)) / (steps / epochs)
    sent = run["simulated/bytes"].sum(axis=(0, 1), dtype=np.int64).tolist()
    work = run["simulated/client_flops"].sum(axis=(0, 1), dtype=np.int64).tolist()
    return {
        "resident_bytes": None if resident is None else resident.tolist(),
        "resident_bytes_sum": None if resident is None else int(resident.sum()),
        "seconds_per_step": seconds,
        "simulated_bytes": dict(zip(run["message"].tolist(), sent, strict=True)),
        "client_flops": dict(zip(run["work"].tolist(), work, strict=True)),
        "record_bytes": run.path.stat().st_size,
    }


def planned(run: Run) -> dict[str, Any] | None:
    """The same figures as they are planned from the run's configuration; None where that cannot be told.

    Memory and time need a profile: the one that `mocosfl plan` left in the cache, otherwise they are left out.
    """
    try:
        profile = cached()
        config = parse(run.attrs["config"], str(run.path))
        found = experiment(config, image_set(config, None), Elsewhere(config.compute.precision, fused=True))
        return _exact(found, run) | (_measured(found, run, profile) if profile else {})
    except BadInput:
        return None


def _exact(found: Experiment, run: Run) -> dict[str, Any]:
    sent, work = traffic(found)
    return {
        "simulated_bytes": dict(zip(MESSAGES, sent.sum(axis=0).tolist(), strict=True)),
        "client_flops": dict(zip(WORK, work.sum(axis=0).tolist(), strict=True)),
        "record_bytes": record_bytes(found, int(run.attrs["ranks"])),
    }


def _measured(found: Experiment, run: Run, profile: Profile) -> dict[str, Any]:
    attrs = run.attrs
    layout = Layout(int(attrs["ranks"]), int(attrs["server_threads"]), int(attrs["host_threads"]))
    plan = Plan(found, layout, profile, profile.machine.memory)
    return {
        "resident_bytes": plan.resident,
        "resident_bytes_sum": sum(plan.resident),
        "seconds_per_step": plan.time.seconds,
    }


def render(plan: dict[str, Any], found: dict[str, Any]) -> RenderableType:
    """Planned beside actual, for ``mocosfl inspect``."""
    table = figures("planned", "actual", "planned / actual")

    def row(name: str, was: float | None, taken: float | None, unit: Any) -> None:
        ratio = f"{was / taken:.2f}" if was and taken else "–"
        table.add_row(name, *("–" if value is None else unit(value) for value in (was, taken)), ratio)

    taken = found["resident_bytes"] or []
    for rank, (was, is_) in enumerate(zip(plan.get("resident_bytes", [None] * len(taken)), taken, strict=False)):
        if rank < SHOWN:
            row(f"memory of rank {rank}", was, is_, size)
    row("memory of all ranks", plan.get("resident_bytes_sum"), found["resident_bytes_sum"], size)
    row("seconds per step", plan.get("seconds_per_step"), found["seconds_per_step"], lambda value: f"{value:.4f}")
    for name, unit in (("simulated_bytes", size), ("client_flops", operations)):
        title = {"simulated_bytes": "simulated messages", "client_flops": "computation of clients"}[name]
        row(title, sum(plan[name].values()), sum(found[name].values()), unit)
    row("run.h5", plan["record_bytes"], found["record_bytes"], size)
    return section("Plan and actual", table)
