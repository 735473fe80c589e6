"""The figures of a page: which of ``mocosfl_mpi.figures`` say something of these runs, drawn into data URIs."""

from __future__ import annotations

import argparse
import base64
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import cleandoc
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.figures import (
    accuracy_by_cut,
    accuracy_curves,
    client_cost,
    comparison,
    divergence_frequency,
    divergence_map,
    health,
    leakage,
    partition_picture,
    plan_against_actual,
    rank_timeline,
    scaling,
    style,
    tradeoff,
)
from mocosfl_mpi.figures.common import Drawing, picture
from mocosfl_mpi.figures.study import Study
from mocosfl_mpi.record.attack_schema import FILE_NAME as ATTACKS
from mocosfl_mpi.report.parts import Gallery, Picture, Sheet

MOST = 6
"""Pictures of one kind, of those that come one for each configuration or run."""
OPEN = 4
"""Pictures of one question up to which they are shown at once."""
LARGEST = 120_000
"""Bytes of an SVG picture; a larger one becomes a PNG."""
ROWS = 30
"""Rows of numbers below a picture; the script of the figure writes all of them."""
CAPTIONS = {
    "accuracy-epochs": "kNN accuracy against epochs",
    "accuracy-images": "kNN accuracy against images that all clients have drawn",
    "accuracy-bytes": "kNN accuracy against what a client has sent and received, in MiB (2^20 bytes)",
    "health": "Loss, feature spread, effective rank, hardness, and distances between models, against epochs",
    "comparison": "Test accuracy at the end: each seed, mean ± one standard deviation",
    "differences": "Differences between runs of the same seed, with p of the sign-flip test",
    "accuracy-by-cut": "Accuracy at the end against the cut layer",
    "divergence-frequency": "Client divergence (L2) against synchronisations an epoch",
    "tradeoff": "Accuracy at the end against what a client sends and receives, and against leakage where it is known",
    "cost-bytes": "What a client has sent and received, by kind of message",
    "cost-computation": "What a client has computed, by kind of work (a multiply-accumulate is 2 FLOPs)",
    "cost-image": "What a client computes for one image",
    "cost-memory": "Memory of one client, by use",
    "plan": "Planned over actual: memory, time, bytes, computation, size of the file",
    "scaling-ranks": "Seconds of a step, speed-up and memory against MPI ranks",
    "scaling-clients": "Seconds of a step and memory against simulated clients",
}
"""By name of the figure; of those that come by configuration or run, ``STARTS``."""
STARTS = {
    "divergence": "Divergence by layer and by client against synchronisations",
    "partition": "Images by client and class",
    "timeline": "Seconds by rank and phase, and idle share by epoch",
    "leakage": "What adversaries learn",
}


@dataclass(frozen=True)
class Kind:
    """One module of figures, and of which runs it has something to say."""

    module: ModuleType
    of: Callable[[Study], bool] = lambda _: True
    by_ranks: bool = False

    @property
    def name(self) -> str:
        """Of its script."""
        return self.module.__name__.rpartition(".")[2]


def _differ(key: str) -> Callable[[Study], bool]:
    return lambda study: key in study.keys


def _several(study: Study) -> bool:
    return len(study.groups) > 1


def _beside(name: str) -> Callable[[Study], bool]:
    """Whether any run has a file of that name in its directory."""
    return lambda study: any((member.path.parent / name).exists() for member in study.members)


COMPARED = (
    Kind(comparison, lambda study: len(study.members) > 1),
    Kind(accuracy_by_cut, _differ("model.cut_layer")),
)
PROGRESS = (
    Kind(accuracy_curves),
    Kind(health),
    Kind(divergence_frequency, _differ("federation.sync_freq")),
    Kind(divergence_map),
    Kind(partition_picture),
)
COST = (Kind(client_cost), Kind(tradeoff, _several))
PRIVACY = (Kind(leakage, _beside(ATTACKS)),)
COMPUTATION = (
    Kind(scaling, lambda study: bool({"ranks", "client.count"} & set(study.keys)), by_ranks=True),
    Kind(plan_against_actual, _beside(plan_against_actual.NAME), by_ranks=True),
    Kind(rank_timeline, by_ranks=True),
)


