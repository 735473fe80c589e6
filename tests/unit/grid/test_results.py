"""What came of a grid: states, means and deviations, the table, and the commands."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from mocosfl_mpi.cli import main
from mocosfl_mpi.commands import grid as command
from mocosfl_mpi.config import parse, read_toml
from mocosfl_mpi.errors import STOPPED, BadInput
from mocosfl_mpi.grid.description import read_grid
from mocosfl_mpi.grid.results import check_metrics, completed, write_configurations
from mocosfl_mpi.grid.tables import as_json, spread, table
from tests.unit.record.samples import SIZES, STATE, create, row
from tests.unit.test_slurm import command_words

GRID = """
title = "cuts"
source = "nowhere"
preset = "smoke"
seeds = [1, 2]
metrics = ["linear_top1", "divergence"]
axes = { "model.cut_layer" = [1, 2] }
[published.linear_top1]
2 = 61.5
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "cuts.toml"
    file.write_text(GRID)
    return file


def finished(trial, directory, linear, *, complete=True):
    """A run of the trial as it would lie there, with sample rows."""
    sizes = SIZES | {"client": trial.config.client.count, "member": trial.config.pool_size}
    out = directory / trial.name
    out.mkdir(parents=True)
    config = trial.config.computed("fp32", "stacked")
    with create(out / "run.h5", sizes, config) as recorder:
        recorder.append("sync", row("sync", 1, sizes, config))
        if complete:
            recorder.put("result/linear_top1", linear)
            recorder.complete(STATE)


def test_mean_and_deviation():
    assert spread([], 2) == "–"
    assert spread([61.5], 2) == "61.50"
    assert spread([60.0, 62.0], 2) == "61.00 ± 1.41"  # n - 1
    assert spread([1.0, 3.0], 1, "+") == "+2.0 ± 1.4"


def test_states_and_table(path, tmp_path):
    grid, out = read_grid(path), tmp_path / "out"
    finished(grid.trials[0], out, 40.0)
    finished(grid.trials[2], out, 42.0)
    finished(grid.trials[1], out, 60.0)
    finished(grid.trials[3], out, None, complete=False)
    assert [completed(trial, out) for trial in grid.trials] == [True, True, True, False]
    lines = table(grid, out).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert cells[0] == ["cut_layer", "linear probe, %", "published", "client divergence (L2)", "runs"]
    norms = row("sync", 1, SIZES | {"client": 12, "member": 6})["divergence/online_mean"]
    divergence = f"{np.asarray(norms).sum(axis=-1).mean():.2f}"
    assert cells[2] == ["1", "41.00 ± 1.41", "–", f"{divergence} ± 0.00", "2/2"]
    assert cells[3] == ["2", "60.00", "61.5", divergence, "1/2"]  # what is not finished does not count
    assert lines[-1] == "Published: nowhere"


def rows_of(text, start):
    """Cells of the first Markdown table after the line that begins with ``start``."""
    lines = iter(text.splitlines())
    assert any(line.startswith(start) for line in lines)
    found = []
    for line in lines:
        if line.startswith("|"):
            found.append([cell.strip() for cell in line.split("|")[1:-1]])
        elif found:
            break
    return found[0], found[2:]


def test_differences_of_pairs(path, tmp_path):
    path.write_text(GRID.replace("seeds = [1, 2]", 'seeds = [1, 2, 3]\nagainst."model.cut_layer" = "1"', 1)
                    .replace('"divergence"]', '"linear_top1_pixels"]'))  # fmt: skip
    grid, out = read_grid(path), tmp_path / "out"
    assert [trial.name for trial in grid.trials][:2] == ["cut_layer1-seed1", "cut_layer2-seed1"]
    for trial, linear in zip(grid.trials, (40.0, 43.0, 41.0, 42.0, 90.0), strict=False):
        finished(trial, out, linear)  # seed 3 of cut 2 is missing
    header, rows = rows_of(table(grid, out), "Minus cut_layer = 1, same seed:")
    assert header == ["cut_layer", "linear probe, %", "pairs"]  # pixels know no training
    assert rows == [["2", "+2.00 ± 1.41", "2"]]
    header, rows = rows_of(table(grid.only("layer2"), out), "Minus cut_layer = 1")
    assert rows == [["2", "–", "0"]]


