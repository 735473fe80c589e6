"""A run's numbers as pandas tables, for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.schema import ENTRIES

if TYPE_CHECKING:
    import pandas as pd

    from mocosfl_mpi.record.reader import Run

_LOOKS = ("knn_top1", "knn_projector_top1", "classifier_top1")
_OF_EPOCH = ("loss", "accuracy", "feature_std", "effective_rank")


def frame(run: Run, name: str) -> pd.DataFrame:
    """``Run.frame``."""
    pandas = _pandas()
    if name in run.form.growing and name in run.names:
        entries = [ENTRIES[column] for column in run.names if column in ENTRIES and ENTRIES[column].dims == (name,)]
        columns = {entry.name.partition("/")[2]: run[entry.name] for entry in entries}
        table = pandas.DataFrame(columns, index=pandas.RangeIndex(run.rows[name], name=name))
    elif name in run.names and name in ENTRIES and ENTRIES[name].dims:
        entries = [ENTRIES[name]]
        index = pandas.MultiIndex.from_product([run[dim] for dim in ENTRIES[name].dims], names=ENTRIES[name].dims)
        table = pandas.DataFrame({name.partition("/")[2]: run[name].ravel()}, index=index)
    else:
        known = ", ".join(
            [*run.form.growing, *(entry for entry in run.names if entry in ENTRIES and ENTRIES[entry].dims)]
        )
        raise BadInput(f"{run.path} has no table {name!r}; there are: {known}")
    table.attrs["units"] = {entry.name.partition("/")[2]: entry.units for entry in entries}
    return table


def curves(run: Run) -> pd.DataFrame:
    """``Run.curves``."""
    pandas = _pandas()
    epochs = run.rows["epoch"]
    looks = [name for name in _LOOKS if f"result/{name}" in run.names]
    seen = {
        int(epoch): {name: float(run[f"evaluations/{name}"][row]) for name in looks}
        for row, epoch in enumerate(run["evaluations/epoch"])
        if epoch <= epochs
    }
    if run.completed:  # the last word is better than a look: all images are in the kNN bank
        seen[epochs] = {name: float(run[f"result/{name}"]) for name in looks}
    spent = run["simulated/bytes"].sum(axis=(1, 2), dtype=np.int64).cumsum() / len(run["client"])
    rows = []
    for epoch, accuracies in sorted(seen.items()):
        there = 0 < epoch <= len(spent)
        before = {name: float(run[f"epochs/{name}"][epoch - 1]) if there else np.nan for name in _OF_EPOCH}
        rows.append({"epoch": epoch, **accuracies, **before, "client_bytes": float(spent[epoch - 1]) if there else 0.0})
    columns = ["epoch", *looks, *_OF_EPOCH, "client_bytes"]
    table = pandas.DataFrame(rows, columns=columns).set_index("epoch")
    units = {name: ENTRIES[f"result/{name}"].units for name in looks}
    table.attrs["units"] = units | {name: ENTRIES[f"epochs/{name}"].units for name in _OF_EPOCH}
    table.attrs["units"]["client_bytes"] = "byte"
    return table


def _pandas() -> Any:
    try:
        import pandas as pd
    except ImportError:
        raise BadInput(
            "tables of a run need pandas, which is not installed: `pip install 'mocosfl-mpi[analysis]'`; without it "
            "run['evaluations/knn_top1'] and run.summary() give the same numbers"
        ) from None
    return pd
