"""All checks in order, and their report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from rich.text import Text

from mocosfl_mpi.data.check import DOWNLOADABLE
from mocosfl_mpi.doctor import mpi, processor, software, storage
from mocosfl_mpi.doctor.finding import Check, Finding, Patient, failure

CHECKS: Mapping[str, Check] = {
    "shared memory": processor.shared_memory,  # first: the MPI checks use it
    "MPI library": mpi.library,
    "MPI launcher": mpi.launcher,
    "two ranks": mpi.ranks_start,
    "your ranks": mpi.slots,
    "CPU binding": mpi.binding,
    "threads": processor.threads,
    "limits": processor.limits,
    "kernels": software.kernels,
    "GPU": software.accelerator,
    "versions": software.versions,
    "output": storage.space,
    "file locks": storage.locking,
    "live reading": storage.reading_while_writing,
    **{f"data: {source}": partial(storage.data_set, source) for source in DOWNLOADABLE},
}
_STYLES = {"ok": ("OK", "green"), "warning": ("warning", "yellow"), "failure": ("FAILURE", "bold red")}


def examine(patient: Patient, checks: Mapping[str, Check] | None = None) -> Iterator[tuple[str, Finding]]:
    """Name and finding of every check; a check that fails itself is a failure, never a traceback."""
    for name, check in (CHECKS if checks is None else checks).items():
        try:
            yield name, check(patient)
        except Exception as error:
            text = f"the check itself failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            yield name, failure(text, "report it, with this line")


def line(name: str, finding: Finding) -> Text:
    """The finding for a person, in one line."""
    word, style = _STYLES[finding.status]
    text = Text.assemble((f"{word:8}", style), f"{name}: {' '.join(finding.text.split())}")
    return text.append(f"; to mend: {finding.mend}") if finding.mend else text
