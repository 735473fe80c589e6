"""``mocosfl attack``: what adversaries of several kinds learn from a run's checkpoint."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mocosfl_mpi.comm.environment import LAUNCHED, launcher
from mocosfl_mpi.commands.common import Subcommands, add_data_dir, data_dir
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.signals import listen

if TYPE_CHECKING:
    from mocosfl_mpi.attacks.jobs import Orders
    from mocosfl_mpi.attacks.session import Conduct


def add(commands: Subcommands) -> None:
    """Declare the command."""
    attack = commands.add_parser(
        "attack",
        help="attack a run's checkpoint as adversaries of several kinds would",
        description="Attack the newest checkpoint of RUN and record what was learnt in RUN/attacks.h5, with sample "
        "pictures in RUN/attacks. What is recorded there already is not done again.",
    )
    attack.add_argument("run", type=Path, metavar="RUN", help="a run's directory")
    attack.add_argument(
        "--attacks", default="standard", metavar="A,B", help="names of attacks, all, or standard (default)"
    )
    add_orders(attack)
    state = attack.add_mutually_exclusive_group()
    state.add_argument("--trained", action="store_true", help="the checkpoint's networks only")
    state.add_argument("--untrained", action="store_true", help="the control only: random networks of the same layers")
    attack.set_defaults(action=_run)


def add_orders(command: argparse.ArgumentParser) -> None:
    """The arguments of every command that attacks."""
    command.add_argument(
        "--adversary",
        default="weakest",
        metavar="A,B",
        help="who attacks; all = everybody who can; weakest (default) = each attack once, by who sees least of those",
    )
    command.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds of each attack (default: 3)")
    command.add_argument(
        "--effort", type=float, default=1.0, metavar="X", help="optimisation steps over an attack's own (default: 1)"
    )
    command.add_argument("--images", type=int, default=128, metavar="N", help="victim's images, at most (default: 128)")
    command.add_argument("--client", type=int, default=0, metavar="C", help="the attacked client (default: 0)")
    command.add_argument(
        "--protocol",
        choices=["ours", "published"],
        default="ours",
        help="how reconstructions are measured: ours (default), or as the papers did",
    )
    knows = command.add_mutually_exclusive_group()
    knows.add_argument("--naive", action="store_true", help="only adversaries that do not know of a defence")
    knows.add_argument("--adaptive", action="store_true", help="only those that know it (default: both)")
    add_data_dir(command)
    command.add_argument(
        "-n", dest="ranks", type=int, metavar="RANKS", help="MPI ranks to share the attacks (default: 1)"
    )
    command.add_argument("--threads", type=int, default=1, metavar="N", help="torch threads of each rank (default: 1)")
    command.add_argument("--quiet", action="store_true", help="print nothing but errors")


def orders(options: argparse.Namespace, attacks: str, *, trained: bool = True, control: bool = True) -> Orders:
    """What the options ask for."""
    from mocosfl_mpi.attacks.jobs import Orders

    return Orders(
        attacks=names(attacks),
        adversaries=names(options.adversary),
        seeds=options.seeds,
        effort=options.effort,
        images=options.images,
        client=options.client,
        protocol=options.protocol,
        naive=not options.adaptive,
        adaptive=not options.naive,
        trained=trained,
        control=control,
    )


def names(text: str) -> tuple[str, ...]:
    """The words of a list with commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def on_ranks(options: argparse.Namespace, wanted: Orders, attack: Callable[[Callable[[Path], Conduct]], int]) -> int:
    """Start the ranks, or be one: then ``attack``, which is given how each run is to be attacked."""
    from mocosfl_mpi.attacks.jobs import check
    from mocosfl_mpi.attacks.registry import ATTACKS

    check(wanted, ATTACKS)
    started = launcher()
    if options.threads < 1:
        raise BadInput(f"--threads {options.threads}: at least one is needed")
    if options.ranks is not None and options.ranks < 1:
        raise BadInput(f"-n {options.ranks}: at least one rank is needed; -n 1 attacks in one process")
    if options.ranks in (None, 1) or LAUNCHED in os.environ or started:
        if started and options.ranks not in (None, started.size):
            raise BadInput(
                f"-n {options.ranks} inside {started.name}, which started {started.size} ranks; leave -n out there"
            )
        from mocosfl_mpi.attacks.session import Conduct

        listen()
        folder, command = data_dir(options), shlex.join(["mocosfl", *options.words])
        return attack(lambda run: Conduct(run, folder, options.threads, options.quiet, command))

    from mocosfl_mpi.launch import start

    return start(options.words, options.ranks)


def _run(options: argparse.Namespace) -> int:
    from mocosfl_mpi.attacks.findings import overview
    from mocosfl_mpi.attacks.session import attack_as_rank
    from mocosfl_mpi.attacks.stage import Stage
    from mocosfl_mpi.record.attacks import Outcome
    from mocosfl_mpi.speaker import console

    def afterwards(_stage: Stage, outcomes: list[Outcome]) -> int:
        for part in [] if options.quiet else overview(outcomes):
            console().print(part)
        return 0

    wanted = orders(options, options.attacks, trained=not options.untrained, control=not options.trained)
    return on_ranks(options, wanted, lambda conduct: attack_as_rank(wanted, conduct(options.run), afterwards))
