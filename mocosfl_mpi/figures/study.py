"""Several runs as one study: what their configurations differ in, seeds apart, makes the groups and the legend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mocosfl_mpi.config import flat, parse
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.figures import style
from mocosfl_mpi.methods import METHODS
from mocosfl_mpi.record.reader import Run, open_run
from mocosfl_mpi.record.schema import FILE_NAME

TITLES = {
    "mocosfl": "MocoSFL", "monacosfl": "MonAcoSFL", "fl_moco": "FL-MoCo", "fl_byol": "FL-BYOL",
    "fl_simclr": "FL-SimCLR", "fl_simsiam": "FL-SimSiam", "fedu": "FedU", "fedema": "FedEMA",
    "fedavg": "FedAvg", "sfl_v1": "SFL-V1", "sfl_v2": "SFL-V2", "split_vanilla": "vanilla SL",
    "split_u_shaped": "U-shaped SL", "split_vertical": "vertical SL",
}  # fmt: skip
FIRST = (
    "method", "federation.alignment", "model.cut_layer", "client.count", "federation.sync_freq", "data.source",
    "partition.kind", "model.backbone", "model.width", "client.sampling_ratio", "client.batch_size",
)  # fmt: skip
"""Settings that people name first when they say what a run was."""
LAST = ("evaluation", "compute", "ranks")
"""What is named only where nothing else tells two runs apart."""
WORDS = {
    "method": "", "model.cut_layer": "cut", "client.count": "clients",
    "federation.sync_freq": "sync freq", "data.source": "", "model.backbone": "", "client.sampling_ratio": "ratio",
    "client.batch_size": "batch", "client.lr": "client lr", "server.lr": "server lr", "partition.kind": "",
}  # fmt: skip
ALIGNED = {"none": "nothing aligned", "online": "online aligned", "online_and_momentum": "momentum aligned",
           "momentum_reset": "momentum reset"}  # fmt: skip
SILENT = {
    ("federation.alignment", "method"), ("model.bottleneck", ""), ("defence.clip", None), ("defence.noise", "none"),
    ("defence.noise_scale", 0.0), ("defence.dropout", 0.0), ("defence.keep_share", 1.0), ("defence.levels", None),
    ("defence.nopeek", 0.0), ("defence.adversarial", 0.0), ("defence.resistance", 0.0),
}  # fmt: skip
"""Values that go without saying."""


@dataclass(frozen=True)
class Member:
    """One run of a group."""

    path: Path
    name: str
    seed: int
    epochs: int
    completed: bool
    hash: str
    settings: Mapping[str, Any]
    """Flat, by `section.key`, without the seed; defaults included."""


@dataclass(frozen=True)
class Group:
    """Runs of one configuration, seed for seed."""

    label: str
    values: dict[str, Any]
    """Of the settings that tell the study's groups apart."""
    members: tuple[Member, ...]
    mark: style.Mark
    step: str = ""
    """What the line style of its mark tells, where that is another thing than colour and marker tell."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All settings of its runs."""
        return self.members[0].settings