def test_accuracy_at_equal_bytes(path, tmp_path):
    path.write_text(GRID.replace("seeds = [1, 2]", "seeds = [1]\nbudgets = [0.5, 2.5]", 1))
    grid, out = read_grid(path), tmp_path / "out"
    for trial, bytes_an_epoch in zip(grid.trials, (2**20, 2**21), strict=True):
        sizes = SIZES | {"client": trial.config.client.count, "member": trial.config.pool_size}
        folder = out / trial.name
        folder.mkdir(parents=True)
        with create(folder / "run.h5", sizes, trial.config.computed("fp32", "stacked")) as recorder:
            for epoch in range(3):
                spent = row("epoch", epoch, sizes, trial.config)
                spent["simulated/bytes"] = np.zeros_like(spent["simulated/bytes"])
                spent["simulated/bytes"][0, 0] = bytes_an_epoch * trial.config.client.count
                recorder.append("epoch", spent)
                look = row("evaluation", epoch, sizes, trial.config)
                look |= {"evaluations/epoch": np.asarray(epoch), "evaluations/knn_top1": np.asarray(10.0 * epoch)}
                recorder.append("evaluation", look)
            spent["simulated/bytes"][0, 0] *= 5
            recorder.append("epoch", spent)
            recorder.put("result/knn_top1", 99.0)  # nobody looked after the last epoch, but at the end
            recorder.complete(STATE)
    header, rows = rows_of(table(grid, out), "The kNN of the last evaluation")
    assert header == ["cut_layer", "until 0.5 MiB: kNN (MiB, epoch)", "until 2.5 MiB: kNN (MiB, epoch)"]
    assert rows == [["1", "0.0 (0.0, 0)", "20.0 (2.0, 2)"], ["2", "0.0 (0.0, 0)", "10.0 (2.0, 1)"]]
    first = json.loads(as_json(grid, out))["runs"][0]
    assert (first["run"], first["cell"], first["state_sha256"]) == ("cut_layer1-seed1", {"cut_layer": "1"}, STATE)
    assert first["config_hash"] == grid.trials[0].config.hash()
    assert first["linear_top1"] is None  # known to be missing, and JSON has no NaN
    assert first["curve"][-1] == {"epoch": 4, "mebibytes": 8.0, "knn_top1": 99.0}
    assert first["curve"][2] == {"epoch": 2, "mebibytes": 2.0, "knn_top1": 20.0}


def test_another_experiment_in_its_place_is_refused(path, tmp_path):
    grid = read_grid(path)
    finished(grid.trials[0], tmp_path / "out", 40.0)
    changed = read_grid(path, ["client.lr=0.5"])
    with pytest.raises(BadInput, match=r"client.lr was 0.06 and is 0.5"):
        completed(changed.trials[0], tmp_path / "out")
    with pytest.raises(BadInput, match="another experiment"):
        table(changed, tmp_path / "out")


def test_costs_need_no_run(path, tmp_path):
    path.write_text(GRID.replace('["linear_top1", "divergence"]', '["published_megabytes", "mebibytes"]', 1)
                    .replace("published.linear_top1", "published.mebibytes"))  # fmt: skip
    text = table(read_grid(path), tmp_path)
    assert "runs" not in text.splitlines()[2]
    assert "–" not in text.splitlines()[5]


def test_unknown_metrics_are_refused(path):
    path.write_text(GRID.replace('"divergence"', '"diversion"'))
    with pytest.raises(BadInput, match="no metric 'diversion'; choose from linear_top1"):
        check_metrics(read_grid(path))
    path.write_text(GRID.replace('"linear_top1", ', ""))
    with pytest.raises(BadInput, match=r"published\.linear_top1 is not shown"):
        check_metrics(read_grid(path))