@dataclass
class Album:
    """Draws the figures of one set of runs, and keeps what is to be said about it."""

    paths: Sequence[Path]
    """Files of runs that can be read."""
    named: str
    """The runs, as a command names them."""
    published: Path | None = None
    """A grid's description with published numbers."""
    remarks: list[str] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)
    """Figures that could not be drawn, and why."""
    _studies: dict[bool, Study] = field(default_factory=dict)

    def study(self, *, by_ranks: bool = False) -> Study:
        """The runs in their groups, read once."""
        if by_ranks not in self._studies:
            self._studies[by_ranks] = Study.read(self.paths, by_ranks=by_ranks, say=self._say)
        return self._studies[by_ranks]

    def galleries(self, kinds: Iterable[Kind]) -> Iterator[Gallery]:
        """Of those kinds that have something to say of these runs."""
        for kind in kinds:
            study = self.study(by_ranks=kind.by_ranks)
            if kind.of(study):
                yield from self._gallery(kind, study)

    def _say(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)

    def _gallery(self, kind: Kind, study: Study) -> Iterator[Gallery]:
        words = header(kind.module)
        try:
            with style.look():
                drawings = list(islice(self._drawings(kind, study), MOST + 1))
                pictures = [_picture(drawing, kind.name) for drawing in drawings[:MOST]]
        except BadInput as error:
            self.missing.append((words[""], str(error).removeprefix("nothing to draw: ")))
            return
        except (LookupError, ValueError, ArithmeticError) as error:  # a sound file whose numbers contradict each other
            self.missing.append((words[""], f"numbers in the files do not fit together ({error!r})"))
            return
        if len(drawings) > MOST:
            self._say(f"{words['']} Only the first {MOST} pictures are here; analysis/{kind.name}.py draws all.")
        command = f"python analysis/{kind.name}.py {self.named}"
        if self.published is not None and hasattr(kind.module.arguments().parse_args(["."]), "published"):
            command += f" --published {shlex.quote(str(self.published))}"
        yield Gallery(
            words[""], words.get("Look for", ""), words.get("Bear in mind", ""), pictures, command, len(pictures) > OPEN
        )

    def _drawings(self, kind: Kind, study: Study) -> Iterator[Drawing]:
        options: argparse.Namespace = kind.module.arguments().parse_args(["."])
        if self.published is not None and hasattr(options, "published"):
            with_numbers = argparse.Namespace(**vars(options) | {"published": self.published})
            try:
                yield from list(kind.module.draw(study, with_numbers))
            except BadInput:  # the grid has no numbers for this figure, or there is nothing to draw, as is told below
                pass
            else:
                return
        yield from kind.module.draw(study, options)


def header(module: ModuleType) -> dict[str, str]:
    """A figure module's docstring: its question under "", then "Run", "Figures", "Look for" and "Bear in mind"."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in cleandoc(module.__doc__ or "").splitlines():
        word, colon, rest = line.partition(":")
        if colon and line[:1].isalpha() and len(word) < 14 and found[""]:
            name = word
            found[name] = [rest.strip()]
        else:
            found[name].append(line.strip())
    return {name: " ".join(" ".join(lines).split()) for name, lines in found.items()}


def _picture(drawing: Drawing, script: str) -> Picture:
    caption = CAPTIONS.get(drawing.name) or f"{STARTS[drawing.name.partition('-')[0]]}: {_rest(drawing.name)}"
    groups = drawing.table["group"].unique().tolist() if "group" in drawing.table else []
    of = f", of {'; '.join(map(str, groups[:8]))}{f' and {len(groups) - 8} more' if len(groups) > 8 else ''}"
    return Picture(
        _uri(*picture(drawing, LARGEST)),
        f"{caption}{of if groups else ''}. The numbers stand in the table below the picture.",
        caption,
        numbers(drawing.table, f"Numbers: {caption}", script),
    )


def _rest(name: str) -> str:
    return name.partition("-")[2].replace("-", " ")


def numbers(table: pd.DataFrame, title: str, script: str) -> Sheet:
    """The first rows of what a figure shows."""
    rows = [[_cell(value) for value in row] for row in table.head(ROWS).itertuples(index=False)]
    more = len(table) - len(rows)
    said = [f"{more} more rows: analysis/{script}.py --format csv writes all of them."] if more > 0 else []
    return Sheet(title, [str(name).replace("_", " ") for name in table.columns], rows, remarks=said)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def uri(path: Path) -> str:
    """A PNG in a file as a data URI. BadInput where it cannot be read."""
    try:
        return _uri("image/png", path.read_bytes())
    except OSError as error:
        raise BadInput(f"cannot read the picture {path}: {error}") from None


def _uri(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def groups_of(study: Study) -> Mapping[Path, str]:
    """The group's label of each run that counts."""
    return {member.path.resolve(): group.label for group, member in study.pairs}
