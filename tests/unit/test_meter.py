import time

import pytest
import torch

from mocosfl_mpi.meter import PHASES, SERVER_PHASES, Meter


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_seconds_go_to_their_phase_and_are_taken_once():
    meter = Meter(1, 1)
    for _ in range(2):
        with meter.phase("server"):
            time.sleep(0.02)
    seconds = meter.take()
    assert len(seconds) == len(PHASES)
    assert 0.04 <= seconds[PHASES.index("server")] < 2
    assert sum(seconds) == seconds[PHASES.index("server")]
    assert meter.take() == [0.0] * len(PHASES)


def test_time_of_a_phase_inside_another_counts_once_and_threads_come_back():
    meter = Meter(2, 1)
    begin = time.perf_counter()
    with meter.phase("server"):
        time.sleep(0.02)
        with meter.phase("exchange"):
            assert torch.get_num_threads() == 1
            time.sleep(0.05)
        assert torch.get_num_threads() == 2
        time.sleep(0.02)
    passed = time.perf_counter() - begin
    found = meter.seconds
    assert found["server"] >= 0.04
    assert found["exchange"] >= 0.05
    assert found["server"] + found["exchange"] <= passed
    with meter.phase("views"):
        pass
    assert meter.seconds["server"] == found["server"]


def test_each_phase_gets_its_threads():
    meter = Meter(2, 1)
    for phase in PHASES:
        with meter.phase(phase):
            assert torch.get_num_threads() == (2 if phase in SERVER_PHASES else 1)


def test_time_counts_when_the_work_fails():
    meter = Meter(1, 1)

    def work():
        with meter.phase("views"):
            time.sleep(0.01)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert meter.take()[PHASES.index("views")] >= 0.01


def test_unknown_phase():
    with pytest.raises(KeyError), Meter(1, 1).phase("lunch"):
        pass
