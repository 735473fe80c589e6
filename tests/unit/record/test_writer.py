"""Writing: round trip, refusals, dimension scales, kill -9, a live reader."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from mocosfl_mpi.config import parse
from mocosfl_mpi.errors import BadInput, RunFailed
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.schema import ATTRIBUTES, DIMENSIONS, ENTRIES, GROWING
from tests.unit.record.samples import CONFIG, SIZES, STATE, create, fixed, row

ROOT = Path(__file__).parents[3]


def filled(path: Path, rows: int = 3) -> None:
    with create(path) as recorder:
        for number in range(rows):
            for dim in GROWING:
                recorder.append(dim, row(dim, number))
            if number % 2:
                recorder.flush()
        recorder.put("result/knn_top1", 71.5)
        recorder.complete(STATE)


@functools.cache
def expected(dim: str, number: int) -> dict:
    return row(dim, number)


def check_rows(run, at_least: int = 0) -> None:
    for name, entry in ENTRIES.items():
        if entry.growing:
            values = run[name]
            assert len(values) == run.rows[entry.growing] >= at_least
            for number in {0, len(values) // 2, len(values) - 1} & set(range(len(values))):
                np.testing.assert_array_equal(values[number], expected(entry.growing, number)[name], err_msg=name)


def test_round_trip(tmp_path):
    filled(tmp_path / "run.h5")
    with open_run(tmp_path) as run:
        assert run.rows == dict.fromkeys(GROWING, 3)
        check_rows(run)
        for name, value in fixed(SIZES).items():
            assert run[name].tolist() == np.asarray(value).tolist(), name
        assert run.completed
        assert run.state_sha256 == STATE
        assert run.result("knn_top1") == 71.5
        assert run.result("linear_top1") is None
        assert run["class"].tolist() == SIZES["class"]
        assert run["step"].tolist() == [0, 1, 2]
        assert run.attrs["notes"] == ["an unofficial file"]
        assert set(run.attrs) == set(ATTRIBUTES)
    assert not list(tmp_path.glob("*.part"))


def test_large_rows_are_compressed_and_come_back(tmp_path):
    sizes = {"member": 300, "layer": [f"layer{i}" for i in range(20)]}
    with create(tmp_path / "run.h5", sizes) as recorder:
        for number in range(3):
            recorder.append("sync", row("sync", number, sizes))
            recorder.flush()
        assert recorder._file["divergence/online_mean"].compression == "gzip"
    with open_run(tmp_path) as run:
        for number in range(3):
            wanted = row("sync", number, sizes)["divergence/online_mean"].astype("f4")
            np.testing.assert_array_equal(run["divergence/online_mean"][number], wanted)


def test_every_dataset_has_unit_name_and_scales(tmp_path):
    filled(tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5") as file:
        for name, entry in ENTRIES.items():
            dataset = file[name]
            assert dataset.attrs["units"] == entry.units
            assert dataset.attrs["long_name"] == entry.long_name
            assert [dataset.dims[axis][0].name for axis in range(dataset.ndim)] == [f"/{dim}" for dim in entry.dims]
        for name, dimension in DIMENSIONS.items():
            assert file[name].is_scale
            assert file[name].dtype.kind == {"number": "i", "share": "f"}.get(dimension.kind, "S")
            assert file[name].attrs["long_name"] == dimension.long_name


def test_xarray_reads_names_and_coordinates(tmp_path):
    import xarray

    filled(tmp_path / "run.h5")
    with xarray.open_datatree(tmp_path / "run.h5", engine="h5netcdf") as tree:
        spent = tree["simulated/bytes"].sel(message=b"query_up")
        assert spent.dims == ("epoch", "member")
        assert spent.shape == (3, 4)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda r: r.append("step", {"steps/loss": 1.0}), KeyError),
        (lambda r: r.append("step", {**row("step", 0), "steps/los": 1.0}), KeyError),
        (lambda r: r.append("client", {}), KeyError),
        (lambda r: r.append("epoch", {**row("epoch", 0), "epochs/clients": [1, 2]}), ValueError),
        (lambda r: r.append("epoch", {**row("epoch", 0), "epochs/clients": [0.5] * 4}), ValueError),
        (lambda r: r.put("result/knn", 1.0), KeyError),
        (lambda r: r.put("steps/loss", 1.0), KeyError),
        (lambda r: r.complete("short"), ValueError),
    ],
)
def test_programmer_errors(tmp_path, call, error):
    with create(tmp_path / "run.h5") as recorder, pytest.raises(error):
        call(recorder)


@pytest.mark.parametrize("wrong", [{"member": 0}, {"layer": []}, {"message": 3}])
def test_impossible_sizes_leave_nothing_behind(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        create(tmp_path / "run.h5", wrong)
    assert not list(tmp_path.iterdir())


def test_unknown_attribute_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="colour"):
        create(tmp_path / "run.h5", colour="red")
    assert not list(tmp_path.iterdir())


def test_results_are_never_overwritten(tmp_path):
    filled(tmp_path / "run.h5")
    before = (tmp_path / "run.h5").read_bytes()
    with pytest.raises(BadInput, match="never overwritten"):
        create(tmp_path / "run.h5")
    assert (tmp_path / "run.h5").read_bytes() == before


def test_an_exception_inside_keeps_the_rows_and_itself(tmp_path):
    def fail() -> None:
        with create(tmp_path / "run.h5") as recorder:
            recorder.append("step", row("step", 0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with open_run(tmp_path) as run:
        assert run.rows["step"] == 1
        assert not run.completed
        assert run.state_sha256 is None


def test_closed_recorder_refuses(tmp_path):
    recorder = create(tmp_path / "run.h5")
    recorder.close()
    recorder.close()
    recorder.append("step", row("step", 0))
    with pytest.raises(RunFailed):
        recorder.flush()


# ------------------------------------------------------------------------------------------- other processes

WRITER = """
import sys
from pathlib import Path
from tests.unit.record.samples import create, row
recorder = create(Path(sys.argv[1]))
for number in range(10**6):
    for dim in ("step", "sync", "epoch", "evaluation", "session"):
        recorder.append(dim, row(dim, number))
    recorder.flush()
    print(number + 1, flush=True)
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
    )  # fmt: skip