@dataclass(frozen=True)
class Line:
    """Groups that are alike but for one setting, in the order of its values."""

    label: str
    mark: style.Mark
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Study:
    """Groups in the order in which they are drawn."""

    keys: tuple[str, ...]
    """The settings that tell the groups apart, the best-known first."""
    groups: tuple[Group, ...]
    legend: Mapping[str, style.Mark]
    say: Callable[[str], None]
    """Where remarks go."""

    @classmethod
    def read(cls, paths: Sequence[Path], *, by_ranks: bool, say: Callable[[str], None]) -> Study:
        """Open every run once and sort it into its group.

        With ``by_ranks`` the number of MPI ranks makes groups too, and repetitions of a run count each; otherwise one
        run of each configuration and seed counts.

        Raises
        ------
        BadInput
            No run there, or one that is no run, of another schema, or damaged.
        """
        members = []
        for path in find(paths):
            with open_run(path) as run:
                members.append(_member(run, by_ranks=by_ranks))
        if not by_ranks:
            members = list(_once(members, say))
        unfinished = [member.name for member in members if not member.completed]
        if unfinished:
            say(f"not completed, {len(unfinished)} of {len(members)} runs: {_some(unfinished)}")
        made = cls.of(members, say)
        silent = [name for name in _differing(made.members) if name not in made.keys]
        if silent:
            say(f"runs that differ in {', '.join(made.keys)} differ in {_some(silent)} too; legends do not say so")
        return made

    @classmethod
    def of(cls, members: Sequence[Member], say: Callable[[str], None]) -> Study:
        """Sort runs into groups."""
        keys = telling(members)
        places: dict[tuple[Any, ...], list[Member]] = {}
        for member in members:
            places.setdefault(tuple(member.settings.get(key) for key in keys), []).append(member)
        order = sorted(places, key=lambda values: [_rank(*pair) for pair in zip(keys, values, strict=True)])
        rows = [dict(zip(keys, values, strict=True)) for values in order]
        marks, legend, steps = _marks(rows, keys)
        groups = [
            Group(_label(row, keys) or title(found[0].settings), row, tuple(_by_seed(found)), mark, step)
            for found, row, mark, step in zip((places[values] for values in order), rows, marks, steps, strict=True)
        ]
        return cls(keys, tuple(groups), legend if len(groups) > 1 else {groups[0].label: marks[0]}, say)

    @property
    def pairs(self) -> list[tuple[Group, Member]]:
        """Every run with its group."""
        return [(group, member) for group in self.groups for member in group.members]

    @property
    def members(self) -> list[Member]:
        """Every run."""
        return [member for _, member in self.pairs]

    @property
    def labels(self) -> list[str]:
        """Of all groups."""
        return [group.label for group in self.groups]

    def collect(
        self, measure: Callable[[Run, Mapping[str, Any]], Iterable[Mapping[str, Any]]]
    ) -> tuple[Study, pd.DataFrame]:
        """Rows of ``measure(run, settings)``, with ``group``, ``seed`` and ``run`` before them.

        With them comes the study of those runs that have rows: the others make no groups, and no legend.
        """
        rows: dict[Path, list[Mapping[str, Any]]] = {}
        for _, member in self.pairs:
            with open_run(member.path) as run:
                rows[member.path] = list(measure(run, member.settings))
        silent = [member.name for member in self.members if not rows[member.path]]
        if len(silent) == len(rows):
            return self, pd.DataFrame(columns=["group", "seed", "run"])
        study = self
        if silent:
            self.say(f"nothing to draw of {len(silent)} of {len(rows)} runs: {_some(silent)}")
            study = Study.of([member for member in self.members if rows[member.path]], self.say)
        found = [
            {"group": group.label, "seed": member.seed, "run": member.name, **row}
            for group, member in study.pairs
            for row in rows[member.path]
        ]
        return study, pd.DataFrame(found)

    def without(self, key: str) -> tuple[list[Line], Mapping[str, style.Mark]]:
        """Lines of a figure that has the setting ``key`` on its axis, and their legend."""
        others = [other for other in self.keys if other != key]
        lines: dict[tuple[Any, ...], list[Group]] = {}
        for group in self.groups:
            lines.setdefault(tuple(group.values[other] for other in others), []).append(group)
        found = list(lines.values())
        marks, legend, _ = _marks([line[0].values for line in found], others)
        labels = [_label(line[0].values, others) or title(line[0].settings) for line in found]
        made = [Line(label, mark, tuple(line)) for label, mark, line in zip(labels, marks, found, strict=True)]
        return made, legend if len(made) > 1 else {made[0].label: made[0].mark}


