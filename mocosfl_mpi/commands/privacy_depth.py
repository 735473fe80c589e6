"""``mocosfl privacy-depth``: what is left of the images at each cut, beside accuracy and traffic."""

from __future__ import annotations

import argparse
from pathlib import Path

from mocosfl_mpi.commands.attack import add_orders, on_ranks, orders
from mocosfl_mpi.commands.common import Subcommands

ATTACKS = "ridge,decoder_res_n1_equal_macs"
"""The cheapest attacker, and a learnt decoder that costs the same at every cut."""


def add(commands: Subcommands) -> None:
    """Declare the command."""
    depth = commands.add_parser(
        "privacy-depth",
        help="leakage by depth of the cut over several runs, and its price in accuracy and traffic",
        description="Attack the checkpoints of runs at several cuts with equal effort, trained and untrained; write "
        "privacy-depth.csv, .png, .svg (SSIM and MSE of the best attack by cut, with the floor) and pareto.csv, .png, "
        ".svg (accuracy, bytes, leakage).",
    )
    depth.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="runs, or the directory of a grid's results")
    depth.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="for tables and pictures (default: here)"
    )
    depth.add_argument("--attacks", default=ATTACKS, metavar="A,B", help="of reconstruction (default: %(default)s)")
    add_orders(depth)
    depth.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    from mocosfl_mpi.attacks.session import attack_as_rank
    from mocosfl_mpi.attacks.stage import Stage
    from mocosfl_mpi.audit import depth
    from mocosfl_mpi.audit.material import collect
    from mocosfl_mpi.record.attacks import Outcome

    depth.check_pictures()
    runs, wanted = depth.runs_of(options.runs), orders(options, options.attacks)
    found: list[depth.Point] = []

    def afterwards(stage: Stage, outcomes: list[Outcome]) -> int:
        material = collect(stage.victim.directory, stage.victim.config, stage.victim.saved.manifest.steps)
        found.extend(depth.points(material, outcomes))
        if len(found) == 2 * len(runs):
            for path in depth.write(options.out, found):
                print(f"Written: {path}")
        return 0

    def attack(conduct: object) -> int:
        for run in runs:
            code = attack_as_rank(wanted, conduct(run), afterwards)  # type: ignore[operator]
            if code:
                return code
        return 0

    return on_ranks(options, wanted, attack)