def test_kill_at_random_moments_keeps_every_flushed_row(tmp_path):
    moments = random.Random(1)
    for trial in range(10):
        path = tmp_path / f"{trial}.h5"
        writer = start(WRITER, str(path))
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.3))
        writer.send_signal(signal.SIGKILL)
        said, _ = writer.communicate()
        flushed = int(said.splitlines()[-1]) if said.endswith("\n") else 1
        with open_run(path) as run:
            assert set(run.rows.values()) <= {flushed, flushed + 1}
            check_rows(run, at_least=flushed)
            assert not run.completed


def test_reader_follows_a_live_writer(tmp_path):
    writer = start(WRITER, str(tmp_path / "run.h5"))
    assert writer.stdout is not None
    try:
        writer.stdout.readline()
        seen = []
        with open_run(tmp_path) as run:
            for _ in range(10):
                run.refresh()
                seen.append(run.rows["step"])
                check_rows(run, at_least=1)
        assert seen == sorted(seen)
        assert seen[-1] > seen[0]
    finally:
        writer.kill()
        writer.communicate()


FULL = """
import resource, sys
from pathlib import Path
from mocosfl_mpi.errors import RunFailed
from tests.unit.record.samples import create, row
limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sizes = {"member": 60}
flushed = 0
try:
    with create(Path(sys.argv[1]), sizes) as recorder:
        for number in range(10**6):
            recorder.append("sync", row("sync", number, sizes))
            recorder.flush()
            flushed += 1
except RunFailed as error:
    print(flushed, error)
    sys.exit(error.exit_code)
"""


def check_full(writer: subprocess.Popen[str], path: Path, reason: str) -> None:
    said, errors = writer.communicate(timeout=60)
    assert writer.returncode == 1, errors
    assert not errors
    flushed, message = said.split(" ", 1)
    assert reason in message
    assert str(path) in message
    if int(flushed):
        with open_run(path) as run:
            assert run.rows["sync"] == int(flushed)
            np.testing.assert_array_equal(
                run["divergence/online_mean"][-1],
                row("sync", int(flushed) - 1, {"member": 60})["divergence/online_mean"].astype("f4"),
            )


@pytest.mark.parametrize("limit", [20_000, 300_000, 401_000, 700_001])
def test_limit_on_file_sizes_is_one_message(tmp_path, limit):
    path = tmp_path / "run.h5"
    check_full(start(FULL, str(path), str(limit)), path, "limit on file sizes")


@pytest.mark.parametrize("size", ["16k", "400k", "500k", "900k"])
def test_full_disk_is_one_message(tmp_path, size):
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        check_full(start(FULL, str(mount / "run.h5"), "0"), mount / "run.h5", "disk is full")
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_what_a_run_does_not_ask_for_is_not_in_its_file(tmp_path):
    asked = {"label_shares": [0.25], "per_client": True}
    for evaluation, dims, wanted in (
        ({}, set(), set()),
        (asked, {"label_share"}, {"few_labels_top1", "client_knn_top1", "personalised_top1"}),
        ({"published_probe": True}, set(), {"published_linear_top1", "published_linear_last_top1"}),
    ):
        path = tmp_path / f"{len(wanted)}.h5"
        with create(path, config=parse({**CONFIG, "evaluation": evaluation}, "test")) as recorder:
            for name in wanted:
                value = np.arange(len(recorder._file["label_share"]) if name.startswith("few") else SIZES["client"])
                recorder.put(f"result/{name}", value if dims else 12.5)
            with pytest.raises(KeyError, match="does not ask for it"):
                recorder.put("result/fine_tuned_top1", 50.0)
        with open_run(path) as run, h5py.File(path) as file:
            there = set(run.names) & {e.name for e in ENTRIES.values() if e.setting and e.when == "result"}
            assert there == {f"result/{name}{end}" for name in wanted for end in ("", "_untrained")}
            assert set(file) & {"label_share"} == dims
            assert all(name in file for name in run.names)
            assert not [name for name in ENTRIES if name in file and name not in run.names]
            assert set(run.summary()["further"]) == {name.removeprefix("result/") for name in there}
            if dims:
                assert run["label_share"].tolist() == [0.25]
                assert run["result/client_knn_top1"].tolist() == list(range(SIZES["client"]))
                assert np.isnan(run["result/personalised_top1_untrained"]).all()
