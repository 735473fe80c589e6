"""What every script shares: its command line, what it refuses, and how figures and their numbers are written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.figures import style
from mocosfl_mpi.figures.study import Study

FORMATS = ("png", "pdf", "svg", "csv")
_SILENT = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
"""Without the hour in it the same numbers give the same file."""


@dataclass(frozen=True)
class Drawing:
    """One figure: its file's name, exactly the numbers that are drawn, and how."""

    name: str
    table: pd.DataFrame
    paint: Callable[[], Figure]


def say(text: str) -> None:
    """A remark for a person that does not stop anything."""
    print(f"note: {text}", file=sys.stderr)


def parser(purpose: str) -> argparse.ArgumentParser:
    """The arguments of every script; ``purpose`` is its docstring."""
    made = argparse.ArgumentParser(
        description=purpose, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run's directory, its run.h5, or a directory of runs"
    )
    made.add_argument(
        "--out", type=Path, default=Path("figures"), metavar="DIR", help="where to write (default: figures)"
    )
    made.add_argument(
        "--format", default="png,csv", metavar="LIST", help="of png, pdf, svg, csv, with commas (default: png,csv)"
    )
    return made


def script(
    arguments: argparse.ArgumentParser,
    draw: Callable[[Study, argparse.Namespace], Iterable[Drawing]],
    argv: Sequence[str] | None,
    *,
    by_ranks: bool = False,
) -> int:
    """Read the runs, draw, write, and name what was written; the exit code: 0, or 2 for input that cannot be used."""
    options = arguments.parse_args(argv)
    try:
        formats = _formats(options.format)
        study = Study.read(options.runs, by_ranks=by_ranks, say=say)
        with style.look():
            drawings = list(draw(study, options))
            for drawing in drawings:
                for path in write(drawing, options.out, formats):
                    print(path)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _formats(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in FORMATS:
            raise BadInput(f"--format {text}: {name!r} is none of {', '.join(FORMATS)}")
    return names


def write(drawing: Drawing, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write ``folder/NAME.FORMAT`` for each format. BadInput where that cannot be done."""
    paths = [folder / f"{drawing.name}.{kind}" for kind in formats]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = laid_out(drawing) if set(formats) - {"csv"} else None
        for path, kind in zip(paths, formats, strict=True):
            if kind == "csv":
                drawing.table.to_csv(path, index=False)
            elif made is not None:
                made.savefig(path, metadata=_SILENT.get(kind))
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error}; name another directory with --out") from None
    return paths


def laid_out(drawing: Drawing) -> Figure:
    """Paint it; laid out once, the same in every format."""
    made = drawing.paint()
    made.draw_without_rendering()
    made.set_layout_engine("none")
    return made


def picture(drawing: Drawing, largest: int) -> tuple[str, bytes]:
    """Its MIME type and content: SVG, or PNG where that would have more than ``largest`` bytes (hatches have).

    The same numbers give the same picture. Within ``style.look()``.
    """
    made = laid_out(drawing)
    stream = BytesIO()
    made.savefig(stream, format="svg", metadata=_SILENT["svg"])
    if stream.tell() <= largest:
        return "image/svg+xml", stream.getvalue()
    stream = BytesIO()
    made.savefig(stream, format="png")
    return "image/png", stream.getvalue()


def file_name(*parts: str) -> str:
    """Words joined to a file's name; whatever else than letters, digits and points stands in them becomes one dash."""
    words = ["".join(c if c.isalnum() or c in "._" else "-" for c in part).strip("-") for part in parts]
    name = "-".join(word for word in words if word)
    while "--" in name:
        name = name.replace("--", "-")
    return name


def nothing(what: str, remedy: str) -> BadInput:
    """The refusal where no run has what the figure is about."""
    return BadInput(f"nothing to draw: {what}; {remedy}")
