"""``mocosfl presets``: the named configurations."""

from __future__ import annotations

import argparse

from mocosfl_mpi.commands.common import Subcommands
from mocosfl_mpi.config import parse, to_toml
from mocosfl_mpi.presets import load, presets


def add(commands: Subcommands) -> None:
    """Declare the command."""
    show = commands.add_parser("presets", help="list the presets, or print one as commented TOML")
    show.add_argument("name", nargs="?", metavar="NAME")
    show.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    known = presets()
    if options.name is None:
        width = max(map(len, known))
        for name, (title, _) in known.items():
            print(f"{name:{width}}  {title}")
        return 0
    _, values = load(options.name)
    print(to_toml(parse(values, options.name), known[options.name][0] if options.name in known else ""), end="")
    return 0
