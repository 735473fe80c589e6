"""Rows carried into a fresh file, a killed run's file mended, a file of schema 1.0 still readable."""

import gzip
import hashlib
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from mocosfl_mpi.errors import BadInput, RunFailed
from mocosfl_mpi.record import carry as module
from mocosfl_mpi.record.carry import recover
from mocosfl_mpi.record.layout import encode
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.schema import GROWING, SCHEMA_VERSION
from tests.unit.record.samples import PRESENT, SIZES, STATE, create, row

ROWS = {"step": 5, "sync": 2, "epoch": 1, "evaluation": 2, "session": 1}
OLD = Path(__file__).with_name("run-1.0.h5.gz")


@pytest.fixture
def killed(tmp_path):
    """The file of a run that was never closed."""
    with create(tmp_path / "first.h5") as recorder:
        for dim, count in ROWS.items():
            for number in range(count):
                recorder.append(dim, row(dim, number))
        recorder.put("result/knn_top1_untrained", 12.5)
        recorder.flush()
        shutil.copy(tmp_path / "first.h5", tmp_path / "run.h5")
    return tmp_path / "run.h5"


def go_on(path, rows, **sizes):
    with open_run(path) as run:
        sizes = SIZES | sizes
        return create(path, sizes, earlier=(run, rows))


def test_a_run_goes_on_in_a_wider_file_without_a_gap_or_a_double_row(killed, monkeypatch):
    monkeypatch.setattr(module, "SLAB", 64)  # so that rows travel in several slabs
    rows = ROWS | {"step": 3, "epoch": 0}
    with go_on(killed, rows, rank=4) as recorder:
        for number in range(3, 6):
            recorder.append("step", row("step", number))
        recorder.append("epoch", row("epoch", 0, {"rank": 4}))
        recorder.complete(STATE)
    with open_run(killed) as run:
        assert run.completed
        assert run.rows == ROWS | {"step": 6}
        assert run["step"].tolist() == list(range(6))
        for name, entry in PRESENT.items():
            if entry.growing and "rank" not in entry.dims:
                for number in range(run.rows[entry.growing]):
                    assert np.array_equal(run[name][number], row(entry.growing, number)[name]), name
        assert run["measured/seconds"].shape == (1, 4, 2)
        assert run.result("knn_top1_untrained") == 12.5


def test_ranks_that_were_not_there_have_no_numbers(killed):
    with go_on(killed, ROWS, rank=4):
        pass
    with open_run(killed) as run:
        seconds = run["measured/seconds"]
        assert np.array_equal(seconds[0, :2], row("epoch", 0)["measured/seconds"])
        assert np.isnan(seconds[0, 2:]).all()


def test_a_failed_continuation_leaves_the_old_file(killed, monkeypatch):
    before = hashlib.sha256(killed.read_bytes()).hexdigest()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mocosfl_mpi.record.writer.carry", full)
    with pytest.raises(RunFailed, match="disk is full"):
        go_on(killed, ROWS)
    assert hashlib.sha256(killed.read_bytes()).hexdigest() == before
    assert not killed.with_name("run.h5.part").exists()


def test_recover_makes_a_clean_closed_file(killed):
    with open_run(killed) as run:
        before = {name: run[name] for name in PRESENT}
        attributes = run.attrs
    with pytest.raises(OSError, match=r"SWMR|already open|consistency"):
        h5py.File(killed, "r")
    assert recover(killed) == ROWS
    with h5py.File(killed, "r"):
        pass
    with open_run(killed) as run:
        assert run.attrs == attributes
        assert not run.completed
        for name, values in before.items():
            assert np.array_equal(run[name], values, equal_nan=values.dtype.kind == "f"), name
    assert recover(killed) == ROWS, "once more changes nothing"


def test_recover_without_room_leaves_the_file(killed, monkeypatch):
    before = killed.read_bytes()
    monkeypatch.setattr(module, "carry", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RunFailed, match=r"No space left.*is as it was"):
        recover(killed)
    assert killed.read_bytes() == before
    assert [path.name for path in killed.parent.glob("run*")] == ["run.h5"]


def test_a_file_of_schema_1_0_opens_and_can_be_brought_up_to_date(tmp_path):
    path = tmp_path / "run.h5"
    path.write_bytes(gzip.decompress(OLD.read_bytes()))
    with open_run(path) as run:
        assert run.attrs["schema_version"] == "1.0"
        assert set(run.rows) == set(GROWING) - {"session"}
        assert run.summary()["completed"]
        state = run.state_sha256
        with pytest.raises(KeyError):
            run["sessions/step"]
    recover(path)
    with open_run(path) as run:
        assert run.attrs["schema_version"] == SCHEMA_VERSION
        assert (run.state_sha256, run.rows["session"], run.rows["step"]) == (state, 0, 8)


def test_recover_of_impossible_shares_is_bad_input(killed):
    recover(killed)
    with h5py.File(killed, "r+") as file:
        file.attrs["config"] = encode(['{"evaluation": {"label_shares": ["a", "b"]}}'])[0]
    with pytest.raises(BadInput, match="damaged"):
        recover(killed)


def test_recover_of_nothing(tmp_path):
    with pytest.raises(BadInput, match="no run at"):
        recover(tmp_path)
