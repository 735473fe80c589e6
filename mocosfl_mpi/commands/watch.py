"""``mocosfl watch``: runs as they go on, on a terminal, in lines, or as a page that refreshes itself."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mocosfl_mpi.commands.common import Subcommands
from mocosfl_mpi.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mocosfl_mpi.watch.glance import Glance

INTERVAL = 5.0
_SHORTEST, _LONGEST = 0.5, 3600.0


def add(commands: Subcommands) -> None:
    """Declare the command."""
    watch = commands.add_parser(
        "watch",
        help="runs as they go on: progress, curves, warnings",
        description="Read the files of runs again and again, without disturbing them, and show how they stand; ends "
        "when all are complete, or by Ctrl-C. Where standard output is no terminal, lines tell what has changed.",
    )
    watch.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run's directory, its run.h5, or a directory of runs"
    )
    watch.add_argument("--once", action="store_true", help="show it once, and end")
    watch.add_argument("--html", type=Path, metavar="FILE", help="write a page that refreshes itself, instead")
    watch.add_argument(
        "--interval", type=float, default=INTERVAL, metavar="SECONDS", help="between two looks (default: %(default)g)"
    )
    watch.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    from mocosfl_mpi.watch.facts import over
    from mocosfl_mpi.watch.glance import Watcher
    from mocosfl_mpi.watch.places import check

    if not (math.isfinite(options.interval) and _SHORTEST <= options.interval <= _LONGEST):
        raise BadInput(f"--interval {options.interval:g}: choose from {_SHORTEST:g} to {_LONGEST:g} seconds")
    check(options.runs)
    watcher = Watcher(options.runs)
    glances = watcher.look()
    _refuse_unreadable(glances)

    def follow(show: Callable[[Sequence[Glance], bool], None]) -> None:
        """Look again and again, and show it; the last time with True."""
        found = glances
        while not (ends := options.once or over(found)):
            show(found, ends)
            time.sleep(options.interval)
            found = watcher.look()
        show(found, True)

    try:
        if options.html is not None:
            _page(options, follow)
        elif sys.stdout.isatty() and not options.once:
            _terminal(follow)
        else:
            _lines(follow, once=options.once)
    except KeyboardInterrupt:
        pass
    return 0


def _refuse_unreadable(glances: Sequence[Glance]) -> None:
    """Where there is nothing to look at but files that cannot be read, that is what was given wrongly."""
    messages = [glance.message for glance in glances if glance.message]
    if len(messages) == len(glances):
        raise BadInput(messages[0])


def _terminal(follow: Callable[[Callable[[Sequence[Glance], bool], None]], None]) -> None:
    from rich.live import Live
    from rich.text import Text

    from mocosfl_mpi.speaker import console
    from mocosfl_mpi.watch.view import view

    screen = console()
    with Live(console=screen, auto_refresh=False, vertical_overflow="ellipsis") as live:

        def show(glances: Sequence[Glance], ends: bool) -> None:
            live.update(view(glances, screen.width, None if ends else screen.height), refresh=True)

        try:
            follow(show)
        except KeyboardInterrupt:
            live.console.print(Text(""))
            raise


def _lines(follow: Callable[[Callable[[Sequence[Glance], bool], None]], None], *, once: bool) -> None:
    from mocosfl_mpi.speaker import console
    from mocosfl_mpi.watch.facts import line, remarks
    from mocosfl_mpi.watch.view import view

    told: set[str] = set()

    def show(glances: Sequence[Glance], _ends: bool) -> None:
        if once:
            screen = console()
            screen.print(view(glances, screen.width))
            return
        said = [f"{kind}{f' ({of})' if of else ''}: {text}" for kind, text, of in remarks(glances)]
        for text in [*map(line, glances), *said]:
            plain = "".join(letter if letter.isprintable() else "?" for letter in text)
            # What is left is another number each time: only what is done is news.
            if (news := plain.partition(", about ")[0]) not in told:
                told.add(news)
                print(f"{time.strftime('%H:%M:%S')}  {plain}", flush=True)

    follow(show)


def _page(options: argparse.Namespace, follow: Callable[[Callable[[Sequence[Glance], bool], None]], None]) -> None:
    from mocosfl_mpi.watch.page import check, page, write

    check(options.html)
    if not options.once:
        print(f"Writing {options.html} every {options.interval:g} s; open it in a browser. Ctrl-C ends.", flush=True)
    follow(lambda glances, ends: write(options.html, page(glances, None if ends else options.interval)))
    print(f"{options.html} is written for the last time.")
