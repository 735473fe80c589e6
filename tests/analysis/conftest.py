"""The packed runs, unpacked once."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKED = Path(__file__).with_name("runs")


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Directory with ``grid/`` (two methods, three cuts, three seeds) and every other run by its name."""
    folder = tmp_path_factory.mktemp("runs")
    for packed in PACKED.glob("*.h5.xz"):
        name = packed.name.removesuffix(".h5.xz")
        place = folder / "grid" / name if "-seed" in name else folder / name
        place.mkdir(parents=True)
        (place / "run.h5").write_bytes(lzma.decompress(packed.read_bytes()))
    (folder / "old").mkdir()
    old = ROOT / "tests/unit/record/run-1.0.h5.gz"
    (folder / "old/run.h5").write_bytes(gzip.decompress(old.read_bytes()))
    return folder
