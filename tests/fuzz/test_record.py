"""Damaged runs: a good read or BadInput; never a crash of the HDF5 library, never a hang, never a traceback."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mocosfl_mpi.config import Config
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.layout import encode
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.schema import DIMENSIONS, ENTRIES
from tests.fuzz.mutations import mutations
from tests.fuzz.reader import read_everything
from tests.mpi.command import MOCOSFL, clean_environment, mocosfl

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TIMEOUT = 60
"""Seconds for one file; reading a sound one takes a tenth of one."""
CASES_PER_PROCESS = 100


class Reader:
    """A process that reads; a new one after each crash, hang, or hundred cases."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._process: subprocess.Popen | None = None
        self._cases = 0
        self.answers = {"good": 0, "bad input": 0}

    def read(self, changes: list[tuple]) -> str:
        if self._process is None or self._cases >= CASES_PER_PROCESS:
            self.close()
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.fuzz.reader",
                    str(self._source),
                    str(self._source.with_suffix(".damaged")),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            self._cases = 0
        self._cases += 1
        process = self._process
        line = [[item.hex() if isinstance(item, bytes) else item for item in change] for change in changes]
        process.stdin.write(json.dumps(line) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], TIMEOUT)
        said = process.stdout.readline() if ready else ""
        if said:
            answer = json.loads(said)
            self.answers[answer] = self.answers.get(answer, 0) + 1
            return answer
        if ready:
            process.wait()
        code, errors = process.poll(), ""
        if code is None:
            process.kill()
        _, errors = process.communicate()
        self._process = None
        return f"a hang of more than {TIMEOUT} s" if code is None else f"a crash ({code}): {errors[-2000:]}"

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None


def finished(out: Path) -> None:
    settings = ("label_shares=[0.1, 1.0]", "published_probe=true", "fine_tune_share=0.2", "per_client=true")
    words = (word for setting in (*settings, "fine_tune_epochs=1") for word in ("--set", f"evaluation.{setting}"))
    done = mocosfl("run", "smoke", "--out", out, "--quiet", *words)
    assert done.returncode == 0, done.stderr


def killed(out: Path) -> None:
    """Killed in its third epoch or later: HDF5 still takes the file for one that is being written."""
    words = [*MOCOSFL, "run", "smoke", "--set", "epochs=10000", "--out", str(out), "--quiet"]
    process = subprocess.Popen(words, env=clean_environment())
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            time.sleep(0.05)
            with contextlib.suppress(BadInput), open_run(out) as run:
                if run.rows["epoch"] >= 2:
                    break
    finally:
        process.kill()
        process.wait()
    with pytest.raises(OSError, match="already open for write"):
        h5py.File(out / "run.h5", "r")


@pytest.fixture(scope="module", params=[finished, killed], ids=["finished", "killed"])
def reader(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("real") / "run"
    request.param(out)
    reader = Reader(out / "run.h5")
    assert reader.read([]) == "good"
    yield reader
    reader.close()
    assert min(reader.answers["good"], reader.answers["bad input"]) > 10, reader.answers


SIZE = 400_000


@given(mutations(SIZE, hot=40_000, longest=4096))
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
def test_damaged_runs(reader, changes):
    assert reader.read(changes) in ("good", "bad input")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
SECTIONS = st.dictionaries(
    st.sampled_from([*Config.model_fields, "cut_layer", "batch_size", "sync_freq"]), JSON, max_size=4
)
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 3),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1.0, 2.0**62]),
)
ATTRIBUTES = st.one_of(
    st.tuples(st.just("config"), st.one_of(JSON, SECTIONS).map(json.dumps)),
    st.tuples(st.sampled_from(["notes", "versions"]), JSON.map(json.dumps)),
    st.tuples(st.sampled_from(["method", "preset", "date", "host", "launcher"]), st.text(max_size=30)),
    st.tuples(st.sampled_from(["ranks", "seed", "server_threads"]), st.integers(-(2**63), 2**63 - 1)),
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    out = tmp_path_factory.mktemp("sound") / "run"
    finished(out)
    return out / "run.h5"


@given(
    values=st.lists(
        st.tuples(
            st.sampled_from([*DIMENSIONS, *ENTRIES]), st.integers(0, 10**6), st.one_of(NUMBERS, st.binary(max_size=9))
        ),
        max_size=4,
    ),
    attributes=st.lists(ATTRIBUTES, max_size=2),
)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_whole_files_with_impossible_values(sound, values, attributes):
    """Checksums agree, so HDF5 notices nothing: what is written is nonsense. Most are read whole, hence fewer cases."""
    path = sound.with_name("changed.h5")
    shutil.copy(sound, path)
    with h5py.File(path, "r+") as file:
        for name, place, value in values:
            if name not in file:
                continue
            dataset = file[name]
            flat = np.array(dataset[()], dtype=dataset.dtype).reshape(-1)
            if flat.size and isinstance(value, bytes) == (flat.dtype.kind == "S"):
                with np.errstate(all="ignore"), contextlib.suppress(ValueError, OverflowError):
                    flat[place % flat.size] = value
                    dataset[...] = flat.reshape(dataset.shape)
        for name, value in attributes:
            file.attrs[name] = encode([value])[0] if isinstance(value, str) else value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of numpy, about infinities
        try:
            read_everything(path)
        except BadInput:
            return
