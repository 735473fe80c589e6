"""``mocosfl retime``: what a recorded federation would have taken on other devices and networks."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from mocosfl_mpi.commands.common import Subcommands
from mocosfl_mpi.errors import BadInput


def add(commands: Subcommands) -> None:
    """Declare the command."""
    retime = commands.add_parser(
        "retime",
        help="simulated wall time and energy of a recorded run on other devices and networks",
        description="Apply profiles to the ledger of a recorded run; nothing is trained again. A PROFILE is the name "
        "of a shipped one or the path of a TOML file.",
    )
    retime.add_argument("run", type=Path, metavar="RUN", help="a run's directory or its run.h5")
    retime.add_argument("--device", default="raspberry-pi-4", metavar="PROFILE", help="clients (default: %(default)s)")
    retime.add_argument("--network", default="wifi", metavar="PROFILE", help="between them (default: %(default)s)")
    retime.add_argument("--server", default="workstation", metavar="PROFILE", help="main server (default: %(default)s)")
    retime.add_argument(
        "--stragglers",
        type=float,
        default=0.0,
        metavar="SIGMA",
        help="spread of a log-normal slowdown of each client (default: 0, all alike)",
    )
    retime.add_argument("--seed", type=int, metavar="N", help="seed of the slowdowns (default: that of the run)")
    retime.add_argument(
        "--target", type=float, metavar="ACC", help="kNN accuracy in %% to wait for (default: 95 %% of the run's best)"
    )
    retime.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    retime.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    from mocosfl_mpi.record.reader import open_run
    from mocosfl_mpi.retime.model import retime, time_to_accuracy
    from mocosfl_mpi.retime.profiles import Device, Network, Server, load
    from mocosfl_mpi.retime.show import Setting, as_json, render
    from mocosfl_mpi.speaker import console

    if options.target is not None and not (math.isfinite(options.target) and 0 <= options.target <= 100):
        raise BadInput(f"--target {options.target}: an accuracy in % lies between 0 and 100")
    device, network, server = (
        load(options.device, Device),
        load(options.network, Network),
        load(options.server, Server),
    )
    with open_run(options.run) as run:
        seed = int(run.attrs["seed"]) if options.seed is None else options.seed
        timed = retime(run, device, network, server, sigma=options.stragglers, seed=seed)
        target = time_to_accuracy(run, timed.seconds, options.target)
        setting = Setting(str(run.path), device, network, server, options.stragglers, seed)
    if options.json:
        print(json.dumps(as_json(setting, timed, target), allow_nan=False))
    else:
        console().print(render(setting, timed, target))
    return 0
