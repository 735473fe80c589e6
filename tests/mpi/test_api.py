"""``simulate`` with ranks of their own: the same bits as in this process, the same exceptions."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from mocosfl_mpi import BadInput, Config, RunFailed, Stopped, simulate
from mocosfl_mpi.record.checkpoint import DIRECTORY

pytestmark = pytest.mark.mpi
TINY = {"epochs": 2, "steps_per_epoch": 2, "data.train_images": 48, "data.test_images": 20, "client.count": 4}


def test_the_same_bits_as_in_this_process_and_the_ranks_are_heard(tmp_path, capsys):
    config = Config("smoke", TINY)
    with simulate(config, tmp_path / "one", quiet=True) as one, simulate(config, tmp_path / "two", ranks=2) as two:
        assert one.state_sha256 == two.state_sha256
        assert two.attrs["ranks"] == 2
        assert two.attrs["preset"] == "smoke"
        assert f"{tmp_path}/two/given/smoke.toml -n 2" in two.attrs["command"]
    assert Config(tmp_path / "two" / "given" / "smoke.toml").hash() == config.hash()
    told = capsys.readouterr()
    assert "epoch 2/2" in told.out
    with pytest.raises(BadInput, match="epochs was 2 and is 3"):
        simulate(Config(config, epochs=3), tmp_path / "two", ranks=2)
    assert Config(tmp_path / "two" / "given" / "smoke.toml").hash() == config.hash()


def test_what_ranks_refuse_is_raised_here_and_leaves_nothing(tmp_path):
    with pytest.raises(BadInput, match=r"48 images|client"):
        simulate(Config("smoke", TINY, client={"count": 100}), tmp_path / "run", ranks=2, quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_is_an_exception_here(tmp_path, capfd):
    with pytest.raises(RunFailed, match="loss"):
        simulate(Config("smoke", TINY, server={"lr": 1e30}), tmp_path / "run", ranks=2, quiet=True)


def test_a_stop_is_passed_on_and_the_same_call_continues_with_other_ranks(tmp_path):
    config = Config("smoke", TINY, epochs=400)
    out, handler = tmp_path / "run", signal.getsignal(signal.SIGINT)

    def stop_when_it_has_begun():
        while not list(out.glob(f"{DIRECTORY}/step-*")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop_when_it_has_begun).start()
    with pytest.raises(Stopped, match="the same command continues"):
        simulate(config, out, ranks=2, quiet=True, checkpoint_every="2steps")
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(Stopped, match="the time limit"):
        simulate(config, out, quiet=True, max_hours=1e-6)
