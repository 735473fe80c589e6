"""Every script in every format, on every kind of run, and on what is no run."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mocosfl_mpi.config import parse
from mocosfl_mpi.record.reader import open_run
from tests.analysis.scripts import ANALYSIS, FIGURES, MODULES, SCRIPTS, draw
from tests.shipped import attacks_on, fifty
from tests.unit.record.samples import create, row

KINDS = (
    "killed", "one_epoch", "one_client", "fl_moco", "fedema", "fedavg", "split_vanilla", "failing", "ranks3", "old",
)  # fmt: skip
PAINTED = ("killed", "one_client")
"""Kinds of which a lone run is painted too; the others are painted together."""
LACKS = {"killed": {"accuracy_by_cut", "comparison", "tradeoff"}}
"""What a kind of run cannot show; no lone run shows how anything scales."""


def plan_of(folder: Path) -> None:
    with open_run(folder) as run:
        sent, work = int(run["simulated/bytes"].sum()), int(run["simulated/client_flops"].sum())
        values = {
            "resident_bytes_sum": 2**28,
            "seconds_per_step": 0.5,
            "record_bytes": 400_000,
            "ranks": run.attrs["ranks"],
        }
    values |= {"simulated_bytes": {"all": 2 * sent}, "client_flops": {"all": work}}
    (folder / "plan.json").write_text(json.dumps(values))


@pytest.fixture(scope="session")
def planned(runs):
    """All runs have a plan of twice the bytes, and were attacked."""
    for path in runs.rglob("run.h5"):
        plan_of(path.parent)
        attacks_on(path.parent)
    return runs


def test_the_list_of_scripts_is_whole():
    assert set(SCRIPTS) == set(FIGURES)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_format(script, planned, tmp_path, capsys):
    given = sorted((planned / "grid").glob("*-seed[01]"))
    if script == "scaling":
        given = [planned / name for name in ("ranks2", "ranks3")]
    formats = "csv" if script in ("rank_timeline", "divergence_map") else "png,pdf,svg,csv"
    assert draw(script, *given, "--out", tmp_path, "--format", formats) == 0
    written = capsys.readouterr().out.split()
    assert {Path(name).stem for name in written} == FIGURES[script]
    assert sorted(map(str, tmp_path.iterdir())) == sorted(written)
    for path in tmp_path.iterdir():
        check(path)


def check(path: Path) -> None:
    if path.suffix == ".png":
        with Image.open(path) as image:
            assert image.size[0] == 990, "a column of 3.3 inches in 300 dpi"
            assert np.asarray(image.convert("L")).std() > 5
    elif path.suffix == ".pdf":
        assert path.read_bytes().startswith(b"%PDF")
    elif path.suffix == ".svg":
        assert ET.parse(path).getroot().tag.endswith("svg")
    else:
        assert len(pd.read_csv(path)) > 0


@pytest.mark.parametrize("script", ["rank_timeline", "divergence_map"])
def test_one_figure_for_each_run_in_every_format(script, runs, tmp_path):
    assert draw(script, runs / "ranks3", "--out", tmp_path, "--format", "png,pdf,svg") == 0
    assert len(list(tmp_path.iterdir())) == 3
    for path in tmp_path.iterdir():
        check(path)


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != "scaling"])
def test_every_kind_of_run_alone(script, planned, tmp_path, capsys):
    for kind in KINDS:
        formats = "svg,csv" if kind in PAINTED else "csv"
        code = draw(script, planned / kind, "--out", tmp_path / kind, "--format", formats)
        told = capsys.readouterr().err
        if script in LACKS.get(kind, ()):
            assert code == 2, kind
            assert "nothing to draw" in told
        else:
            assert code == 0, (kind, told)
            assert [path for path in (tmp_path / kind).iterdir() if path.suffix == f".{formats[:3]}"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_all_kinds_of_runs_together(script, planned, tmp_path):
    assert draw(script, *(planned / kind for kind in KINDS), "--out", tmp_path, "--format", "svg,csv") == 0
    for path in tmp_path.iterdir():
        check(path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_cannot_be_used_is_refused_with_one_message(script, runs, tmp_path, capsys):
    good = (runs / "grid/mocosfl-cut1-seed0/run.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(good[: len(good) // 2])
    (tmp_path / "text.h5").write_text("no HDF5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["schema"] = np.bytes_("other")
    (tmp_path / "future.h5").write_bytes(good)
    with h5py.File(tmp_path / "future.h5", "r+") as file:
        file.attrs["schema_version"] = np.bytes_("2.0")
    (tmp_path / "empty").mkdir()
    for name in ("absent", "empty", "cut.h5", "text.h5", "other.h5", "future.h5"):
        assert draw(script, runs / "ranks2", tmp_path / name, "--out", tmp_path / "out") == 2
        told = capsys.readouterr().err
        assert told.count("error: ") == 1
        assert name in told
        assert not (tmp_path / "out").exists(), "nothing is written before everything was read"


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_that_has_just_begun(script, runs, tmp_path, capsys):
    """Nothing is whole in its file yet: the partition can be drawn, everything else says so."""
    shutil.copy(runs / "one_epoch/run.h5", tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file["committed"][:] = 0
        file["result/completed"][()] = 0
        for name in ("knn_top1", "linear_top1"):
            file[f"result/{name}"][()] = np.nan
    plan_of(tmp_path)
    code = draw(script, tmp_path, "--out", tmp_path / "out")
    assert code == (0 if script == "partition_picture" else 2)
    assert ("nothing to draw" in capsys.readouterr().err) == (code == 2)


def test_a_run_that_is_being_written_grows(tmp_path):
    sizes = {"client": 4, "member": 4, "phase": ["views", "client_forward", "exchange", "server", "client_backward",
             "synchronise"]}  # fmt: skip
    config = parse({"epochs": 9, "client": {"count": 4}}, "test")
    with create(tmp_path / "run.h5", sizes, config) as recorder:
        for count in range(1, 4):
            for dim in ("step", "sync", "epoch", "evaluation"):
                recorder.append(dim, row(dim, count, sizes, config))
            recorder.flush()
            assert draw("health", tmp_path, "--out", tmp_path, "--format", "csv") == 0
            found = pd.read_csv(tmp_path / "health.csv")
            assert (found["quantity"] == "loss").sum() == count
            assert draw("scaling", tmp_path, "--out", tmp_path) == 2


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_older_schemas(version, runs, tmp_path):
    """A file says what it has by its version; what came later is not looked for."""
    shutil.copy(runs / "ranks2/run.h5", tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file.attrs["schema_version"] = np.bytes_(version)
        if version == "1.0":
            del file["sessions"]
    for script in ("accuracy_curves", "health", "client_cost", "tradeoff"):
        assert draw(script, tmp_path, runs / "old", "--out", tmp_path / "out", "--format", "csv") == 0
    assert draw("scaling", tmp_path, runs / "ranks3", "--out", tmp_path / "out", "--format", "csv") == 0


def test_fifty_runs_at_once(tmp_path):
    given = fifty(tmp_path / "fifty")
    for script in ("comparison", "accuracy_curves"):
        assert draw(script, given, "--out", tmp_path) == 0
    found = pd.read_csv(tmp_path / "comparison.csv")
    assert found["group"].unique().tolist() == [f"client lr 0.0{place}" for place in range(1, 6)]
    assert (found["n"] == 10).all()
    gaps = pd.read_csv(tmp_path / "differences.csv").query("metric == 'linear_top1'")
    assert gaps["mean"].tolist() == pytest.approx([10, 20, 30, 40])
    assert gaps["p"].tolist() == [2 / 2**10] * 4


def start(command, folder):
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_they_need_neither_torch_nor_mpi(runs, tmp_path):
    """Started as a person starts them, from another directory; no heavy library is imported, whatever the script."""
    code = (
        "import sys, importlib\n"
        "for name in sys.argv[3].split(','): importlib.import_module('mocosfl_mpi.figures.' + name)\n"
        "from mocosfl_mpi.figures import client_cost\n"
        "code = client_cost.main([sys.argv[1], '--out', sys.argv[2], '--format', 'csv'])\n"
        "print(code, sorted({'torch', 'mpi4py', 'torchvision', 'scipy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, runs / "ranks2", tmp_path, ",".join(SCRIPTS)]
    done = start(command, tmp_path)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    command = [sys.executable, ANALYSIS / "partition_picture.py", runs / "ranks2", "--format", "csv"]
    done = start(command, tmp_path)
    assert (done.returncode, done.stdout) == (0, "figures/partition-MocoSFL.csv\n"), done.stderr


@pytest.mark.parametrize("path", sorted(MODULES.glob("*.py")), ids=lambda path: path.stem)
def test_imports_are_few_and_light(path):
    allowed = {"numpy", "pandas", "matplotlib", "mocosfl_mpi"}
    parts = {
        "config",
        "errors",
        "methods",
        "record.attack_schema",
        "record.attacks",
        "record.reader",
        "record.schema",
        "grid.published",
    }
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            top, _, rest = name.partition(".")
            assert top in allowed or top in sys.stdlib_module_names, f"{path.name} imports {name}"
            assert top != "mocosfl_mpi" or rest in parts or rest.partition(".")[0] == "figures", (
                f"{path.name} imports {name}"
            )


@pytest.mark.parametrize("script", SCRIPTS)
def test_headers_say_what_a_reader_needs(script):
    text = ast.get_docstring(ast.parse((MODULES / f"{script}.py").read_text()))
    assert text is not None
    places = [text.find(word) for word in ("Run: ", "Figure", "Look for:", "Bear in mind:")]
    assert places == sorted(places)
    assert places[0] > 0
    assert f"python analysis/{script}.py RUN…" in text


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_format_that_is_none_and_a_place_that_cannot_be(script, planned, tmp_path, capsys):
    given = [planned / "ranks2", planned / "ranks3"]
    assert draw(script, *given, "--format", "png,bmp", "--out", tmp_path) == 2
    assert "'bmp' is none of png, pdf, svg, csv" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert draw(script, *given, "--format", "csv", "--out", tmp_path / "file") == 2
    assert "name another directory with --out" in capsys.readouterr().err
