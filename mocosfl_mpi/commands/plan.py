"""``mocosfl plan``: what a run will need, before it is queued."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mocosfl_mpi.commands.common import (
    Subcommands,
    add_configuration,
    add_stage,
    configuration,
    configuration_of_stage,
    data_dir,
)
from mocosfl_mpi.errors import BadInput

if TYPE_CHECKING:
    from mocosfl_mpi.config import Config
    from mocosfl_mpi.native import Kernels
    from mocosfl_mpi.plan.estimate import Plan
    from mocosfl_mpi.plan.experiment import Experiment
    from mocosfl_mpi.plan.profile import Profile
    from mocosfl_mpi.plan.timing import Layout

DOES_NOT_FIT = 3
GIBIBYTE = 2**30


def add(commands: Subcommands) -> None:
    """Declare the command."""
    plan = commands.add_parser(
        "plan",
        help="memory, time, traffic and disk of a run before it is started (exit 0: it fits, 3: it does not)",
        description="Say what a run will need, without training. A few steps with made-up images are timed here, or "
        "a profile of another machine is read. Exit code 0: it fits; 3: it does not, with what to change.",
    )
    add_configuration(plan)
    add_stage(plan)
    plan.add_argument("-n", dest="ranks", type=int, default=1, metavar="RANKS", help="MPI ranks (default: 1)")
    plan.add_argument("--profile", type=Path, metavar="FILE", help="take times from FILE instead of this machine")
    plan.add_argument(
        "--save-profile", type=Path, metavar="FILE", help="measure several sizes of network here and write FILE"
    )
    plan.add_argument(
        "--memory-limit", type=float, metavar="GiB", help="memory for all ranks (default: all that the machine has)"
    )
    plan.add_argument(
        "--solve",
        choices=["clients", "ranks", "batch"],
        help="find the largest number of clients, the best number of ranks, or the largest batch that fits",
    )
    plan.add_argument(
        "--published-accounting",
        action="store_true",
        help="instead of the plan: what the run costs a client as the papers count, beside the truth, and why they "
        "differ; measures nothing",
    )
    plan.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    plan.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    if options.published_accounting:
        return _account(options)
    from mocosfl_mpi.plan.estimate import changes
    from mocosfl_mpi.plan.show import render
    from mocosfl_mpi.speaker import console

    plan = _plan(options)
    solution = _solve(plan, options.solve, measures=options.profile is None) if options.solve else {}
    remedies = [] if plan.fits else list(changes(plan))
    summary = plan.summary()
    if options.json:
        remaining = [{"change": change, "memory_bytes": left} for change, left in remedies]
        print(json.dumps(summary | {"changes": remaining, "solution": solution or None}))
    else:
        console().print(render(summary, remedies, str(solution.get("text", ""))))
    return 0 if plan.fits else DOES_NOT_FIT


def _account(options: argparse.Namespace) -> int:
    """The papers' accounting: from shapes and the seed alone, on no machine in particular."""
    from mocosfl_mpi.plan.accounting import accounting
    from mocosfl_mpi.plan.accounting_show import render
    from mocosfl_mpi.plan.images import image_set
    from mocosfl_mpi.speaker import console

    if options.stage != "run":
        raise BadInput("--published-accounting is about runs; leave --stage pretrain out, or ask for a plan")
    for name in ("profile", "save_profile", "memory_limit", "solve"):
        if getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise BadInput(f"--published-accounting counts and measures nothing; leave {option} out, or ask for a plan")
    _, config = configuration(options)
    if config.supervised:
        raise BadInput(
            f"--published-accounting is about the papers' contrastive methods, and method = {config.method} learns "
            f"from labels; leave the option out, or add --set method=mocosfl"
        )
    if config.whole_network:
        raise BadInput(
            f"--published-accounting is about networks that are cut, and method = {config.method} has no cut; add "
            f"--set method=mocosfl (the FL row of its table is the whole network's)"
        )
    if config.defence.anything:
        raise BadInput(
            "--published-accounting knows no defences, and [defence] sets some; leave the option or them out"
        )
    found = accounting(config, image_set(config, data_dir(options)))
    if options.json:
        print(json.dumps(found.summary()))
    else:
        console().print(render(found))
    return 0


