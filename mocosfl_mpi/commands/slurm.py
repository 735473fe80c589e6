"""``mocosfl slurm``: the batch script of a run, printed or submitted."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from mocosfl_mpi.commands.common import (
    Subcommands,
    add_configuration,
    add_stage,
    configuration,
    configuration_of_stage,
    data_dir,
    expert_of,
)
from mocosfl_mpi.config import Config
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.presets import presets
from mocosfl_mpi.slurm import LAUNCHES, Figure, Job, default_memory, script

DEFAULT_TIME = "4:00:00"


def add(commands: Subcommands) -> None:
    """Declare the command."""
    slurm = commands.add_parser(
        "slurm",
        help="print or submit a SLURM script for a run",
        description="Print a SLURM batch script for `mocosfl run CONFIG`, or submit it. A run longer than --time "
        "continues in further allocations by itself. With --both, submit the first stage (`mocosfl pretrain`), and the "
        "run behind it.",
    )
    add_configuration(slurm)
    add_requests(slurm)
    slurm.add_argument(
        "--out", type=Path, metavar="DIR", help="directory for the results (default: runs/CONFIG-JOBNUMBER)"
    )
    stages = slurm.add_mutually_exclusive_group()
    add_stage(stages)
    stages.add_argument(
        "--both",
        action="store_true",
        help="submit both stages: the run begins with the expert when `mocosfl pretrain` has ended well",
    )
    fitted = slurm.add_mutually_exclusive_group()
    fitted.add_argument(
        "--profile", type=Path, metavar="FILE", help="ask for what the run needs by this profile of a node (see plan)"
    )
    fitted.add_argument(
        "--rehearse", action="store_true", help="ask for what the run needs by a few steps that are timed here"
    )
    slurm.add_argument("--submit", action="store_true", help="hand the script to sbatch instead of printing it")
    slurm.set_defaults(action=_run)


def add_requests(command: argparse.ArgumentParser) -> None:
    """The arguments that say what is asked of SLURM."""
    command.add_argument("--nodes", type=int, default=1, metavar="N", help="nodes (default: 1)")
    command.add_argument("-n", dest="ranks", type=int, metavar="RANKS", help="MPI ranks in all (default: 4 per node)")
    command.add_argument("--cores-per-rank", type=int, default=1, metavar="C", help="cores of each rank (default: 1)")
    command.add_argument(
        "--gpus", type=int, metavar="G", help="GPUs of each node (default: 1 with compute.device = cuda, else none)"
    )
    command.add_argument("--time", metavar="H:MM:SS", help=f"limit of one allocation (default: {DEFAULT_TIME})")
    command.add_argument("--mem", metavar="SIZE", help="memory of a node, as 16G (default: 4G, and 2G per rank on it)")
    command.add_argument("--partition", metavar="P", help="default: the cluster's")
    command.add_argument("--account", metavar="A", help="default: the cluster's")
    command.add_argument(
        "--launch",
        choices=LAUNCHES,
        help="how ranks are started; "
        + "; ".join(f"{name}: {text}" for name, text in LAUNCHES.items())
        + " (default: mpirun on one node or with Open MPI, else pmi2)",
    )


def _run(options: argparse.Namespace) -> int:
    """Everything that can be refused is refused here, not after hours in the queue."""
    if not options.both:
        return deliver(script(_job(options, *configuration_of_stage(options))), submit=options.submit)
    if not options.submit:
        raise BadInput("--both hands over two jobs; add --submit, or print one after the other with --stage")
    name, config = configuration(options)
    first = _job(options, *expert_of(name, config))
    if first.out:
        first = replace(first, out=f"{first.out}-expert")
    run = _job(options, name, config)  # what can be refused of it is refused before the first is in the queue
    number = submitted(script(first))
    expert = first.out or str(Path(f"runs/{first.label}-{number}").absolute())
    run = replace(run, arguments=(*run.arguments, f"--set=client.pretrained={expert}"))
    print(f"Submitted batch job {number}: the expert, into {expert}")
    print(f"Submitted batch job {submitted(script(run), f'--dependency=afterok:{number}')}: the run, when it is there")
    return 0


def _job(options: argparse.Namespace, name: str, config: Config) -> Job:
    """The job of a run, or of its first stage. BadInput where its data are not there."""
    from mocosfl_mpi.data.check import check_all

    folder = data_dir(options)
    check_all(config, folder)
    known = options.config in presets()
    job = request(
        options,
        name,
        (
            options.config if known else str(Path(options.config).absolute()),
            *(f"--set={setting}" for setting in options.settings),
            *(["--data-dir", str(folder.absolute())] if folder else []),
        ),
        str(options.out.absolute()) if options.out else None,
        gpus=int(config.compute.device != "cpu"),
    )
    if config.pretraining.expert:
        job = replace(job, command="pretrain")
    if options.profile or options.rehearse:
        from mocosfl_mpi.commands.plan import make_plan
        from mocosfl_mpi.plan.request import requests

        memory, time = requests(make_plan(config, folder, job.ranks, options.profile), job.nodes)
        job = replace(job, memory=job.memory if options.mem else memory, time=job.time if options.time else time)
    return job


def request(
    options: argparse.Namespace,
    name: str,
    arguments: tuple[str, ...],
    out: str | None,
    tasks: tuple[str, ...] = (),
    gpus: int = 0,
) -> Job:
    """What ``options`` (of ``add_requests``) ask of SLURM for a run, or for an array of ``tasks``.

    ``gpus`` of each node, unless they say otherwise.
    """
    ranks = options.ranks if options.ranks is not None else 4 * max(options.nodes, 1)
    return Job(
        name=name,
        nodes=options.nodes,
        ranks=ranks,
        cores_per_rank=options.cores_per_rank,
        time=Figure(options.time, "--time") if options.time else Figure(DEFAULT_TIME, "default; --time changes it"),
        memory=Figure(options.mem, "--mem") if options.mem else default_memory(max(ranks, 1), max(options.nodes, 1)),
        launch=options.launch or _launch(options.nodes),
        python=sys.executable,
        arguments=arguments,
        out=out,
        partition=options.partition,
        account=options.account,
        tasks=tasks,
        gpus=gpus if options.gpus is None else options.gpus,
        at_once=options.at_once if tasks else None,
    )


def deliver(text: str, *, submit: bool) -> int:
    """Print the script, or hand it to sbatch."""
    return _submit(text) if submit else _print(text)


def _print(text: str) -> int:
    print(text, end="")
    return 0


def _launch(nodes: int) -> str:
    """The way that fits the MPI library whose launcher would be found; ``pmi2`` where there is no launcher."""
    from mocosfl_mpi.launch import find_mpiexec

    if nodes == 1:
        return "mpirun"
    try:
        _, kind = find_mpiexec()
    except BadInput:
        return "pmi2"
    return "mpirun" if kind == "openmpi" else "pmi2"


def _submit(text: str) -> int:
    print(f"Submitted batch job {submitted(text)}")
    return 0


def submitted(text: str, *arguments: str) -> str:
    """Hand a script to sbatch; the job's number.

    Raises
    ------
    BadInput
        There is no sbatch, or it refuses the script.
    """
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise BadInput(
            "--submit: there is no sbatch on PATH; run this on a login node of the cluster, or leave --submit out and "
            "take the printed script there"
        )
    done = subprocess.run([sbatch, "--parsable", *arguments], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(line.removeprefix("sbatch: ").strip() for line in done.stderr.splitlines())
        raise BadInput(f"sbatch refused the script: {said}; see what was asked without --submit")
    return done.stdout.strip().partition(";")[0]  # a cluster's name may follow
