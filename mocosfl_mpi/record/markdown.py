"""The schema as a page of documentation."""

from __future__ import annotations

from collections.abc import Iterator

from mocosfl_mpi.record.attack_schema import ATTACKS, FLOORS, METRICS
from mocosfl_mpi.record.form import Dimension, Entry, Form
from mocosfl_mpi.record.schema import FILE_NAME, RUN, SCHEMA_VERSION

_INTRODUCTION = f"""# The file of a run

<!-- Generated: python -m mocosfl_mpi.record.schema > docs/file-format.md -->

A run writes one HDF5 file, `OUT/{FILE_NAME}`, schema version {SCHEMA_VERSION}. Rank 0 is the only writer.
The file can be read while the run writes, and after a kill at any moment; `mocosfl inspect OUT` prints it for a
person.

```python
import h5py
try:
    file = h5py.File("OUT/run.h5", "r")
except OSError:                                   # the run still writes, or was killed
    file = h5py.File("OUT/run.h5", "r", swmr=True)
rows = dict(zip(file["series"].asstr()[:], file["committed"][:]))
loss = file["epochs/loss"][: rows["epoch"]]
```

- **Whole rows.** Datasets that grow along the same dimension are valid up to the number in `committed`, which
  is advanced last. Cut to it: a kill can leave longer datasets behind. `mocosfl_mpi.record.reader.open_run` does
  this for you.
- **Dimension scales.** Each dimension has a scale of its name in the root group, attached to every dataset that
  uses it: numbers, or labels as fixed-length UTF-8 strings. `xarray.open_datatree("OUT/run.h5",
  engine="h5netcdf")` finds them; labels are bytes there: `tree["simulated/bytes"].sel(message=b"query_up")`.
- **Units.** Every dataset has the attributes `units` and `long_name`. `byte` is 8 bits, `flop` one
  floating-point operation, `mac` one multiply-accumulate (two FLOPs), `%` 0 to 100, `1` a pure number.
- **Two ledgers.** `simulated/` is what real client devices would spend, `measured/` what this run spent; they are
  never added. All but `measured/`, `ranks/` and wall times is the same for any number of ranks.
- **Compression.** Datasets marked gzip are compressed where a row has at least 4096 bytes, one row per chunk.
- **Empty values.** A number that was not measured is NaN; `result/` is NaN (or empty text) until known. A
  completed run has `result/completed = 1` and `result/state_sha256`.
- **Durability.** A flushed row survives the death of the process, not the death of the machine. SWMR needs a file
  system with POSIX writes; where reading is refused because of locks, set `HDF5_USE_FILE_LOCKING=FALSE`.
"""

_ATTRIBUTES = """\
Texts have a fixed length; h5py returns them as bytes: `json.loads(file.attrs["config"])`,
`file.attrs["method"].decode()`."""
_WHEN = {
    "row": "Growing datasets: one row at a time",
    "fixed": "Fixed datasets: written before the first step",
    "result": "Results: empty until known",
}


_ATTACKS = """# The file of attacks

`mocosfl attack` and `mocosfl audit` append to `RUN/attacks.h5`, schema version {version}, in the same style: rows of
whole jobs, cut to `committed`; what is recorded there is not done again. The n-th row of all datasets is one job.

```python
from pathlib import Path
from mocosfl_mpi.record.attacks import read_outcomes

for job in read_outcomes(Path("RUN")):
    print(job.attack, job.adversary, job.seed, job.scores, job.floors, job.reason)
```
"""


def markdown() -> str:
    """Return ``docs/file-format.md``."""
    return (
        "\n".join([_INTRODUCTION, *_tables(RUN), "", _ATTACKS.format(version=ATTACKS.version), *_tables(ATTACKS)])
        + "\n"
    )


def _tables(form: Form) -> Iterator[str]:
    yield from ("## Dimensions", "", "| dimension | scale | meaning |", "|-|-|-|")
    for dimension in form.dimensions.values():
        scale = ", ".join(f"`{label}`" for label in dimension.labels) if dimension.labels else dimension.kind
        grows = " (grows)" if dimension.growing else ""
        yield f"| `{dimension.name}`{grows} | {scale} | {dimension.long_name}{_only(dimension)} |"
    for when, title in _WHEN.items():
        entries = [entry for entry in form.entries.values() if entry.when == when]
        if entries:
            yield from ("", f"## {title}", "", "| dataset | dimensions | type | units | meaning |", "|-|-|-|-|-|")
            yield from map(_row, entries)
    if form is ATTACKS:
        yield from ("", "## Metrics", "", "Along `metric`; more or less of it says that more was learnt.", "")
        yield from ("| metric | units | more was learnt | meaning |", "|-|-|-|-|")
        words = {1: "higher", -1: "lower", 0: "–"}
        for name, metric in METRICS.items():
            yield f"| `{name}` | {metric.units} | {words[metric.more]} | {metric.long_name} |"
        yield from ("", "## Floors", "", "| floor | meaning |", "|-|-|")
        yield from (f"| `{name}` | {floor.long_name} |" for name, floor in FLOORS.items())
    yield from ("", "## Attributes of the root group", "", _ATTRIBUTES, "", "| attribute | type | meaning |", "|-|-|-|")
    for name, (kind, text) in form.attributes.items():
        yield f"| `{name}` | {'text' if kind is str else 'integer'} | {text} |"


def _row(entry: Entry) -> str:
    kind = {"text": "text", "sha256": "text, 64 characters"}.get(entry.dtype, entry.dtype)
    kind += f", {entry.width} bytes" if entry.width else ""
    dims = ", ".join(entry.dims) or "scalar"
    kind += ", gzip" if entry.compress else ""
    return f"| `{entry.name}` | {dims} | {kind} | {entry.units} | {entry.long_name}{_only(entry)} |"


def _only(kind: Dimension | Entry) -> str:
    if isinstance(kind, Entry) and kind.supervised:
        return " (only of methods that learn from labels)"
    return f" (only with `{kind.setting}`)" if kind.setting else ""
