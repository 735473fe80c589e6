"""A rank ends when it has heard nothing for as long as was said, and not before."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mocosfl_mpi.comm.patience import PATIENCE, patience
from mocosfl_mpi.errors import BadInput

CODE = """
import time
from mocosfl_mpi.comm.patience import Watch
watch = Watch(0.6, 3, "node7")
for _ in range({heard}):
    time.sleep(0.2)
    watch.heard()
{then}
print("alive")
"""


def test_unset_means_no_limit(monkeypatch):
    monkeypatch.delenv(PATIENCE, raising=False)
    assert patience() is None


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan"])
def test_refusals(monkeypatch, text):
    monkeypatch.setenv(PATIENCE, text)
    with pytest.raises(BadInput, match=PATIENCE):
        patience()


def run(heard, then):
    code = CODE.format(heard=heard, then=then)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_silence_ends_the_process():
    done = run(0, "time.sleep(30)")
    assert done.returncode == 1
    assert "rank 3 on node7: no word from the other ranks for 0.6 s" in done.stderr


def test_stopped_before_the_end():
    done = run(2, "watch.stop(); time.sleep(1.2)")
    assert (done.returncode, done.stdout.strip()) == (0, "alive")