def test_configurations_come_back_as_they_were(path, tmp_path):
    grid = read_grid(path)
    folder = write_configurations(grid.trials, tmp_path / "out")
    for trial in grid.trials:
        assert parse(read_toml(folder / f"{trial.name}.toml"), "here") == trial.config
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write to"):
        write_configurations(grid.trials, tmp_path / "file")


# ------------------------------------------------------------------------------------------------- the command


def test_list(path, tmp_path, capsys):
    finished(read_grid(path).trials[0], tmp_path / "out", 40.0)
    assert main(["grid", str(path), "--out", str(tmp_path / "out"), "--only", "layer1"]) == 0
    assert capsys.readouterr().out.split() == [
        "complete", "cut_layer1-seed1", "missing", "cut_layer1-seed2",
    ]  # fmt: skip


def run(path, tmp_path, *words):
    return main(["grid", str(path), "--run", "--out", str(tmp_path / "out"), *words])


def test_what_is_missing_is_run_one_after_the_other(path, tmp_path, capsys, monkeypatch):
    grid, started = read_grid(path), []

    def attend(words, _environ):
        started.append(words)
        code = 1 if "cut_layer2-seed1" in words[words.index("--out") + 1] else 0
        if not code:
            finished(next(t for t in grid.trials if f"{t.name}.toml" in words[4]), tmp_path / "out", 40.0)
        return code

    monkeypatch.setattr("mocosfl_mpi.launch.attend", attend)
    assert run(path, tmp_path, "-n", "3") == 1
    assert len(started) == 4
    assert started[0][:4] == [sys.executable, "-m", "mocosfl_mpi", "run"]
    assert started[0][5:7] == ["-n", "3"]
    assert started[0][started[0].index("--resume") + 1] == "auto"
    assert "1 of 4 runs failed: cut_layer2-seed1" in capsys.readouterr().out
    assert run(path, tmp_path) == 1
    assert len(started) == 5  # the failed one alone
    finished(grid.trials[1], tmp_path / "out", 40.0)
    assert run(path, tmp_path) == 0
    assert "complete" in capsys.readouterr().out


def test_a_stopped_run_stops_the_grid(path, tmp_path, monkeypatch, capsys):
    started = []

    def attend(words, _environ):
        started.append(words)
        return STOPPED

    monkeypatch.setattr("mocosfl_mpi.launch.attend", attend)
    assert run(path, tmp_path) == STOPPED
    assert len(started) == 1
    assert "continues" in capsys.readouterr().out


def test_missing_data_is_noticed_before_anything_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MOCOSFL_DATA", raising=False)
    monkeypatch.setattr("mocosfl_mpi.launch.attend", lambda *_: pytest.fail("started"))
    path.write_text(GRID.replace('"smoke"', '"cifar10-quick"'))
    assert run(path, tmp_path) == 2
    assert "cifar10" in capsys.readouterr().err


def test_an_array_of_what_is_missing(path, tmp_path, capsys):
    out = tmp_path / "a b"
    finished(read_grid(path).trials[1], out, 40.0)
    words = ["--slurm", "--out", str(out), "--launch", "mpirun", "-n", "5", "--at-once", "2"]
    assert main(["grid", str(path), *words]) == 0
    text = capsys.readouterr().out
    assert "#SBATCH --array=0-2%2" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    for task, name in enumerate(["cut_layer1-seed1", "cut_layer1-seed2", "cut_layer2-seed2"]):
        found = command_words(text, task)
        assert found[found.index("run") + 1] == str(out / "configs" / f"{name}.toml")
        assert found[-4:] == ["-n", "5", "--out", str(out / name)]
        assert (out / "configs" / f"{name}.toml").is_file()


def test_refusals(path, tmp_path, capsys):
    assert run(path, tmp_path, "-n", "0") == 2
    assert main(["grid", str(path), "--slurm", "--at-once", "0", "--out", str(tmp_path / "out")]) == 2
    assert "--at-once 0" in capsys.readouterr().err
    assert main(["grid", str(tmp_path / "none.toml")]) == 2
    assert command.STATES[True] == "complete"
