"""The tables of a grid, in Markdown: means beside the published, differences of pairs, equal bytes; and all as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mocosfl_mpi.grid.description import Cell, Grid
from mocosfl_mpi.grid.metrics import METRICS, Metric, account
from mocosfl_mpi.grid.results import Figures, Point, figures
from mocosfl_mpi.record.figures import spread

Found = Mapping[str, Figures]


def table(grid: Grid, directory: Path) -> str:
    """The results as Markdown; a cell without finished runs shows a dash."""
    needs_runs = any(METRICS[name].of_run for name in grid.metrics)
    found = figures(grid, directory) if needs_runs else {}
    published = {metric for metric, _ in grid.published}
    header = [*grid.axes]
    for name in grid.metrics:
        header += [METRICS[name].title, *(["published"] if name in published else [])]
    header += ["runs"] if needs_runs else []
    rows = [_row(grid, cell, found, published, needs_runs=needs_runs) for cell in grid.cells]
    notes = []
    if needs_runs:
        notes.append("Mean ± standard deviation over seeds, at the last step; no epoch is selected.")
    if any(METRICS[name].of_plan for name in grid.metrics):
        notes.append("Costs are known without a run; in float32 where compute.precision is auto.")
    if grid.source:
        notes.append(f"Published: {grid.source}")
    parts = [f"# {grid.title}", "", *_markdown(header, rows), "", *notes]
    return "\n".join([*parts, *_pairs(grid, found), *_budgets(grid, found)]) + "\n"


def as_json(grid: Grid, directory: Path) -> str:
    """Every complete run's figures, with the hashes of its configuration and of its trained state."""
    runs = [
        {
            "run": name,
            "cell": dict(zip(grid.axes, one.trial.cell.labels, strict=True)),
            "seed": one.trial.config.seed,
            **one.values,
            "curve": [asdict(point) for point in one.curve],
            "wall_seconds": one.seconds,
            "config_hash": one.trial.config.hash(),
            "state_sha256": one.state_sha256,
        }
        for name, one in figures(grid, directory).items()
    ]
    return json.dumps({"title": grid.title, "grid": grid.name, "runs": runs}, indent=1) + "\n"


def _row(grid: Grid, cell: Cell, found: Found, published: set[str], *, needs_runs: bool) -> list[str]:
    trials = [trial for trial in grid.trials if trial.cell == cell]
    done = [found[trial.name] for trial in trials if trial.name in found]
    costs = account(trials[0].config) if any(METRICS[name].of_plan for name in grid.metrics) else None
    row = [*cell.labels]
    for name, metric in _each(grid):
        values = [metric.of_plan(costs)] if metric.of_plan and costs else _known(one.values[name] for one in done)
        row.append(spread(values, metric.digits))
        if name in published:
            number = grid.published.get((name, cell.labels))
            row.append("–" if number is None else f"{number:g}")
    return [*row, *([f"{len(done)}/{len(trials)}"] if needs_runs else [])]


def _pairs(grid: Grid, found: Found) -> Iterator[str]:
    """Differences from the place that ``grid.against`` names, between runs of one seed."""
    for axis, reference in grid.against.items():
        where = grid.axes.index(axis)
        shown = [(name, metric) for name, metric in _each(grid) if metric.of_run and metric.of_training]
        rows = []
        for cell in grid.cells:
            if cell.labels[where] == reference:
                continue
            pairs = list(_with_reference(grid, cell, found, where, reference))
            gaps = [_known(_gap(one.values[name], other.values[name]) for one, other in pairs) for name, _ in shown]
            texts = [spread(values, metric.digits, "+") for values, (_, metric) in zip(gaps, shown, strict=True)]
            rows.append([*cell.labels, *texts, str(len(pairs))])
        header = [*grid.axes, *(metric.title for _, metric in shown), "pairs"]
        yield from ["", f"Minus {axis} = {reference}, same seed:", "", *_markdown(header, rows)]


def _with_reference(
    grid: Grid, cell: Cell, found: Found, where: int, reference: str
) -> Iterator[tuple[Figures, Figures]]:
    """Runs of the cell with those of the reference that have the same seed and other places."""
    wanted = (*cell.labels[:where], reference, *cell.labels[where + 1 :])
    others = {one.trial.config.seed: one for one in found.values() if one.trial.cell.labels == wanted}
    for trial in grid.trials:
        if trial.cell == cell and trial.name in found and trial.config.seed in others:
            yield found[trial.name], others[trial.config.seed]


def _budgets(grid: Grid, found: Found) -> Iterator[str]:
    """The kNN of the last evaluation before a client has sent and received more than so many MiB."""
    if not grid.budgets:
        return
    rows = []
    for cell in grid.cells:
        done = [found[trial.name] for trial in grid.trials if trial.cell == cell and trial.name in found]
        row = [*cell.labels]
        for budget in grid.budgets:
            points = [within(one.curve, budget) for one in done]
            text = spread([point.knn_top1 for point in points], 1)
            row.append(f"{text} ({points[0].mebibytes:.1f}, {points[0].epoch})" if points else text)
        rows.append(row)
    header = [*grid.axes, *(f"until {budget:g} MiB: kNN (MiB, epoch)" for budget in grid.budgets)]
    yield from ["", "The kNN of the last evaluation before a client has sent and received more than so many MiB:", ""]
    yield from _markdown(header, rows)


def within(curve: Sequence[Point], budget: float) -> Point:
    """The last of the points that cost no more than ``budget`` MiB; the first, untrained one costs nothing."""
    return [point for point in curve if point.mebibytes <= budget][-1]


def _each(grid: Grid) -> list[tuple[str, Metric]]:
    return [(name, METRICS[name]) for name in grid.metrics]


def _known(values: Iterator[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _gap(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(header), line(["-" * width for width in widths]), *map(line, rows)]
