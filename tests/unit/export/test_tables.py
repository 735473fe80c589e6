"""Exported numbers are the file's: every dataset in tables and scalars, with its unit, and nothing overwritten."""

from __future__ import annotations

import builtins
import lzma
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mocosfl_mpi.cli import main
from mocosfl_mpi.config import parse
from mocosfl_mpi.export import scalars, tables
from mocosfl_mpi.record.attacks import Outcome, attack_attributes, open_for_more
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.schema import COMMITTED, ENTRIES
from tests.unit.record.samples import CONFIG, STATE

PACKED = Path(__file__).parents[2] / "analysis/runs"
pytest.importorskip("pyarrow")
pytest.importorskip("tensorboard")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """`failing`, a complete one of clients that fail, and `killed`."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("failing", "killed"):
        (folder / name).mkdir()
        (folder / name / "run.h5").write_bytes(lzma.decompress((PACKED / f"{name}.h5.xz").read_bytes()))
    return folder


def export(run: Path, kind: str, out: Path) -> Path:
    assert main(["export", str(run), "--to", kind, "-o", str(out)]) == 0
    return out


def read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, keep_default_na=True)


@pytest.mark.parametrize("rows", [40, 2**19])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_every_dataset_comes_back(runs, tmp_path, monkeypatch, kind, rows):
    monkeypatch.setattr(tables, "ROWS", rows)  # written whole, or in many parts
    folder = export(runs / "failing", kind, tmp_path)
    seen = set()
    with open_run(runs / "failing") as run:
        for sheet in tables.sheets(run):
            frame = read(folder / f"{sheet.name}.{kind}")
            assert list(frame.columns) == sheet.columns
            for entry in sheet.entries:
                wanted = run[entry.name]
                found = frame[entry.name].to_numpy()
                if wanted.dtype == object:
                    assert [str(text) for text in found] == [str(text) for text in wanted.reshape(-1)]
                else:
                    np.testing.assert_array_equal(found.astype(wanted.dtype), wanted.reshape(-1))
                seen.add(entry.name)
            for place, axis in enumerate(sheet.axes):
                labels = run[axis].tolist()
                assert sorted(frame[axis].unique().tolist(), key=labels.index) == labels
                assert frame[axis].iloc[-1] == labels[-1], place
        assert seen == {name for name in run.names if name in ENTRIES} - {COMMITTED}


def test_a_row_stands_where_its_axes_say(runs, tmp_path):
    frame = read(export(runs / "failing", "csv", tmp_path) / "epoch-member-message.csv")
    with open_run(runs / "failing") as run:
        place = run["message"].tolist().index("weights_up")
        wanted = run["simulated/bytes"][2, 3, place]
    (found,) = frame.query("epoch == 2 and member == 3 and message == 'weights_up'")["simulated/bytes"]
    assert found == wanted


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_units_and_meanings_stand_beside(runs, tmp_path, kind):
    folder = export(runs / "failing", kind, tmp_path)
    about = pd.read_csv(folder / tables.COLUMNS)
    for path in folder.glob(f"*.{kind}"):
        if path.name != tables.COLUMNS:
            assert about[about["table"] == path.stem]["column"].tolist() == list(read(path).columns)
    row = about[about["column"] == "measured/seconds"].iloc[0]
    assert (row["units"], row["meaning"]) == ("s", ENTRIES["measured/seconds"].long_name)
    if kind == "parquet":
        import pyarrow.parquet as pq

        field = pq.read_schema(folder / "epoch-rank-phase.parquet").field("measured/seconds")
        assert field.metadata[b"units"] == b"s"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_attacks_come_too_and_empty_tables_have_columns(runs, tmp_path, kind):
    run = tmp_path / "run"
    shutil.copytree(runs / "killed", run)
    attributes = attack_attributes(
        parse(CONFIG, "test"), command="mocosfl attack", launcher="none", host="n", ranks=1, threads=1, versions={}
    )
    with open_for_more(run, attributes):
        pass
    empty = export(run, kind, tmp_path / "empty")
    assert list(read(empty / f"attacks-job.{kind}").columns)[:3] == ["job", "jobs/key", "jobs/state"]
    texts = {"key": STATE, "state": STATE, "attack": "ridge", "kind": "linkage", "adversary": "ü", "protocol": "ours"}
    numbers = {"steps": 3, "trained": True, "adaptive": -1, "client": 0, "images": 4, "effort": 1.0, "seed": 0}
    with open_for_more(run, attributes) as writer:
        writer.add(Outcome(**texts, **numbers, seconds=0.5, scores={"mse": 0.25}))
    folder = export(run, kind, tmp_path / "one")
    assert read(folder / f"attacks-job.{kind}")["jobs/adversary"].tolist() == ["ü"]
    scores = read(folder / f"attacks-job-metric.{kind}").set_index("metric")["scores/value"]
    assert scores["mse"] == 0.25
    assert scores.isna().sum() == len(scores) - 1


# ---------------------------------------------------------------------------------------------- TensorBoard


def events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return found


@pytest.mark.parametrize("name", ["failing", "killed"])
def test_scalars_come_back(runs, tmp_path, name):
    found = events(export(runs / name, "tensorboard", tmp_path))
    with open_run(runs / name) as run:
        tags = {tag for tag, *_ in scalars.series(run)}
        assert set(found.Tags()["scalars"]) == tags
        loss = [event.value for event in found.Scalars("steps/loss")]
        np.testing.assert_array_equal(loss, run["steps/loss"].astype(np.float32))
        assert [event.step for event in found.Scalars("steps/loss")] == list(range(1, run.rows["step"] + 1))
        steps = [event.step for event in found.Scalars("epochs/loss")]
        assert steps == [int((run["steps/epoch"] <= epoch).sum()) for epoch in range(run.rows["epoch"])]
        sent = [event.value for event in found.Scalars("simulated/bytes/query_up")]
        place = run["message"].tolist().index("query_up")
        np.testing.assert_allclose(sent, run["simulated/bytes"][:, :, place].mean(axis=1), rtol=1e-6)
        drift = [event.value for event in found.Scalars("divergence/online_mean")]
        with np.errstate(invalid="ignore"):
            norms = run["divergence/online_mean"]
        present = np.isfinite(norms).any(axis=2)
        wanted = [norms[row][present[row]].sum(axis=1).mean() for row in range(len(norms)) if present[row].any()]
        np.testing.assert_allclose(drift, wanted, rtol=1e-5)
        times = [event.wall_time for event in found.Scalars("steps/loss")]
        assert times == sorted(times)
        assert times[0] >= run["sessions/start"][0]
        assert ("result/knn_top1" in tags) == run.completed


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_nothing_is_overwritten(runs, tmp_path, capsys, kind):
    export(runs / "failing", kind, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    capsys.readouterr()
    assert main(["export", str(runs / "killed"), "--to", kind, "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "nothing is overwritten" in said
    assert said.count("\n") == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("kind", "library"), [("csv", "pandas"), ("parquet", "pyarrow.parquet"), ("tensorboard", "tensorboard")]
)
def test_a_missing_library_is_one_message(runs, tmp_path, monkeypatch, capsys, kind, library):
    real = builtins.__import__

    def without(name: str, *rest, **more):
        if name == library or name.startswith(f"{library}."):
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest, **more)

    if library == "pandas":
        monkeypatch.delitem(__import__("sys").modules, "mocosfl_mpi.export.tables")
        monkeypatch.delattr("mocosfl_mpi.export.tables")
    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["export", str(runs / "failing"), "--to", kind, "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert library.partition(".")[0] in said
    assert "pip install 'mocosfl-mpi[export]'" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["csv", "tensorboard", "torch"])
def test_no_run_and_a_damaged_one(runs, tmp_path, capsys, kind):
    assert main(["export", str(tmp_path / "nowhere"), "--to", kind, "-o", str(tmp_path / "out")]) == 2
    (tmp_path / "run.h5").write_bytes((runs / "failing" / "run.h5").read_bytes()[:5000])
    assert main(["export", str(tmp_path), "--to", kind, "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    assert not (tmp_path / "out").exists()


def test_without_a_checkpoint_the_remedy_is_told(runs, tmp_path, capsys):
    assert main(["export", str(runs / "failing"), "--to", "torch", "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "has no checkpoint" in said
    assert "mocosfl run smoke" in said
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way(runs, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert main(["export", str(runs / "failing"), "--to", "csv", "-o", str(tmp_path / "out")]) == 2
    assert "a file is in the way" in capsys.readouterr().err
