"""Reading: foreign, cut, damaged and hostile files are one message; summaries and differences."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from mocosfl_mpi.config import apply_settings, parse
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record import integrity
from mocosfl_mpi.record.figures import size
from mocosfl_mpi.record.layout import encode
from mocosfl_mpi.record.output import prepare_output
from mocosfl_mpi.record.reader import differences, open_run
from mocosfl_mpi.record.schema import MESSAGES, SCHEMA_VERSION
from mocosfl_mpi.record.show import render
from tests.unit.record.samples import CONFIG, PRESENT, SIZES, STATE, create, row

ROOT = Path(__file__).parents[3]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    path = tmp_path / "a" / "run.h5"
    path.parent.mkdir()
    write(path)
    return path


def write(path: Path, state: str | None = STATE, rows: int = 2, **changes: object) -> None:
    with create(path, **changes) as recorder:
        for number in range(rows):
            for dim in ("step", "sync", "epoch", "evaluation", "session"):
                recorder.append(dim, row(dim, number))
        if state:
            recorder.put("result/knn_top1", 55.0)
            recorder.put("result/knn_top1_untrained", 40.0)
            recorder.put("result/knn_top1_pixels", 60.0)
            recorder.complete(state)


# ----------------------------------------------------------------------------------------------- bad files


def test_missing_run(tmp_path):
    with pytest.raises(BadInput, match=r"no run at .*nothing"):
        open_run(tmp_path / "nothing")
    with pytest.raises(BadInput, match=r"run\.h5"):
        open_run(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a result", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(5000)])
def test_not_hdf5(tmp_path, content):
    (tmp_path / "run.h5").write_bytes(content)
    with pytest.raises(BadInput, match=r"run\.h5"):
        open_run(tmp_path)


def test_another_hdf5_file(tmp_path):
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["x"] = [1, 2]
    with pytest.raises(BadInput, match="'schema' is missing"):
        open_run(tmp_path)


def test_schema_versions(tmp_path, finished):
    for version in ("2.0", "0.9", "", "x"):
        with h5py.File(finished, "r+") as file:
            file.attrs["schema_version"] = text(version)
        with pytest.raises(BadInput, match="schema version"):
            open_run(finished)
    with h5py.File(finished, "r+") as file:
        file.attrs["schema_version"] = text("1.7")
    open_run(finished).close()


def text(value: str) -> np.ndarray:
    return encode([value])[0]


def edit(name):
    def delete(file):
        del file[name]

    return delete


def replace(name, make):
    def act(file):
        del file[name]
        make(file)

    return act


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (edit("epochs/loss"), "epochs/loss is missing"),
        (edit("result"), "result.* is missing"),
        (edit("member"), "member is missing"),
        (edit("result/few_labels_top1"), "few_labels_top1 is missing"),
        (
            lambda f: f.attrs.__setitem__("config", text('{"evaluation": {"label_shares": [0.5]}}')),
            "label_share has shape",
        ),
        (
            lambda f: f.attrs.__setitem__("config", text('{"evaluation": {"label_shares": "1"}}')),
            "label_share has shape",
        ),
        (lambda f: f.attrs.pop("config"), "'config' is missing"),
        (lambda f: f.attrs.__setitem__("config", text("{" * 10)), "damaged"),
        (lambda f: f.attrs.__setitem__("config", text("[" * 10**5)), "nested too deeply"),
        (lambda f: f.attrs.__setitem__("config", text("[]")), "no JSON dict"),
        (lambda f: f.attrs.__setitem__("ranks", "two"), "no integer"),
        (lambda f: f.attrs.__setitem__("host", [1.0, 2.0]), "odd"),
        (lambda f: f["committed"].__setitem__(0, 99), "rows instead of 99"),
        (lambda f: f["committed"].__setitem__(0, -1), "rows instead of -1"),
        (replace("result/knn_top1", lambda f: f.create_dataset("result/knn_top1", data="x")), "has type"),
        (replace("result/knn_top1", lambda f: f.create_dataset("result/knn_top1", data=[1.0])), "axes"),
        (replace("result/knn_top1", lambda f: f.create_group("result/knn_top1")), "no dataset"),
        (replace("cost/client_memory", lambda f: f.create_dataset("cost/client_memory", data=[1])), "long along"),
        (
            replace("result/knn_top1", lambda f: f.__setitem__("result/knn_top1", h5py.ExternalLink("/etc/x", "y"))),
            "link elsewhere",
        ),
        (
            replace("member", lambda f: f.create_dataset("member", (4,), "i8", external=[("/etc/passwd", 0, 32)])),
            "another file",
        ),
        (
            replace("series", lambda f: f.create_dataset("series", data=np.array([b"step"] * 5))),
            "other labels",
        ),
        (
            replace("step", lambda f: f.create_dataset("step", (2,), "i8", chunks=(1 << 27,), maxshape=(None,))),
            "chunks of",
        ),
        (
            replace("step", lambda f: f.create_dataset("step", (2,), "i8", chunks=(9,), maxshape=(None,))),
            "the file was",
        ),
    ],
)
def test_changed_files(finished, change, reason):
    with h5py.File(finished, "r+") as file:
        change(file)
    with pytest.raises(BadInput, match=reason):
        open_run(finished)


def test_hostile_size_is_refused_before_memory_is_taken(finished, monkeypatch):
    with h5py.File(finished, "r+") as file:
        for name, entry in PRESENT.items():
            if entry.growing == "step":
                file[name].resize(10**14, axis=0)
        file["step"].resize(10**14, axis=0)
        file["committed"][0] = 10**14
    with pytest.raises(BadInput, match="the file was cut"):
        open_run(finished)
    write(finished.with_name("b.h5"))
    monkeypatch.setattr("mocosfl_mpi.record.reader.LARGEST_READ", 10)
    with open_run(finished.with_name("b.h5")) as run, pytest.raises(BadInput, match="in parts"):
        run["steps/loss"]
    assert integrity.LARGEST_READ == 2 << 30


DAMAGE = """
import random, sys
from pathlib import Path
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.show import render
from rich.console import Console
source, target, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
content, draw, refused = source.read_bytes(), random.Random(5), 0
for trial in range(int(sys.argv[4])):
    damaged = bytearray(content)
    if kind == "cut":
        del damaged[draw.randrange(len(content)):]
    else:
        for _ in range(draw.choice((1, 3, 30, 300))):
            damaged[draw.randrange(len(content) if draw.random() < 0.5 else 20000)] = draw.randrange(256)
    target.write_bytes(damaged)
    print(trial, file=sys.stderr, flush=True)
    try:
        with open_run(target) as run, open("/dev/null", "w") as nowhere:
            Console(file=nowhere).print(render(run))
    except BadInput:
        refused += 1
