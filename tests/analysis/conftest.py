"""The packed runs, unpacked once; the scripts can be imported as they are when one of them is started."""

from __future__ import annotations

import gzip
import lzma
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKED = Path(__file__).with_name("runs")
sys.path.insert(0, str(ROOT / "analysis"))


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
