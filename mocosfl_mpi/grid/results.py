"""What lies in a grid's directory, and the table of it: mean ± standard deviation over seeds, beside the published."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from mocosfl_mpi.config import to_toml
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.grid.description import Cell, Grid, Trial
from mocosfl_mpi.grid.metrics import METRICS, Metric, account
from mocosfl_mpi.record.reader import Run, open_run
from mocosfl_mpi.record.schema import FILE_NAME
from mocosfl_mpi.resumption import refuse_another

CONFIGS = "configs"
"""Directory of the trials' configurations, beside their runs."""


def check_metrics(grid: Grid) -> None:
    """Refuse a metric that does not exist (BadInput)."""
    named = {*grid.metrics, *(metric for metric, _ in grid.published)}
    for name in sorted(named - METRICS.keys()):
        raise BadInput(f"{grid.name}: there is no metric {name!r}; choose from {', '.join(METRICS)}")
    for name in sorted({metric for metric, _ in grid.published} - set(grid.metrics)):
        raise BadInput(f"{grid.name}: published.{name} is not shown; add {name!r} to metrics")


def completed(trial: Trial, directory: Path) -> bool | None:
    """Whether the trial's run is there and complete; None where it was not begun.

    Raises
    ------
    BadInput
        Another experiment lies in its place, or its file is damaged.
    """
    if not (directory / trial.name / FILE_NAME).exists():
        return None
    with _run_of(trial, directory) as run:
        return run.completed


def _run_of(trial: Trial, directory: Path) -> Run:
    run = open_run(directory / trial.name)
    try:
        refuse_another(run, trial.config)
    except BadInput:
        run.close()
        raise
    return run


def write_configurations(trials: Sequence[Trial], directory: Path) -> Path:
    """Write ``NAME.toml`` for each trial; the directory of them. BadInput where that cannot be done."""
    folder = directory / CONFIGS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for trial in trials:
            (folder / f"{trial.name}.toml").write_text(to_toml(trial.config, trial.name), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error}; name another directory with --out") from None
    return folder


# ------------------------------------------------------------------------------------------------------ the table


def table(grid: Grid, directory: Path) -> str:
    """The results as Markdown; a cell without finished runs shows a dash."""
    needs_runs = any(METRICS[name].of_run for name in grid.metrics)
    published = {metric for metric, _ in grid.published}
    header = [*grid.axes]
    for name in grid.metrics:
        header += [METRICS[name].title, *(["published"] if name in published else [])]
    header += ["runs"] if needs_runs else []
    rows = [_row(grid, cell, directory, published, needs_runs=needs_runs) for cell in grid.cells]
    notes = []
    if needs_runs:
        notes.append("Mean ± standard deviation over seeds, at the last step; no epoch is selected.")
    if any(METRICS[name].of_plan for name in grid.metrics):
        notes.append("Costs are known without a run; in float32 where compute.precision is auto.")
    if grid.source:
        notes.append(f"Published: {grid.source}")
    return "\n".join([f"# {grid.title}", "", *_markdown(header, rows), "", *notes]) + "\n"


def _row(grid: Grid, cell: Cell, directory: Path, published: set[str], *, needs_runs: bool) -> list[str]:
    trials = [trial for trial in grid.trials if trial.cell == cell]
    done = [trial for trial in trials if needs_runs and completed(trial, directory)]
    found = account(trials[0].config) if any(METRICS[name].of_plan for name in grid.metrics) else None
    figures: dict[str, list[float]] = {name: [] for name in grid.metrics}
    for trial in done:
        with _run_of(trial, directory) as run:
            for name, metric in _each(grid):
                value = metric.of_run(run) if metric.of_run else None
                figures[name] += [] if value is None else [value]
    row = [*cell.labels]
    for name, metric in _each(grid):
        values = [metric.of_plan(found)] if metric.of_plan and found else figures[name]
        row.append(spread(values, metric.digits))
        if name in published:
            number = grid.published.get((name, cell.labels))
            row.append("–" if number is None else f"{number:g}")
    return [*row, *([f"{len(done)}/{len(trials)}"] if needs_runs else [])]


def _each(grid: Grid) -> list[tuple[str, Metric]]:
    return [(name, METRICS[name]) for name in grid.metrics]


def spread(values: Sequence[float], digits: int) -> str:
    """``mean ± standard deviation`` (n - 1), the mean alone of one value, a dash of none."""
    if not values:
        return "–"
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(header), line(["-" * width for width in widths]), *map(line, rows)]
