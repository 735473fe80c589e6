"""The description of a grid: a TOML file with axes, what each value on them sets, and the published numbers.

A trial's configuration is laid together from a preset, the grid's settings, those of its place on each axis in their
order, and its seed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from mocosfl_mpi.config import Config, Section, apply_settings, parse, read_toml
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.presets import load

_LABEL = re.compile(r"[A-Za-z0-9_.+]+")
_PLACE = re.compile(r"\{(\w+)\}")

MOST_TRIALS = 10_000
"""A grid of more is taken for an oversight."""

Axis = list[bool | str | int | float] | dict[str, dict[str, Any]]


class Description(Section):
    """What stands in the file."""

    title: str
    """The table or figure, for people."""
    name: str = ""
    """Of the directory for results; empty = that of the file."""
    source: str = ""
    """Where the published numbers stand, and what is to be known of them."""
    extends: str = ""
    """Another description, by its path from this one. What is given here takes its place, `settings` are laid over;
    its title, name, source, published numbers, `against` and `budgets` do not count here."""
    preset: str = ""
    """A preset's name, in which `{axis}` stands for the place on that axis; empty = the defaults."""
    seeds: tuple[int, ...] = Field(default=(1234,), min_length=1)
    """One run per cell and seed."""
    metrics: tuple[str, ...] = Field(default=("linear_top1", "knn_top1"), min_length=1)
    """Columns of the table."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Of every cell, as in a configuration."""
    axes: dict[str, Axis] = Field(default_factory=dict)
    """By name: a table of places, each with its settings; or a list of values of the setting that the axis is named
    after. A list whose axis stands in the preset's name sets nothing besides."""
    against: dict[str, str] = Field(default_factory=dict)
    """By axis, the place from which the table shows the others' differences, run by run of one seed."""
    budgets: tuple[Annotated[float, Field(gt=0.0)], ...] = ()
    """MiB that a client sends and receives: the table shows the kNN that was reached with no more."""
    published: dict[str, Any] = Field(default_factory=dict)
    """By metric: tables after the places on the axes, in their order; a list stands for all places on the last."""


@dataclass(frozen=True)
class Cell:
    """One combination of places on the axes."""

    labels: tuple[str, ...]
    name: str
    values: dict[str, Any]
    """Nested values of the configuration, without the seed."""


@dataclass(frozen=True)
class Trial:
    """One run of the grid."""

    cell: Cell
    name: str
    config: Config


@dataclass(frozen=True)
class Grid:
    """A validated grid: every trial's configuration is sound."""

    name: str
    title: str
    source: str
    axes: tuple[str, ...]
    metrics: tuple[str, ...]
    cells: tuple[Cell, ...]
    trials: tuple[Trial, ...]
    published: Mapping[tuple[str, tuple[str, ...]], float]
    """By metric and labels."""
    against: Mapping[str, str]
    budgets: tuple[float, ...]

    def only(self, text: str) -> Grid:
        """The same with only those cells whose name has ``text`` in it. BadInput where there is none."""
        cells = tuple(cell for cell in self.cells if text in cell.name)
        if not cells:
            raise BadInput(f"--only {text!r}: no cell has that in its name; `mocosfl grid FILE` lists them")
        trials = tuple(trial for trial in self.trials if trial.cell in cells)
        return replace(self, cells=cells, trials=trials)


def read_grid(path: Path, assignments: Sequence[str] = ()) -> Grid:
    """The grid described in ``path``; ``assignments`` (a.b=v) are laid over every cell.

    Raises
    ------
    BadInput
        The file or one that it extends cannot be read, names a key, preset, place or metric that does not exist, or
        a cell's configuration is not sound.
    """
    try:
        found = Description.model_validate(_read(path))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise BadInput(f"{path} describes no grid: {'; '.join(lines)}") from None
    axes = {name: _places(path, name, axis, found.preset) for name, axis in found.axes.items()}
    for name in _PLACE.findall(found.preset):
        if name not in axes:
            raise BadInput(f"{path}: preset = {found.preset!r}: there is no axis {name!r}")
    count = math.prod([len(found.seeds), *map(len, axes.values())])
    if count > MOST_TRIALS:
        raise BadInput(f"{path} asks for {count} runs; at most {MOST_TRIALS} are taken for meant: shorten an axis")
    cells = tuple(_cells(found, axes, assignments))
    trials = tuple(_trials(path, cells, found.seeds))
    if len({trial.name for trial in trials}) < len(trials):
        raise BadInput(f"{path}: two runs would have the same name; let no seed and no place on an axis stand twice")
    return Grid(
        name=found.name or path.stem,
        title=found.title,
        source=found.source,
        axes=tuple(name.rpartition(".")[2] for name in axes),
        metrics=found.metrics,
        cells=cells,
        trials=trials,
        published=_published(path, found.published, axes),
        against=_against(path, found.against, axes),
        budgets=found.budgets,
    )


