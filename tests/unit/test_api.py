"""``from mocosfl_mpi import Config, simulate, open_run``: what it takes, what it raises, and what it leaves alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

import mocosfl_mpi
from mocosfl_mpi import BadInput, Config, RunFailed, Stopped, open_run, simulate
from mocosfl_mpi.chronicle import Chronicle
from mocosfl_mpi.config import apply_settings, parse, read_toml
from mocosfl_mpi.presets import load

TINY = {"epochs": 2, "steps_per_epoch": 2, "data.train_images": 48, "data.test_images": 20, "client.count": 4}


def tiny(**more):
    return Config("smoke", TINY, **more)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with simulate(tiny(), tmp_path_factory.mktemp("api") / "run", quiet=True) as found:
        yield found


def test_importing_the_package_is_light():
    heavy = "{'numpy', 'torch', 'h5py', 'mpi4py', 'pydantic', 'pandas', 'rich'}"
    code = f"import sys, mocosfl_mpi; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    code = "import sys; from mocosfl_mpi import Config, simulate; Config('smoke'); print(sorted(sys.modules))"
    assert not {"'torch'", "'mpi4py'"} & set(
        subprocess.check_output([sys.executable, "-c", code], text=True).split(", ")
    )


def test_every_public_name_is_there_and_no_other():
    assert {"Config", "simulate", "open_run", "BadInput"} <= set(dir(mocosfl_mpi))
    for name in mocosfl_mpi.__all__:
        assert getattr(mocosfl_mpi, name)
    with pytest.raises(AttributeError, match="has no attribute 'Confg'"):
        mocosfl_mpi.Confg  # noqa: B018


def test_a_configuration_from_a_preset_is_that_of_the_command_line():
    values = apply_settings(load("smoke")[1], ["model.cut_layer=3", "epochs=5", "client.count=6"])
    given = Config("smoke", {"model.cut_layer": 3, "client": {"count": np.int64(6)}}, epochs=5)
    assert given.hash() == parse(values, "smoke").hash()
    assert given.name == "smoke"


def test_a_configuration_from_a_file_from_values_and_from_another(tmp_path):
    base = Config("smoke", epochs=3)
    (tmp_path / "mine.toml").write_text(base.to_toml())
    again = Config(tmp_path / "mine.toml")
    assert (again.hash(), again.name) == (base.hash(), "mine")
    assert Config(base).hash() == base.hash()
    assert Config(base).name == "smoke"
    assert Config(base, {"epochs": 4}, epochs=5).epochs == 5
    assert Config({"model.cut_layer": 4, "seed": 7}).hash() == parse({"model": {"cut_layer": 4}, "seed": 7}, "").hash()
    assert Config().hash() == parse({}, "").hash()
    assert Config(parse(read_toml(tmp_path / "mine.toml"), "")).hash() == base.hash()


def test_none_is_a_value():
    assert Config("smoke").steps_per_epoch == 4
    assert Config("smoke", steps_per_epoch=None).steps_per_epoch is None


def test_a_preset_gives_way_to_the_method_and_not_to_what_was_typed():
    assert Config("smoke", {"client.batch_size": 4}, method="central").client.count == 1
    with pytest.raises(BadInput, match="central"):
        Config("smoke", {"client.count": 3}, method="central")


@pytest.mark.parametrize(
    ("arguments", "sections", "told"),
    [
        (("smok",), {}, "did you mean 'smoke'"),
        (("missing.toml",), {}, "cannot read the configuration missing.toml"),
        (("smoke",), {"epoch": 3}, "did you mean 'epochs'"),
        (("smoke", {"model.cut": 3}), {}, "unknown key 'model.cut'"),
        (("smoke", {"epochs": "many"}), {}, "epochs = 'many'"),
        (("smoke",), {"model": 3}, "'model' is a section"),
        (("smoke", {"epochs.more": 3}), {}, "'epochs' is a value, not a section"),
        (("smoke", {3: 4}), {}, "named by text"),
        ((3,), {}, "3 is no configuration"),
    ],
)
def test_what_is_no_configuration_is_refused_in_words(arguments, sections, told):
    with pytest.raises(BadInput, match=told):
        Config(*arguments, **sections)


def test_a_run_in_this_process(run):
    assert run.completed
    assert run.attrs["preset"] == "smoke"
    assert run.attrs["command"].startswith("mocosfl_mpi.simulate(")
    assert "2 of 2 epochs, completed, kNN" in repr(run)
    assert run.attrs["config"]["client"]["count"] == 4


def test_a_complete_run_is_opened_and_another_experiment_refused(run):
    place = run.path.parent
    with simulate(tiny(), place, quiet=True) as again:
        assert again.state_sha256 == run.state_sha256
    with pytest.raises(BadInput, match="epochs was 2 and is 3"):
        simulate(tiny(epochs=3), str(place), quiet=True)
    with pytest.raises(BadInput, match="never overwritten"):
        simulate(tiny(), place, resume="never")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"ranks": 0}, "ranks = 0"),
        ({"ranks": True}, "ranks = True"),
        ({"max_hours": 0}, "max_hours = 0"),
        ({"checkpoint_every": "often"}, "often"),
        ({"data_dir": "nowhere", "config": "cifar10-quick"}, "nowhere does not exist"),
    ],
)
def test_bad_arguments_are_refused_and_leave_nothing(tmp_path, arguments, told):
    with pytest.raises(BadInput, match=told):
        simulate(**{"config": tiny(), "out": tmp_path / "run", **arguments})
    assert not list(tmp_path.iterdir())


def test_launchers_are_not_nested(tmp_path, monkeypatch):
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(BadInput, match="launchers cannot be nested"):
        simulate(tiny(), tmp_path / "run", ranks=2)


def state_of_the_process():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    return [sys.excepthook, threading.excepthook, *handlers, torch.get_num_threads()]


def test_the_process_survives_a_run_that_fails_and_can_go_on(tmp_path, run):
    before = state_of_the_process()
    with pytest.raises(RunFailed, match="loss"):
        simulate(tiny(server={"lr": 1e30}), tmp_path / "fails", quiet=True)
    assert state_of_the_process() == before
    with simulate(tiny(), tmp_path / "works", quiet=True) as found:
        assert found.state_sha256 == run.state_sha256
    assert state_of_the_process() == before


def test_a_programming_error_is_an_exception_like_any_other(tmp_path, monkeypatch):
    before = state_of_the_process()
    monkeypatch.setattr(Chronicle, "step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        simulate(tiny(), tmp_path / "run", quiet=True)
    assert state_of_the_process() == before
    monkeypatch.undo()
    with simulate(tiny(), tmp_path / "run", quiet=True) as found:
        assert found.completed


def test_a_stop_is_an_exception_and_the_same_call_continues(tmp_path, monkeypatch, run):
    before, count, step = state_of_the_process(), [], Chronicle.step

    def interrupt_once(self, *arguments):
        count.append(1)
        if len(count) == 2:
            signal.raise_signal(signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(Chronicle, "step", interrupt_once)
    with pytest.raises(Stopped, match=r"stopped after 1 epochs.* by SIGINT; the same command continues"):
        simulate(tiny(), tmp_path / "run", quiet=True)
    assert state_of_the_process() == before
    with open_run(tmp_path / "run") as half:
        assert not half.completed
        assert "not completed" in repr(half)
    with simulate(tiny(), tmp_path / "run", quiet=True) as found:
        assert found.state_sha256 == run.state_sha256
        assert found.rows["session"] == 2


def test_a_run_in_another_thread(tmp_path, run):
    found = []
    worker = threading.Thread(target=lambda: found.append(simulate(tiny(), tmp_path / "run", quiet=True)))
    worker.start()
    worker.join()
    with found[0] as same:
        assert same.state_sha256 == run.state_sha256


def test_it_says_what_the_command_says(tmp_path, capsys):
    simulate(tiny(epochs=1), tmp_path / "run").close()
    told = capsys.readouterr().out
    assert "epoch 1/1" in told
    assert "Test accuracy in %" in told


def test_curves_are_the_recorded_numbers(run):
    curves = run.curves()
    assert list(curves.index) == [0, 1, 2]
    assert curves.index.name == "epoch"
    assert curves["knn_top1"].tolist()[:2] == run["evaluations/knn_top1"].tolist()[:2]
    assert curves["knn_top1"].iloc[-1] == run.result("knn_top1")
    np.testing.assert_array_equal(curves["loss"], [np.nan, *run["epochs/loss"]])
    total = sum(run.summary()["bytes_per_client"].values())
    assert curves["client_bytes"].tolist()[::2] == [0.0, total]
    assert curves.attrs["units"]["knn_top1"] == "%"
    assert curves.attrs["units"].keys() == set(curves.columns)


def test_frames_are_the_recorded_rows(run):
    evaluations, steps = run.frame(), run.frame("step")
    assert evaluations["knn_top1"].tolist() == run["evaluations/knn_top1"].tolist()
    assert evaluations.attrs["units"]["wall_seconds"] == "s"
    assert steps["loss"].tolist() == run["steps/loss"].tolist()
    assert "bytes" not in run.frame("epoch")
    traffic = run.frame("simulated/bytes")["bytes"].unstack("message")
    np.testing.assert_array_equal(traffic.to_numpy().sum(), run["simulated/bytes"].sum())
    row, member, kind = 1, 1, list(run["message"]).index("key_up")
    assert traffic.loc[(row, member), "key_up"] == run["simulated/bytes"][row, member, kind]
    with pytest.raises(BadInput, match="no table 'epochs'; there are: step, sync, epoch"):
        run.frame("epochs")


def test_tables_without_pandas_say_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for table in (run.frame, run.curves):
        with pytest.raises(BadInput, match=r"mocosfl-mpi\[analysis\]"):
            table()
