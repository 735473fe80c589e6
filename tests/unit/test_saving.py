"""Which state follows which, what is kept for a replay, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mocosfl_mpi.config import Communication, apply_settings, parse
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.presets import load
from mocosfl_mpi.saving import Replay, Saving, Trip, check, following, replay_bytes, whole
from mocosfl_mpi.simulation import Conduct, Simulation
from mocosfl_mpi.streams import Streams

ONE = Communication(loss_threshold=0.5, warmup_epochs=2)


@pytest.mark.parametrize(
    ("state", "epoch", "before", "loss", "then"),
    [
        ("A", 1, math.inf, 9.0, "A"),
        ("A", 2, 9.0, 9.0, "A"),  # warming up
        ("A", 3, 9.0, 9.0, "B"),
        ("A", 3, 9.0, 8.5, "A"),  # a fall of the threshold is enough
        ("A", 3, 9.0, 8.6, "B"),
        ("A", 3, 9.0, 12.0, "B"),  # a rise counts as no fall
        ("B", 4, 9.0, 8.6, "C"),
        ("B", 4, 9.0, 8.0, "A"),
        ("C", 9, 9.0, 9.0, "C"),
        ("C", 9, 9.0, 8.0, "A"),
    ],
)
def test_states_as_published(state, epoch, before, loss, then):
    assert following(ONE, state, epoch, before, loss) == then


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_a_threshold_of_nothing_saves_nothing(losses):
    off, before = Communication(), math.inf
    for epoch, loss in enumerate(losses, start=1):
        assert following(off, "A", epoch, before, loss) == "A"
        before = loss


def configured(*settings):
    return parse(apply_settings(load("smoke")[1], settings), "smoke")


class Alone:
    """Rank 0 by itself."""

    serves = True

    @staticmethod
    def broadcast_json(value):
        return value


def saving(*settings):
    return Saving(configured(*settings), 4, Streams(1), torch.float32, Alone())


def test_every_third_gradient_of_the_run():
    decide = saving("communication.download_every=3")
    downs = [decide.trip(epoch, step).down for epoch in range(3) for step in range(4)]
    assert downs == [number % 3 == 2 for number in range(12)]
    config = configured("communication.download_every=3")
    assert [whole(config, 4, epoch, step).down for epoch in range(3) for step in range(4)] == downs
    assert not whole(configured("client.frozen=true"), 4, 0, 0).down


def test_what_travels_by_state():
    decide = saving("communication.loss_threshold=1", "communication.warmup_epochs=0", "epochs=9")
    found = []
    for epoch, loss in enumerate((9.0, 9.0, 9.0, 8.0, 8.0)):
        trip = decide.trip(epoch, 0)
        found.append((trip.up, trip.down))
        if trip.up:
            decide.received(torch.zeros(1), torch.zeros(1), np.array([0]))
        decide.conclude(epoch, loss)
    assert found == [(True, True), (True, True), (True, False), (False, False), (True, True)]
    assert list(decide.replay.state()) == [], "nothing is kept that nobody will replay"


def filled(dtype=torch.float32):
    replay = Replay(Streams(1), dtype)
    for step in range(5):
        replay.keep(
            torch.full((2, 3), float(step), dtype=dtype), torch.full((2, 3), -1.0 * step, dtype=dtype), np.array([4, 7])
        )
    return replay


def test_a_replay_has_every_step_once_in_an_order_of_its_epoch():
    replay, orders = filled(), []
    for epoch in range(6):
        steps = []
        for step in range(5):
            query, key, pool = replay.draw(Trip(epoch, step, up=False, down=False))
            assert pool.tolist() == [4, 7]
            assert torch.equal(query, -key)
            steps.append(int(query[0, 0]))
        assert sorted(steps) == list(range(5))
        orders.append(tuple(steps))
    assert len(set(orders)) > 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_replay_survives_a_checkpoint_in_slabs(dtype, monkeypatch):
    monkeypatch.setattr("mocosfl_mpi.saving.SLAB", 4 * 2 * 3 * dtype.itemsize)  # two steps
    replay, again = filled(dtype), Replay(Streams(1), dtype)
    parts = dict(replay.state())
    assert list(parts) == ["replay-000000", "replay-000001", "replay-000002"]
    again.restore(
        {name: torch.from_numpy(value.numpy().copy()) for name, value in part.items()} for part in parts.values()
    )
    for step in range(5):
        ours, theirs = (one.draw(Trip(3, step)) for one in (replay, again))
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(ours[:2], theirs[:2], strict=True))
        assert ours[2].tolist() == theirs[2].tolist()


def test_bytes_of_the_store_by_hand():
    config = configured(
        "communication.loss_threshold=1", "communication.warmup_epochs=0", "epochs=3", "contrast.symmetric=both_views"
    )
    assert replay_bytes(config, 4, 1024, 4) == 2 * 4 * 6 * (2 * 2) * 1024 * 4
    assert replay_bytes(configured(), 4, 1024, 4) == 0


def test_a_store_that_is_too_large_is_refused_before_training(tmp_path):
    config = configured(
        *("communication.loss_threshold=1", "communication.warmup_epochs=0", "epochs=3", "communication.replay_mib=1"),
        *("steps_per_epoch=20", "compute.precision=fp32"),
    )
    needed = 2 * 20 * 6 * 2 * 1024 * 4
    with pytest.raises(
        BadInput, match=rf"{needed} bytes \(20 steps of 6 clients .* allows 1048576. Set replay_mib = 2"
    ):
        Simulation.begin(config, Conduct("smoke", tmp_path / "out", quiet=True))
    assert not (tmp_path / "out" / "run.h5").exists()
    check(configured("communication.loss_threshold=1", "communication.warmup_epochs=0", "epochs=3"), 20, 1024, 4)


def test_gradients_that_never_come_down_are_refused():
    config = configured("communication.download_every=9")
    with pytest.raises(BadInput, match="the run has 8 steps: no gradient would ever come down"):
        check(config, 4, 1024, 4)
