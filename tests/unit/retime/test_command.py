"""``mocosfl retime`` from the command line, without torch and without MPI."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mocosfl_mpi.cli import main
from mocosfl_mpi.retime.show import duration, energy
from tests.unit.retime.ledgers import write


def test_json_and_tables_tell_the_same(tmp_path, capsys):
    path = str(write(tmp_path / "run.h5", epochs=30, accuracies=[(1, 50.0)]))
    assert main(["retime", path, "--json", "--stragglers", "0.3", "--seed", "5", "--target", "49"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["simulated"] is True
    assert sum(told["parts_seconds"].values()) == pytest.approx(told["seconds"])
    assert told["joules"] == pytest.approx(sum(told["parts_joules"].values()))
    assert len(told["epochs"]["seconds"]) == 30
    assert told["stragglers"]["seed"] == 5
    assert told["time_to_accuracy"]["seconds"] == pytest.approx(told["epochs"]["seconds"][0])
    assert main(["retime", path, "--stragglers", "0.3", "--seed", "5", "--target", "49"]) == 0
    shown = capsys.readouterr().out
    for words in ("SIMULATED", duration(told["seconds"]), energy(told["joules"]), "Raspberry Pi 4", "epoch 30", "…"):
        assert words in shown


def test_the_runs_own_seed_is_the_default(tmp_path, capsys):
    path = str(write(tmp_path / "run.h5"))
    told = []
    for arguments in ([], ["--seed", "7"], ["--seed", "8"]):  # the sample's seed is 7
        assert main(["retime", path, "--json", "--stragglers", "1", *arguments]) == 0
        told.append(json.loads(capsys.readouterr().out)["seconds"])
    assert told[0] == told[1] != told[2]


def test_what_is_not_known_is_said(tmp_path, capsys):
    path = str(write(tmp_path / "run.h5"))
    assert main(["retime", path, "--device", "phone", "--network", "4g"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "not known: the run has no evaluations" in shown
    assert "the device profile has no compute_watt" in shown
    assert main(["retime", path, "--device", "phone", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["joules"] is None
    assert told["time_to_accuracy"] is None


@pytest.mark.parametrize(
    "arguments", [["--target", "101"], ["--target", "nan"], ["--device", "toaster"], ["--stragglers", "-1"]]
)
def test_bad_arguments(tmp_path, capsys, arguments):
    assert main(["retime", str(write(tmp_path / "run.h5")), *arguments]) == 2
    assert capsys.readouterr().err.startswith("mocosfl: ")


def test_a_cut_file_is_one_message(tmp_path, capsys):
    path = write(tmp_path / "run.h5")
    path.write_bytes(path.read_bytes()[:-200])
    assert main(["retime", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


def test_neither_torch_nor_mpi_is_loaded(tmp_path):
    script = (
        "import sys; from mocosfl_mpi.cli import main; code = main(['retime', sys.argv[1], '--json']);"
        "sys.exit(code or bool({'torch', 'mpi4py', 'torchvision'} & set(sys.modules)))"
    )
    path = write(tmp_path / "run.h5")
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_units():
    assert [duration(s) for s in (0.0, 0.0123, 5.0, 3723, 90061)] == [
        "0 ms", "12.3 ms", "5.0 s", "1:02:03", "1 d 1:01:01",
    ]  # fmt: skip
    assert [energy(j) for j in (0.5, 12.0, 4e4, 5e9)] == ["500 mJ", "12.0 J", "40.0 kJ", "5.0 GJ"]
