"""A process that reads damaged runs, one a line, and survives or not: the parent sees crashes and hangs.

``python -m tests.fuzz.reader SOURCE TARGET``: each line of standard input is a JSON list of changes; the answer is
``good``, ``bad input`` or a traceback in JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import traceback
from pathlib import Path

from rich.console import Console

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.reader import differences, open_run
from mocosfl_mpi.record.show import render
from mocosfl_mpi.retime.model import retime, time_to_accuracy
from mocosfl_mpi.retime.profiles import Device, Network, Server, load
from mocosfl_mpi.retime.show import Setting, as_json
from mocosfl_mpi.retime.show import render as render_time
from tests.fuzz.mutations import mutate

PROFILES = load("raspberry-pi-4", Device), load("wifi", Network), load("workstation", Server)


def read_everything(path: Path) -> None:
    """All that the package can make of a run's file."""
    with open_run(path) as run, Path("/dev/null").open("w") as nowhere:
        for name in run.names:
            run[name]
        console = Console(file=nowhere, width=100)
        json.dumps(run.summary(), allow_nan=False)
        console.print(render(run))
        differences(run, run)
        timed = retime(run, *PROFILES, sigma=0.5)
        target, setting = time_to_accuracy(run, timed.seconds), Setting(str(path), *PROFILES, 0.5, 0)
        json.dumps(as_json(setting, timed, target), allow_nan=False)
        console.print(render_time(setting, timed, target))


def decode(change: list) -> tuple:
    kind, place, *rest = change
    return (kind, place, *(bytes.fromhex(item) if isinstance(item, str) else item for item in rest))


def main(source: str, target: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    content, path = Path(source).read_bytes(), Path(target)
    for line in sys.stdin:
        path.write_bytes(mutate(content, [decode(change) for change in json.loads(line)]))
        try:
            read_everything(path)
            answer = "good"
        except BadInput:
            answer = "bad input"
        except BaseException:
            answer = traceback.format_exc()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