def find(paths: Sequence[Path]) -> list[Path]:
    """Files of runs: those given, those in given directories, and those one level below; each once."""
    found: dict[Path, Path] = {}
    for path in paths:
        try:
            below = sorted(path.glob(f"*/{FILE_NAME}")) if not (path / FILE_NAME).exists() else []
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error}") from None
        for file in below or [path / FILE_NAME if path.is_dir() else path]:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def spread(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Mean, standard deviation (n - 1) and number of ``value`` over seeds, for each of ``by`` in the order of rows."""
    known = frame.dropna(subset=[value])
    return (
        known.groupby(list(by), sort=False)[value].agg(mean="mean", std="std", n="count").reset_index()
        if len(known)
        else pd.DataFrame(columns=[*by, "mean", "std", "n"])
    )


def title(settings: Mapping[str, Any]) -> str:
    """The method's name for people."""
    return TITLES.get(str(settings.get("method")), str(settings.get("method")))


def telling(members: Sequence[Member]) -> tuple[str, ...]:
    """The fewest settings, the best-known first, that tell apart all configurations that differ."""
    kept: list[str] = []
    parts = 1
    for name in _differing(members):
        found = len({tuple(repr(member.settings.get(key)) for key in (*kept, name)) for member in members})
        if found > parts:
            kept, parts = [*kept, name], found
    return tuple(kept)


def _differing(members: Sequence[Member]) -> list[str]:
    """All settings in which they differ, the best-known first."""
    names = sorted({name for member in members for name in member.settings}, key=_fame)
    return [name for name in names if len({repr(member.settings.get(name)) for member in members}) > 1]


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded configuration, flat, with the defaults of settings that it leaves out."""
    try:
        return flat(parse(dict(config), "a recorded configuration").model_dump(mode="json"))
    except BadInput:  # of another version of the program: what it says, and no more
        return flat(config)


def _member(run: Run, *, by_ranks: bool) -> Member:
    settings = complete(run.attrs["config"])
    settings.pop("seed", None)
    if by_ranks:
        settings["ranks"] = int(run.attrs["ranks"])
    folder = run.path.parent.name if run.path.name == FILE_NAME else run.path.stem
    return Member(
        run.path, folder, int(run.attrs["seed"]), run.rows["epoch"], run.completed, run.attrs["config_hash"], settings
    )


def _once(members: Sequence[Member], say: Callable[[str], None]) -> Iterator[Member]:
    """One run of each configuration with its seed: the one that got farthest."""
    best: dict[str, Member] = {}
    for member in members:
        other = best.get(member.hash)
        best[member.hash] = member if other is None or member.epochs > other.epochs else other
    for member in members:
        kept = best[member.hash]
        if kept is member:
            yield member
        else:
            say(f"{member.name} is the same experiment as {kept.name}, with the same seed, and does not count")


def _by_seed(members: Sequence[Member]) -> list[Member]:
    return sorted(members, key=lambda member: (member.seed, member.name))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _fame(name: str) -> tuple[int, int, str]:
    section = name.partition(".")[0]
    place = FIRST.index(name) if name in FIRST else len(FIRST)
    return LAST.index(section) + 1 if section in LAST else 0, place, name


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rank(key: str, value: Any) -> tuple[int, float, str]:
    """Methods in the order of the table, numbers by size, words by the alphabet."""
    if key == "method" and value in METHODS:
        return 0, list(METHODS).index(value), ""
    if (key, value) in SILENT:
        return 0, 0.0, ""
    return (1, float(value), "") if _number(value) else (2, 0.0, str(value))


def _marks(
    rows: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> tuple[list[style.Mark], dict[str, style.Mark], list[str]]:
    """Marks by what is compared (words) and what is swept over (numbers), their legend, and what line styles tell."""
    swept = [key for key in keys if all(_number(row[key]) for row in rows)]
    arms = [_label(row, [key for key in keys if key not in swept]) for row in rows]
    steps = [_label(row, swept) for row in rows]
    marks, legend = style.marks(arms, steps)
    return marks, legend, steps if set(steps) <= legend.keys() and set(arms) <= legend.keys() else [""] * len(rows)


def _label(row: Mapping[str, Any], keys: Sequence[str]) -> str:
    words = [_word(key, row[key]) for key in keys if (key, row[key]) not in SILENT]
    undefended = [key for key in keys if key.startswith("defence.") or key == "model.bottleneck"]
    return ", ".join(words) or ("undefended" if undefended else "")


def _word(key: str, value: Any) -> str:
    if key == "method":
        return TITLES.get(str(value), str(value))
    if key == "federation.alignment":
        return ALIGNED.get(str(value), str(value))
    text = f"{value:g}" if _number(value) else str(value).replace("_", " ")
    name = WORDS.get(key, key.rpartition(".")[2].replace("_", " "))
    return f"{name} {text}".strip()
