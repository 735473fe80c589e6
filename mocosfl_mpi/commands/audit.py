"""``mocosfl audit``: one page on what a checkpoint gives away, to whom, and whether that is acceptable."""

from __future__ import annotations

import argparse
from pathlib import Path

from mocosfl_mpi.commands.attack import add_orders, on_ranks, orders
from mocosfl_mpi.commands.common import Subcommands, data_dir
from mocosfl_mpi.errors import NOT_MET


def add(commands: Subcommands) -> None:
    """Declare the command."""
    audit = commands.add_parser(
        "audit",
        help="one page on what a run's checkpoint gives away, and to whom",
        description="Do what is missing of the standard attacks on RUN, with its untrained control, and write "
        "RUN/audit.html and RUN/audit.md. Exit code 3 where a requirement is not met.",
    )
    audit.add_argument("run", type=Path, metavar="RUN", help="a run's directory")
    audit.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="KIND.METRIC[@ADVERSARY]<=VALUE",
        help="a bound on the strongest attack, as reconstruction.ssim<=0.3, linkage.top1@server<=0.1 or "
        "utility.knn_top1>=40; may be repeated",
    )
    audit.add_argument(
        "--attacks", default="standard", metavar="A,B", help="names of attacks, all, or standard (default)"
    )
    audit.add_argument(
        "--extractor",
        nargs="?",
        const="",
        metavar="FILE",
        help="instead: should --client take the first layers that a server has shipped, those of the run or of a "
        "safetensors file? Judged on the client's own images in a second; exit code 3 = no",
    )
    audit.add_argument(
        "--threshold",
        type=float,
        default=0.8,
        metavar="SHARE",
        help="of --extractor: the share of the images' variance that must stay hidden from a linear decoder "
        "(default: 0.8)",
    )
    add_orders(audit)
    audit.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    if options.extractor is not None:
        return _judge(options)

    from mocosfl_mpi.attacks.jobs import attacks_of
    from mocosfl_mpi.attacks.registry import ATTACKS
    from mocosfl_mpi.attacks.session import attack_as_rank
    from mocosfl_mpi.attacks.stage import Stage
    from mocosfl_mpi.attacks.view import SEES
    from mocosfl_mpi.audit import report, requirements
    from mocosfl_mpi.audit.material import collect
    from mocosfl_mpi.record.attacks import PICTURES, Outcome

    wanted = orders(options, options.attacks)
    asked = [requirements.read(text, SEES) for text in options.require]
    attacks = {name: ATTACKS[name] for name in attacks_of(wanted, ATTACKS)}
    requirements.check_measured(asked, attacks.values())

    def afterwards(stage: Stage, outcomes: list[Outcome]) -> int:
        directory = stage.victim.directory
        material = collect(directory, stage.victim.config, stage.victim.saved.manifest.steps)
        found = report.audit(material, outcomes, asked, attacks, directory / PICTURES)
        written = report.write(directory, found)
        failed = [verdict for verdict in found.verdicts if not verdict.met]
        if not options.quiet:
            print(f"Written: {', '.join(map(str, written))}")
        for verdict in failed:
            value = "not measured" if verdict.value is None else f"{verdict.value:.4g}"
            print(f"not met: {verdict.requirement.text} (found {value}, {verdict.by})")
        return NOT_MET if failed else 0

    return on_ranks(options, wanted, lambda conduct: attack_as_rank(wanted, conduct(options.run), afterwards))


def _judge(options: argparse.Namespace) -> int:
    """A client's own audit of its first layers."""
    from mocosfl_mpi.attacks.shipped import judge
    from mocosfl_mpi.attacks.stage import Stage

    stage = Stage.of(options.run, data_dir(options))
    file = Path(options.extractor) if options.extractor else None
    verdict = judge(stage, options.client, file, options.threshold)
    print(
        f"{'accepted' if verdict.accepted else 'REJECTED'}: {verdict.reason} (MSE {verdict.mse:.4f}, SSIM "
        f"{verdict.ssim:.3f}; a guesser who sees nothing has MSE {verdict.floor:.4f})"
    )
    return 0 if verdict.accepted else NOT_MET
