"""Recorded data as tidy tables: one for each set of axes, a row for each place on them, a column for each dataset.

Beside them, `columns.csv` with the unit and meaning of every column, and `attributes.json` with the root attributes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mocosfl_mpi.record.form import Entry
from mocosfl_mpi.record.reader import Record
from mocosfl_mpi.record.schema import COMMITTED

ROWS = 2**19
"""Of a table, at most so many are in memory at a time."""
SCALARS = "scalars"
"""The table of what has no axis: one row."""
COLUMNS, ATTRIBUTES = "columns.csv", "attributes.json"


@dataclass(frozen=True)
class Sheet:
    """One table."""

    name: str
    axes: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def columns(self) -> list[str]:
        """Axes, then datasets by their names in the file."""
        return [*self.axes, *(entry.name for entry in self.entries)]


def sheets(record: Record) -> list[Sheet]:
    """All tables of a file, those of few axes first."""
    found: dict[tuple[str, ...], list[Entry]] = {}
    for name in record.names:
        entry = record.form.entries.get(name)
        if entry is not None and name != COMMITTED:
            found.setdefault(entry.dims, []).append(entry)
    order = sorted(found, key=len)
    return [Sheet("-".join(axes) or SCALARS, axes, tuple(found[axes])) for axes in order]


def frames(record: Record, sheet: Sheet) -> Iterator[pd.DataFrame]:
    """The table in order, a bounded part at a time; at least one part, though it may have no row.

    Raises
    ------
    BadInput
        The file is damaged.
    """
    if not sheet.axes:
        yield pd.DataFrame({entry.name: [record[entry.name][()]] for entry in sheet.entries})
        return
    first, *rest = sheet.axes
    growing = record.form.dimensions[first].growing
    labels: list[npt.NDArray[Any]] = [record[axis] for axis in sheet.axes]
    whole = record.rows[first] if growing else len(labels[0])
    slab = max(1, ROWS // max(1, math.prod(len(record[axis]) for axis in rest)))
    for start in range(0, max(whole, 1), slab):
        end = min(start + slab, whole)
        places = pd.MultiIndex.from_product([labels[0][start:end], *labels[1:]], names=sheet.axes)
        frame = places.to_frame(index=False)
        for entry in sheet.entries:
            values = record.part(entry.name, start, end) if growing else record[entry.name][start:end]
            frame[entry.name] = _plain(values)
        yield frame


def _plain(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One column, texts as strings."""
    column = values.reshape(-1)
    return np.char.decode(column, "utf-8").astype(object) if column.dtype.kind == "S" else column


def description(record: Record, found: list[Sheet]) -> pd.DataFrame:
    """Unit and meaning of every column of every table."""
    dimensions = record.form.dimensions
    rows = []
    for sheet in found:
        rows += [(sheet.name, axis, "1", dimensions[axis].long_name) for axis in sheet.axes]
        rows += [(sheet.name, entry.name, entry.units, entry.long_name) for entry in sheet.entries]
    return pd.DataFrame(rows, columns=["table", "column", "units", "meaning"])


def write(record: Record, folder: Path, kind: str, prefix: str = "") -> None:
    """Write all tables as `csv` or `parquet`, names beginning with ``prefix``. BadInput where the file is damaged."""
    found = sheets(record)
    for sheet in found:
        path = folder / f"{prefix}{sheet.name}.{kind}"
        if kind == "csv":
            for number, frame in enumerate(frames(record, sheet)):
                frame.to_csv(path, mode="a", header=not number, index=False)
        else:
            _parquet(record, sheet, path)
    description(record, found).to_csv(folder / f"{prefix}{COLUMNS}", index=False)
    text = json.dumps(record.attrs, indent=1, ensure_ascii=False)
    (folder / f"{prefix}{ATTRIBUTES}").write_text(text + "\n", encoding="utf-8")


def _parquet(record: Record, sheet: Sheet, path: Path) -> None:
    """With unit and meaning as metadata of each column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {row.column: row for row in description(record, [sheet]).itertuples()}
    writer = None
    try:
        for frame in frames(record, sheet):
            table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
            fields = [
                pa.field(
                    field.name,
                    pa.string() if field.type == pa.null() or pa.types.is_large_string(field.type) else field.type,
                    metadata={"units": about[field.name].units, "long_name": about[field.name].meaning},
                )
                for field in table.schema
            ]
            table = table.cast(pa.schema(fields))
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