def _read(path: Path, extending: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The file's values, with those of the file that it extends below them."""
    if path.resolve() in extending:
        raise BadInput(f"{path} extends itself")
    own = read_toml(path)
    if not own.get("extends"):
        return own
    if not isinstance(own["extends"], str):
        raise BadInput(f"{path}: extends = {own['extends']!r}: expected the path of another grid")
    base = _read(path.parent / own["extends"], (*extending, path.resolve()))
    for key in ("title", "name", "source", "published", "against", "budgets", "extends"):
        base.pop(key, None)
    laid = {"settings": _over(base.get("settings", {}), own["settings"])} if "settings" in own else {}
    return base | own | laid


def _over(below: Any, above: Any) -> Any:
    """Nested values with others laid over them."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return below | {key: _over(below[key], value) if key in below else value for key, value in above.items()}


def _places(path: Path, name: str, axis: Axis, preset: str) -> dict[str, dict[str, Any]]:
    """Places of one axis: label to settings."""
    if isinstance(axis, list):
        in_preset = name in _PLACE.findall(preset)
        places = {str(value): {} if in_preset else _nested(name, value) for value in axis}
        if len(places) < len(axis):
            raise BadInput(f"{path}: axes.{name} = {axis}: a value stands there twice")
    else:
        places = axis
    if not places:
        raise BadInput(f"{path}: axes.{name} is empty; name its places, or leave the axis out")
    for label in places:
        if not _LABEL.fullmatch(label):
            raise BadInput(f"{path}: axes.{name}: {label!r} becomes part of a file's name: letters, digits, _ . + only")
    return places


def _nested(name: str, value: Any) -> dict[str, Any]:
    head, dot, rest = name.partition(".")
    return {head: _nested(rest, value) if dot else value}


def _cells(
    found: Description, axes: Mapping[str, Mapping[str, dict[str, Any]]], assignments: Sequence[str]
) -> Iterator[Cell]:
    for labels in product(*axes.values()):
        place = dict(zip(axes, labels, strict=True))
        preset = _PLACE.sub(lambda match, place=place: place[match[1]], found.preset)  # type: ignore[misc]
        values = _over(load(preset)[1] if preset else {}, found.settings)
        for name, label in place.items():
            values = _over(values, axes[name][label])
        name = "-".join(_word(axis.rpartition(".")[2], label) for axis, label in place.items())
        yield Cell(labels, name or "cell", apply_settings(values, assignments))


def _word(axis: str, label: str) -> str:
    """A number, true and false need their axis to be understood, another word does not."""
    return f"{axis}{label}" if label[0].isdigit() or label in ("True", "False") else label


def _trials(path: Path, cells: Sequence[Cell], seeds: Sequence[int]) -> Iterator[Trial]:
    for seed in seeds:  # changes slowest: a grid cut short has whole tables
        for cell in cells:
            name = f"{cell.name}-seed{seed}"
            yield Trial(cell, name, parse(cell.values | {"seed": seed}, f"{path}, {name}"))


def _against(path: Path, found: Mapping[str, str], axes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The places to compare with, by the axes' names in the table."""
    for axis, label in found.items():
        if label not in axes.get(axis, {}):
            places = f"choose from {', '.join(axes[axis])}" if axis in axes else f"the axes are {', '.join(axes)}"
            raise BadInput(f"{path}: against.{axis} = {label!r}: there is no such place; {places}")
    return {axis.rpartition(".")[2]: label for axis, label in found.items()}


def _published(
    path: Path, numbers: Mapping[str, Any], axes: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, tuple[str, ...]], float]:
    def walk(here: Any, labels: tuple[str, ...], origin: str) -> Iterator[tuple[tuple[str, ...], float]]:
        left = [list(places) for places in axes.values()][len(labels) :]
        if not left and isinstance(here, int | float) and not isinstance(here, bool):
            yield labels, float(here)
        elif len(left) == 1 and isinstance(here, list) and len(here) == len(left[0]):
            for label, value in zip(left[0], here, strict=True):
                yield from walk(value, (*labels, label), origin)
        elif left and isinstance(here, dict) and here.keys() <= set(left[0]):
            for label, value in here.items():
                yield from walk(value, (*labels, label), f"{origin}.{label}")
        else:
            expected = f"a table with {', '.join(left[0])}, or that many numbers" if left else "a number"
            raise BadInput(f"{path}: {origin} = {here!r}: expected {expected}")

    return {
        (metric, labels): value
        for metric, found in numbers.items()
        for labels, value in walk(found, (), f"published.{metric}")
    }
