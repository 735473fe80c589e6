"""The table itself, and the page made from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mocosfl_mpi.record.schema import DIMENSIONS, ENTRIES, GROWING

ROOT = Path(__file__).parents[3]


def test_documentation_is_the_output_of_the_schema():
    command = [sys.executable, "-m", "mocosfl_mpi.record.schema"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert printed == (ROOT / "docs/file-format.md").read_text(encoding="utf-8"), " ".join(command)


def test_entries_use_known_dimensions_and_grow_along_the_first():
    for entry in ENTRIES.values():
        assert set(entry.dims) <= set(DIMENSIONS)
        assert not set(entry.dims[1:]) & set(GROWING)
        assert (entry.when == "row") == (entry.growing is not None)
        assert entry.units in {"1", "byte", "flop", "mac", "s", "%"}
        assert entry.long_name


def test_groups_and_scales_have_different_names():
    # h5netcdf finds a dimension only by its name in the group or above it.
    assert not {name.split("/")[0] for name in ENTRIES} & set(DIMENSIONS)