print(refused)
"""


@pytest.mark.parametrize(("kind", "state"), [("cut", STATE), ("cut", None), ("flip", STATE), ("flip", None)])
def test_damaged_files_never_give_a_traceback(tmp_path, kind, state):
    write(tmp_path / "run.h5", state)
    command = [sys.executable, "-c", DAMAGE, str(tmp_path / "run.h5"), str(tmp_path / "damaged.h5"), kind, "30"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= (27 if kind == "cut" else 1)


# ------------------------------------------------------------------------------------- summary, difference


def test_summary_numbers(finished):
    with open_run(finished) as run:
        summary = json.loads(json.dumps(run.summary(), allow_nan=False))
        simulated = run["simulated/bytes"].sum(axis=(0, 1))
        seconds = run["measured/seconds"].sum(axis=0)
        distance = run["after_sync/online_momentum_distance"][-1].mean()
        norms = run["divergence/online_mean"][-1].astype(float).sum(axis=1).mean()
    assert summary["completed"] is True
    assert summary["state_sha256"] == STATE
    assert summary["config_hash"] == parse(CONFIG, "test").hash()
    assert (summary["method"], summary["ranks"], summary["schema_version"]) == (CONFIG["method"], 2, SCHEMA_VERSION)
    assert (summary["epochs"], summary["epochs_planned"], summary["steps"], summary["syncs"]) == (2, 3, 2, 2)
    assert summary["knn_top1"] == 55.0
    assert summary["linear_top1"] is None
    assert summary["bytes_per_client"] == {k: v / SIZES["client"] for k, v in zip(MESSAGES, simulated, strict=True)}
    assert summary["seconds"]["server"] == seconds[:, 1].max()
    assert summary["seconds_mean"]["server"] == seconds[:, 1].mean()
    assert math.isclose(summary["online_momentum_distance"], distance)
    assert math.isclose(summary["divergence_online_mean"], norms)
    assert any("below raw pixels" in line for line in summary["warnings"])


def test_further_measures_are_summarised_and_shown(tmp_path):
    with create(tmp_path / "run.h5") as recorder:
        recorder.put("result/few_labels_top1", [20.0, 45.5])
        recorder.put("result/few_labels_top1_untrained", [10.0, 15.0])
        recorder.put("result/fine_tuned_top1", 66.25)
        recorder.put("result/client_knn_top1", [10.0, math.nan, 20.0, 30.0, 40.0, 50.0])
    with open_run(tmp_path) as run:
        found = json.loads(json.dumps(run.summary(), allow_nan=False))["further"]
        shown = printed(run)
    assert found["few_labels_top1"] == {"0.01": 20.0, "0.1": 45.5}
    assert found["fine_tuned_top1"] == 66.25
    assert found["fine_tuned_top1_untrained"] is None
    assert found["client_knn_top1"] == {
        "mean": 30.0, "std": pytest.approx(math.sqrt(250.0)), "lowest": 10.0, "highest": 50.0, "clients": 5
    }  # fmt: skip
    assert found["personalised_top1"] == dict.fromkeys(("mean", "std", "lowest", "highest")) | {"clients": 0}
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for line in (
        "linear probe, 10 % of the labels 45.5 15.0 +30.5",
        "whole encoder fine-tuned, 50 % of the labels 66.2 – –",
        "kNN, each client's classes, mean 30.0 – –",
        "kNN, each client's classes: 10.0 to 50.0 over 5 clients.",
        "kNN on svhn – – –",
    ):
        assert line in lines, shown


def test_labels_of_other_minor_versions(finished):
    with h5py.File(finished, "r+") as file:
        file["message"][0] = b"smoke_signal"
    with open_run(finished) as run:
        assert "smoke_signal" in run.summary()["bytes_per_client"]
        assert "smoke_signal" in printed(run)


def test_attributes_of_variable_length_are_refused(finished):
    with h5py.File(finished, "r+") as file:
        file.attrs["host"] = "a text of variable length"
    with pytest.raises(BadInput, match="'host' is no text of fixed length"):
        open_run(finished)


def test_summary_before_the_first_row(tmp_path):
    with create(tmp_path / "run.h5") as recorder, open_run(tmp_path) as run:
        assert recorder is not None
        summary = json.loads(json.dumps(run.summary(), allow_nan=False))
        shown = printed(run)
    assert summary["loss"] is None
    assert summary["last_evaluation"] is None
    assert summary["completed"] is False
    assert "has not reached its end" in shown


def printed(run) -> str:
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(render(run))
    return console.export_text()


def test_show_explains_itself_and_is_not_fooled_by_control_sequences(finished):
    with h5py.File(finished, "r+") as file:
        file.attrs["preset"] = text("[red]\x1b]0;title\x07evil")
    with open_run(finished) as run:
        shown = printed(run)
    assert "[red]?]0;title?evil" in shown
    assert "\x1b" not in shown
    for words in ("Test accuracy in %", "55.0", "+15.0", "60.0", "query data up", "peak memory", "an unofficial file"):
        assert words in shown
    assert str(finished) in shown.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["method=mocosfl"], "mocosfl: online models are averaged, 10 times"),
        (["method=monacosfl"], "monacosfl: online and momentum models are averaged, 10 times"),
        (["method=monacosfl", "federation.alignment=none"], "monacosfl: no models are averaged; seed"),
        (
            ["federation.alignment=momentum_reset", "federation.aligned_layers=['stem']"],
            "mocosfl: online models are averaged, momentum models reset to their mean, layers stem only, 10 times",
        ),
        (
            ["method=monacosfl", "federation.momentum_every=4", "federation.momentum_compression=int8"],
            "are averaged, momentum one time in 4, momentum sent by int8, 10 times",
        ),
        (["client.sampling=round_robin", "client.sampling_ratio=0.5"], "take part in an epoch (round_robin)"),
    ],
)
def test_show_says_what_was_aligned_and_who_took_part(tmp_path, settings, words):
    with create(tmp_path / "run.h5", config=parse(apply_settings({}, settings), "test")), open_run(tmp_path) as run:
        assert words in " ".join(printed(run).split())


@pytest.mark.parametrize(("backbone", "counted"), [("resnet34", True), ("resnet50", False), ("vit", False)])
def test_layers_are_those_of_the_papers_where_these_count(tmp_path, backbone, counted):
    config = parse({**CONFIG, "method": "mocosfl", "model": {"backbone": backbone, "cut_layer": 3}}, "test")
    with create(tmp_path / "run.h5", config=config), open_run(tmp_path) as run:
        shown = printed(run)
    assert f"{backbone}, width 64, first 3 layer(s)" in shown
    assert ("5 as the papers count" in shown) == counted


def test_size_units():
    assert [size(n) for n in (0, 1023, 1536, 3 << 20, 5 << 30)] == ["0 B", "1023 B", "1.5 KiB", "3.0 MiB", "5.0 GiB"]


@pytest.mark.parametrize(("method", "named"), [("mocosfl", True), ("sfl_v2", False)])
def test_collapse_is_named_where_there_is_no_classifier(tmp_path, method, named):
    config = parse({**CONFIG, "client": {"count": 6, "sampling_ratio": 0.7}, "method": method}, "test")
    with create(tmp_path / "run.h5", config=config) as recorder:
        recorder.append("evaluation", {**row("evaluation", 0, None, config), "evaluations/feature_std": 0.1})
    with open_run(tmp_path) as run:
        assert any("collapsed" in line for line in run.summary()["warnings"]) == named


def test_differences(tmp_path, finished):
    other = {name: tmp_path / f"{name}.h5" for name in ("same", "seed", "state", "unfinished")}
    write(other["same"])
    write(other["seed"], config=parse({**CONFIG, "client": {**CONFIG["client"], "lr": 0.5}}, "test"))
    write(other["state"], state="f" * 64)
    write(other["unfinished"], state=None)

    def differ(name: str) -> str | None:
        with open_run(finished) as a, open_run(other[name]) as b:
            return differences(a, b)

    assert differ("same") is None
    assert differ("seed") == "client.lr: 0.06 in the first run, 0.5 in the second"
    assert "state_sha256" in (differ("state") or "")
    assert "not completed" in (differ("unfinished") or "")
    with open_run(other["unfinished"]) as a, open_run(other["unfinished"]) as b:
        assert differences(a, b)


# ------------------------------------------------------------------------------------------ output directory


def test_output_directory_new_or_empty(tmp_path):
    prepare_output(tmp_path / "new" / "deep")
    prepare_output(tmp_path / "new" / "deep")
    assert not list((tmp_path / "new" / "deep").iterdir())


def test_output_directory_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="not empty"):
        prepare_output(tmp_path)
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadInput, match="in the way"):
            prepare_output(path)
    with pytest.raises(BadInput, match="cannot write"):
        prepare_output(Path("/proc/mocosfl"))
    with pytest.raises(BadInput, match="cannot write"):
        prepare_output(tmp_path / ("x" * 300))