def _plan(options: argparse.Namespace) -> Plan:
    _, config = configuration_of_stage(options)
    if options.stage == "pretrain" and options.solve in ("clients", "batch"):
        raise BadInput(
            f"--solve {options.solve} is about the clients of a run, and --stage pretrain has one, whose batch is "
            f"pretraining.batch; leave either out, or ask for --solve ranks"
        )
    if options.memory_limit is not None and not 0 < options.memory_limit < float("inf"):
        raise BadInput(f"--memory-limit {options.memory_limit}: give GiB above 0, for example 16")
    if options.profile and options.save_profile:
        raise BadInput("--profile reads a machine's figures, --save-profile measures this one; give one of them")
    plan = make_plan(config, data_dir(options), options.ranks, options.profile, options.save_profile)
    return replace(plan, limit=int(options.memory_limit * GIBIBYTE)) if options.memory_limit else plan


def make_plan(config: Config, folder: Path | None, ranks: int, read: Path | None, write: Path | None = None) -> Plan:
    """The plan for ``ranks``, with the profile in ``read``, or one that is measured here (and written to ``write``).

    Raises
    ------
    BadInput
        The experiment is impossible, or the profile or the launcher cannot be used.
    """
    from mocosfl_mpi.plan.estimate import Plan
    from mocosfl_mpi.plan.experiment import Elsewhere, experiment
    from mocosfl_mpi.plan.images import image_set
    from mocosfl_mpi.plan.measure import check_launched, cores
    from mocosfl_mpi.plan.profile import read_profile
    from mocosfl_mpi.plan.timing import Layout

    if ranks < 1:
        raise BadInput(f"-n {ranks}: at least one rank is needed")
    check_launched()
    images = image_set(config, folder)
    threads = config.compute.server_threads
    if read:
        profile = read_profile(read)
        planned = experiment(config, images, Elsewhere(profile.precision, profile.fused))
        planned.check()
        layout = Layout(ranks, threads or profile.machine.cores, config.compute.host_threads)
    else:
        planned = experiment(config, images, _kernels())
        planned.check()  # what is impossible is refused before anything is measured
        layout = Layout(ranks, threads or cores(), config.compute.host_threads)
        profile = _measured(planned, layout, write)
    return Plan(planned, layout, profile, profile.machine.memory)


def _kernels() -> Kernels | None:
    from mocosfl_mpi.native import NoKernelsError, load

    try:
        return load()
    except NoKernelsError:
        return None


def _measured(planned: Experiment, layout: Layout, file: Path | None) -> Profile:
    """A profile of this machine: of this very experiment, and with ``file`` also of others, written there."""
    from mocosfl_mpi.config import Compute
    from mocosfl_mpi.plan.measure import profile_of
    from mocosfl_mpi.plan.profile import remember, write_profile
    from mocosfl_mpi.split.engine import precision

    kernels = _kernels()
    automatic = precision(Compute(), kernels)
    profile = profile_of(planned, layout, fused=kernels is not None, precision=automatic, thorough=file is not None)
    if file is not None:
        write_profile(profile, file)
    remember(profile)
    return profile


def _solve(plan: Plan, what: str, *, measures: bool) -> dict[str, object]:
    """What was asked to be found, with a sentence for a person."""
    from mocosfl_mpi.plan.estimate import largest_batch, most_clients

    if what == "ranks":
        best, seconds = _best(plan, measures=measures)
        text = f"{best.ranks} rank(s) with compute.host_threads={best.host_threads}: {seconds:.4f} s a step"
        return {"ranks": best.ranks, "host_threads": best.host_threads, "seconds_per_step": seconds, "text": text}
    found = most_clients(plan) if what == "clients" else largest_batch(plan)
    key = "client.count" if what == "clients" else "client.batch_size"
    text = f"{key}={found} is the largest that fits" if found else f"no {key} fits"
    return {key: found, "text": text}


def _best(plan: Plan, *, measures: bool) -> tuple[Layout, float]:
    """The layout with the quickest step that fits, each of a few measured where this machine is the one."""
    from mocosfl_mpi.plan.estimate import Plan, best_layout, layouts
    from mocosfl_mpi.plan.measure import profile_of

    if not measures:
        best = best_layout(plan)
        return best, plan.on(layout=best).time.seconds
    machine = plan.profile.machine
    candidates = layouts(plan.experiment, plan.layout.server_threads, machine.cores)
    candidates = sorted(candidates, key=lambda layout: plan.on(layout=layout).time.seconds)[:4]
    found: list[tuple[bool, float, Layout]] = []
    for layout in candidates:
        own = profile_of(plan.experiment, layout, fused=plan.profile.fused, precision=plan.profile.precision)
        tried = Plan(plan.experiment, layout, own, plan.limit)
        found.append((not tried.fits, tried.time.seconds, layout))
    _, seconds, best = min(found, key=lambda item: item[:2])
    return best, seconds
