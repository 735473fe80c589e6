"""The ``mocosfl`` command: validate first, then start ranks or be one."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mocosfl_mpi import __version__
from mocosfl_mpi.comm.environment import LAUNCHED, Launcher, launcher
from mocosfl_mpi.config import Config, apply_settings, parse, to_toml
from mocosfl_mpi.errors import BadInput, RunFailed
from mocosfl_mpi.presets import load, presets

DATA_VARIABLE = "MOCOSFL_DATA"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mocosfl", description="Split-federated self-supervised learning over MPI, simulated exactly."
    )
    parser.add_argument("--version", action="version", version=f"mocosfl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run an experiment", description="Run an experiment into OUT/run.h5.")
    run.add_argument("config", metavar="CONFIG", help="a preset's name (see `mocosfl presets`) or a TOML file")
    run.add_argument(
        "-n", dest="ranks", type=int, metavar="RANKS", help="MPI ranks to start; 1 needs no launcher (default)"
    )
    run.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="a.b=v",
        help="override one setting; may be repeated",
    )
    run.add_argument("--data-dir", type=Path, help=f"where data sets lie (default: ${DATA_VARIABLE})")
    run.add_argument(
        "--out", type=Path, metavar="DIR", help="directory for the results (default: runs/CONFIG-001, -002, …)"
    )
    run.add_argument("--quiet", action="store_true", help="print nothing but errors")
    run.set_defaults(action=_run)

    show = commands.add_parser("presets", help="list the presets, or print one as commented TOML")
    show.add_argument("name", nargs="?", metavar="NAME")
    show.set_defaults(action=_presets)

    inspect = commands.add_parser("inspect", help="what a run was and what came of it")
    inspect.add_argument("run", type=Path, metavar="RUN", help="a run's directory or its run.h5")
    inspect.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    inspect.set_defaults(action=_inspect)

    diff = commands.add_parser(
        "diff", help="whether two runs have the same configuration and trained state (exit 0), or what differs (1)"
    )
    diff.add_argument("a", type=Path, metavar="A")
    diff.add_argument("b", type=Path, metavar="B")
    diff.set_defaults(action=_diff)

    partition = commands.add_parser("partition", help="print who holds which classes, without training")
    partition.add_argument("config", metavar="CONFIG")
    partition.add_argument("--set", dest="settings", action="append", default=[], metavar="a.b=v")
    partition.add_argument("--data-dir", type=Path)
    partition.set_defaults(action=_partition)

    download = commands.add_parser(
        "download", help="fetch a data set through torchvision (the only command that uses the network)"
    )
    download.add_argument("source", choices=["cifar10", "cifar100", "fashion-mnist", "svhn"])
    download.add_argument("--data-dir", type=Path)
    download.set_defaults(action=_download)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 (failure), 2 (bad input), or what the command defines."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    started = launcher()
    try:
        return int(options.action(options, words, started))
    except (BadInput, RunFailed) as error:
        if started is None or started.rank == 0:  # under a launcher every rank stands here; one speaks
            print(f"mocosfl: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has gone (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


# ------------------------------------------------------------------------------------------------- commands


def _configuration(options: argparse.Namespace) -> tuple[str, Config]:
    name, values = load(options.config)
    return name, parse(apply_settings(values, options.settings), name)


def _data_dir(options: argparse.Namespace) -> Path | None:
    if options.data_dir is not None:
        return Path(options.data_dir)
    return Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None


def _run(options: argparse.Namespace, words: list[str], started: Launcher | None) -> int:
    """Validate; then be a rank if a launcher started this process, else become the launcher (and not return)."""
    from mocosfl_mpi.data.check import check

    name, config = _configuration(options)
    data_dir = _data_dir(options)
    check(config.data, data_dir)
    if options.ranks is not None and options.ranks < 1:
        raise BadInput(f"-n {options.ranks}: at least one rank is needed; -n 1 computes everything in one process")
    if LAUNCHED in os.environ or started:
        if started and options.ranks not in (None, started.size):
            raise BadInput(
                f"-n {options.ranks} inside {started.name}, which started {started.size} ranks; leave -n out there"
            )
        from mocosfl_mpi.simulation import run_as_rank

        return run_as_rank(config, preset=name, out=options.out, data_dir=data_dir, quiet=options.quiet)

    from mocosfl_mpi.launch import start
    from mocosfl_mpi.record.output import free_directory, prepare_output

    out = options.out or free_directory(name)
    prepare_output(out)
    return start([*words, *([] if options.out else ["--out", str(out)])], options.ranks or 1)


def _presets(options: argparse.Namespace, _words: list[str], _started: Launcher | None) -> int:
    known = presets()
    if options.name is None:
        width = max(map(len, known))
        for name, (title, _) in known.items():
            print(f"{name:{width}}  {title}")
        return 0
    _, values = load(options.name)
    print(to_toml(parse(values, options.name), known[options.name][0] if options.name in known else ""), end="")
    return 0


def _inspect(options: argparse.Namespace, _words: list[str], _started: Launcher | None) -> int:
    import json

    from mocosfl_mpi.record.reader import open_run
    from mocosfl_mpi.record.show import show
    from mocosfl_mpi.speaker import console

    with open_run(options.run) as run:
        if options.json:
            print(json.dumps(run.summary()))
        else:
            show(run, console())
    return 0


def _diff(options: argparse.Namespace, _words: list[str], _started: Launcher | None) -> int:
    from mocosfl_mpi.record.reader import differences, open_run

    with open_run(options.a) as a, open_run(options.b) as b:
        difference = differences(a, b)
    print(difference or "equal: same configuration, same trained state")
    return 1 if difference else 0


def _partition(options: argparse.Namespace, _words: list[str], _started: Launcher | None) -> int:
    from mocosfl_mpi.data.check import check
    from mocosfl_mpi.data.partition import counts, partition
    from mocosfl_mpi.data.picture import picture
    from mocosfl_mpi.data.sources import load as load_data
    from mocosfl_mpi.speaker import console
    from mocosfl_mpi.streams import Streams

    _, config = _configuration(options)
    check(config.data, _data_dir(options))
    streams = Streams(config.seed)
    data = load_data(config.data, _data_dir(options), streams)
    parts = partition(config.partition, data.train.labels, config.client.count, data.class_count, streams)
    console().print(picture(counts(parts, data.train.labels, data.class_count), data.classes))
    return 0


def _download(options: argparse.Namespace, _words: list[str], _started: Launcher | None) -> int:
    from mocosfl_mpi.data.sources import download

    folder = _data_dir(options)
    if folder is None:
        raise BadInput(f"where to? give --data-dir DIR or set {DATA_VARIABLE}")
    download(options.source, folder)
    print(f"{options.source} lies in {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
