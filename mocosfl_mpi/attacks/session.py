"""The life of one rank of `mocosfl attack`: do whole jobs, tell rank 0, which records them as they come."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mocosfl_mpi.attacks.jobs import ABOUT_EXPERTS, ALL, STANDARD, Job, Orders, check, plan
from mocosfl_mpi.attacks.registry import ATTACKS
from mocosfl_mpi.attacks.stage import Stage
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.dealer import hand_out
from mocosfl_mpi.comm.environment import launcher
from mocosfl_mpi.errors import STOPPED, BadInput, RunFailed
from mocosfl_mpi.record.attack_schema import FILE_NAME, METRICS
from mocosfl_mpi.record.attacks import (
    PICTURES,
    AttackWriter,
    Outcome,
    attack_attributes,
    clipped,
    open_for_more,
    read_outcomes,
)
from mocosfl_mpi.record.attributes import software_versions
from mocosfl_mpi.record.output import Lock
from mocosfl_mpi.signals import asked
from mocosfl_mpi.speaker import clock, console

Afterwards = Callable[[Stage, list[Outcome]], int]
"""What rank 0 does with the rows of this checkpoint that were asked for; its exit code."""


@dataclass(frozen=True)
class Conduct:
    """How the attacks on a run are done, and where the data lie."""

    run: Path
    data_dir: Path | None
    threads: int
    quiet: bool
    command: str


def attack_as_rank(orders: Orders, conduct: Conduct, afterwards: Afterwards) -> int:
    """Be one rank; returns the exit code. What all ranks refuse together ends quietly, all else at once."""
    cluster = Cluster()
    cluster.abort_on_error()
    torch.set_num_threads(conduct.threads)
    try:
        stage = cluster.everywhere(lambda: _stage(orders, conduct))
        return _session(cluster, stage, orders, conduct, afterwards)
    except (BadInput, RunFailed) as error:
        return cluster.ended_by(error)


def _stage(orders: Orders, conduct: Conduct) -> Stage:
    check(orders, ATTACKS)
    stage = Stage.of(conduct.run, conduct.data_dir)
    stage.check_client(orders.client)
    return stage


def _without_expert(orders: Orders, conduct: Conduct, stage: Stage, jobs: list[Job]) -> list[Job]:
    """The jobs without those about an expert that cannot be read (rank 0), which nobody has asked for by name.

    Raises
    ------
    BadInput
        Somebody has.
    """
    about = [job for job in jobs if ATTACKS[job.attack].kind in ABOUT_EXPERTS]
    if not about:
        return jobs
    try:
        _ = stage.victim.expert
    except BadInput as error:
        if orders.attacks not in ((ALL,), (STANDARD,)):
            raise
        left_out = ", ".join(dict.fromkeys(job.attack for job in about))
        if not conduct.quiet:
            print(f"mocosfl: {left_out} are left out: {error}", file=sys.stderr)
        return [job for job in jobs if job not in about]
    return jobs


def _jobs(orders: Orders, stage: Stage) -> list[Job]:
    return plan(orders, ATTACKS, defended=stage.defended)


def _session(cluster: Cluster, stage: Stage, orders: Orders, conduct: Conduct, afterwards: Afterwards) -> int:
    jobs, directory = _jobs(orders, stage), stage.victim.directory
    asked_for = cluster.root_decides(lambda: _without_expert(orders, conduct, stage, jobs))
    wanted = {job.key(stage.state): job for job in (jobs if asked_for is None else asked_for)}
    lock = cluster.root_decides(lambda: Lock(directory, patience=0.0))
    try:
        earlier = cluster.root_decides(lambda: read_outcomes(directory)) or []
        done = {outcome.key: outcome for outcome in earlier if outcome.key in wanted}
        keys = cluster.broadcast_json([key for key in wanted if key not in done])
        missing = [wanted[key] for key in keys]
        _say(conduct, cluster, f"{len(wanted)} attacks on {directory}, {len(done)} of them recorded before")
        if missing:
            attributes = _attributes(cluster, stage, conduct)
            writer = cluster.root_decides(lambda: open_for_more(directory, attributes))
            results = hand_out(
                cluster, len(missing), lambda number: stage.perform(missing[number]), lambda: bool(asked())
            )
            for number, result in results:
                assert writer is not None
                outcome = _keep(writer, directory, stage, missing[number], result)
                done[outcome.key] = outcome
                _say(conduct, cluster, f"[{len(done)}/{len(wanted)}] {missing[number].name()}: {_told(outcome)}")
            if writer is not None:
                writer.close()
        code = 0
        if cluster.serves:
            found = [done[key] for key in wanted if key in done]
            code = (
                afterwards(stage, found) if len(found) == len(wanted) else _stopped(directory, len(wanted), len(found))
            )
        return int(cluster.broadcast_json(code))
    finally:
        if lock is not None:
            lock.release()


def _stopped(directory: Path, wanted: int, found: int) -> int:
    print(
        f"mocosfl: stopped on {asked()}: {found} of {wanted} attacks are in {directory / FILE_NAME}; the same command "
        f"does the others",
        file=sys.stderr,
    )
    return STOPPED


def _keep(writer: AttackWriter, directory: Path, stage: Stage, job: Job, result: Mapping[str, Any]) -> Outcome:
    """Write the samples, then the row that names them."""
    encoded, name = result.get("picture"), ""
    if encoded:
        name = f"{job.attack}-{job.adversary}-seed{job.seed}-{job.key(stage.state)[:12]}.png"
        try:
            (directory / PICTURES).mkdir(exist_ok=True)
            (directory / PICTURES / name).write_bytes(base64.b64decode(encoded))
        except OSError as error:
            raise RunFailed(f"cannot write {directory / PICTURES / name}: {error}. {writer.form.safe}") from None
    outcome = stage.outcome(job, dict(result), name)
    writer.add(outcome)
    return outcome


def _attributes(cluster: Cluster, stage: Stage, conduct: Conduct) -> dict[str, str | int]:
    started = launcher()
    return attack_attributes(
        stage.victim.config,
        command=conduct.command,
        launcher=started.name if started else "none",
        host=cluster.host_name,
        ranks=cluster.size,
        threads=conduct.threads,
        versions=software_versions(cluster.library()),
    )


def _say(conduct: Conduct, cluster: Cluster, text: str) -> None:
    if cluster.serves and not conduct.quiet:
        console().print(text, markup=False, soft_wrap=True)
        sys.stdout.flush()


def _told(outcome: Outcome) -> str:
    if outcome.reason:
        return f"cannot be mounted: {clipped(outcome.reason, 160)}"
    numbers = ", ".join(f"{METRICS[name].title} {value:.{METRICS[name].digits}f}" for name, value in _first(outcome))
    return f"{numbers} ({clock(outcome.seconds)})"


def _first(outcome: Outcome) -> list[tuple[str, float]]:
    return list(outcome.scores.items())[:4]
