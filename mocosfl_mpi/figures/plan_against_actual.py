"""Was the plan right: memory, time, simulated bytes and computation, size of the file?

Run:           mocosfl plan CONFIG -n N --json > RUN/plan.json      before the run, with its settings and seed; or
               mocosfl inspect RUN --json > RUN/plan.json           of a run that is over
               python analysis/plan_against_actual.py RUN… [--plan FILE]
Figure:        plan: planned over actual, for each run that has a plan
Look for:      bytes and FLOPs at exactly 1; memory within the band of 10 %; time as near as the machine was free.
Bear in mind:  the plan of a run that is over has the profile that the last plan left on this machine. A plan says
               what all epochs take: of an unfinished run only memory and seconds a step can be compared.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.figures import style
from mocosfl_mpi.figures.common import Drawing, nothing, parser, script
from mocosfl_mpi.figures.scaling import measured
from mocosfl_mpi.figures.study import Study
from mocosfl_mpi.record.reader import Run

NAME = "plan.json"
QUANTITIES = {
    "memory": ("byte", "memory of all ranks"),
    "seconds": ("s", "seconds a step"),
    "bytes": ("byte", "simulated bytes"),
    "flops": ("flop", "computation of clients"),
    "record": ("byte", "run.h5"),
}
PROMISED = 0.1


def actual(run: Run) -> dict[str, float]:
    """What the run took, by quantity; what is not known, or is not of all epochs, is left out."""
    found = {}
    resident = run.last("measured/resident_bytes")
    if resident is not None:
        found["memory"] = float(resident[: int(run.attrs["ranks"])].sum())
    for row in measured(run, {}):
        if run.rows["epoch"] > 1:  # the first epoch warms up
            found["seconds"] = row["seconds"]
    if run.completed:
        found["bytes"] = float(run["simulated/bytes"].sum(dtype=np.int64))
        found["flops"] = float(run["simulated/client_flops"].sum(dtype=np.int64))
        found["record"] = float(run.path.stat().st_size)
    return found


def read_plan(path: Path) -> dict[str, Any]:
    """What ``mocosfl plan --json``, or ``mocosfl inspect --json``, wrote.

    Raises
    ------
    BadInput
        It cannot be read, or is no plan.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        plan = found.get("plan", found)
        sent, work = (sum(map(float, plan[name].values())) for name in ("simulated_bytes", "client_flops"))
        values = {"bytes": sent, "flops": work, "record": float(plan["record_bytes"])}
        for name, key in (("memory", "resident_bytes_sum"), ("seconds", "seconds_per_step")):
            if plan.get(key) is not None:
                values[name] = float(plan[key])
        return values | {key: int(plan[key]) for key in ("ranks", "epochs", "clients", "pool") if key in plan}
    except OSError as error:
        raise BadInput(f"cannot read the plan: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        text = " ".join(str(error).split())[:200]
        raise BadInput(f"{path} is no plan ({text}): write one with `mocosfl plan CONFIG -n N --json`") from None


def check(plan: Mapping[str, Any], run: Run, path: Path) -> None:
    """Refuse (BadInput) a plan of another experiment or another number of ranks."""
    own = {
        "ranks": int(run.attrs["ranks"]),
        "epochs": run.attrs["config"].get("epochs"),
        "clients": len(run["client"]),
        "pool": len(run["member"]),
    }
    for name, value in own.items():
        if name in plan and plan[name] != value:
            raise BadInput(f"{path} is the plan of another run: {name} = {plan[name]} there, {value} in {run.path}")


def draw(study: Study, options: argparse.Namespace) -> Iterator[Drawing]:
    if options.plan is not None and len(study.members) > 1:
        raise BadInput(f"--plan {options.plan} is the plan of one run; give that one, or put {NAME} into each run")

    def rows(run: Run, _: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        path = options.plan or run.path.parent / NAME
        if options.plan is None and not path.exists():
            return
        plan = read_plan(path)
        check(plan, run, path)
        for quantity, taken in actual(run).items():
            if plan.get(quantity) and taken:
                ratio = plan[quantity] / taken
                yield {"quantity": quantity, "planned": plan[quantity], "actual": taken, "ratio": ratio}

    study, table = study.collect(rows)
    if table.empty:
        raise nothing(
            "no plan of these runs, or none of their figures is known yet",
            "write one with `mocosfl plan CONFIG -n N --json > RUN/plan.json`, or for a run that is over with "
            "`mocosfl inspect RUN --json > RUN/plan.json`",
        )
    table.insert(4, "unit", table["quantity"].map({name: unit for name, (unit, _) in QUANTITIES.items()}))
    yield Drawing("plan", table, partial(paint, study, table))


def paint(study: Study, table: pd.DataFrame) -> Figure:
    quantities = [name for name in QUANTITIES if (table["quantity"] == name).any()]
    labels = study.labels
    marks, _ = style.marks(labels, [""] * len(labels))
    key = {label: replace(mark, line="none") for label, mark in zip(labels, marks, strict=True)}
    made, (axis,) = style.figure(0.7 + 0.24 * len(quantities), below=list(key))
    axis.axvspan(1 - PROMISED, 1 + PROMISED, color="#E5E5E5", linewidth=0)
    axis.axvline(1.0, color=style.GREY, linewidth=0.8)
    for place, label in enumerate(labels):
        points = table[table["group"] == label]
        height = points["quantity"].map(quantities.index) + 0.5 * ((place + 0.5) / len(labels) - 0.5)
        axis.plot(points["ratio"], height, color=key[label].colour, marker=key[label].marker, linestyle="none")
    axis.set_yticks(range(len(quantities)), [QUANTITIES[name][1] for name in quantities])
    axis.set_ylim(len(quantities) - 0.5, -0.5)
    low, high = min(0.8, 0.95 * table["ratio"].min()), max(1.25, 1.05 * table["ratio"].max())
    axis.set(xlabel="planned / actual", xscale="log", xlim=(low, high))
    ticks = [tick for tick in (0.1, 0.2, 0.5, 0.8, 1.0, 1.25, 2.0, 5.0, 10.0) if low <= tick <= high]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    style.legend(made, key)
    return made


def arguments() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--plan", type=Path, metavar="FILE", help=f"the run's plan (default: RUN/{NAME})")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return script(arguments(), draw, argv, by_ranks=True)
