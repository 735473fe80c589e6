"""Simulated time and energy against numbers worked out by hand (see ledgers.py)."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.schema import MESSAGES, WORK
from mocosfl_mpi.retime.model import PARTS, retime, slowdowns, time_to_accuracy
from mocosfl_mpi.retime.profiles import Device, Network, Server
from tests.unit.retime.ledgers import write

DEVICE = Device(kind="device", title="d", compute_gigaflop_per_second=2, compute_watt=4.0, idle_watt=1.0)
NETWORK = Network(
    kind="network",
    title="n",
    up_megabit_per_second=8,  # 1 MB/s
    down_megabit_per_second=16,  # 2 MB/s
    round_trip_millisecond=100,
    message_overhead_millisecond=10,
    radio_watt=2.0,
)
SERVER = Server(kind="server", title="s", compute_gigaflop_per_second=40)


def changed(profile, **changes):
    return type(profile).model_validate(profile.model_dump() | changes)


@pytest.fixture
def timed(tmp_path):
    path = write(tmp_path / "run.h5", epochs=3, accuracies=[(0, 20.0), (1, 40.0), (2, 58.0), (3, 60.0)])

    def time(device=DEVICE, network=NETWORK, server=SERVER, **options):
        with open_run(path) as run:
            return retime(run, device, network, server, **options)

    time.path = path
    return time


def test_every_part_is_the_one_worked_out_by_hand(timed):
    found = timed()
    assert list(found.parts) == list(PARTS)
    expected = {
        "fetch": 0.25 + 0.050 + 0.010,  # half a megabyte down, half a round trip, one message
        "compute": 2 * 1.0,  # 4 GFLOP in two steps at 2 GFLOP/s
        "upload": 2 * 2.0,  # query and key: 2 MB a step
        "server": 2 * 0.5,  # 4 rows of 4 members at 1 GFLOP, 4 GFLOP a step, 40 GFLOP/s
        "download": 2 * 0.5,
        "latency": 2 * (0.050 + 2 * 0.010 + 0.050 + 0.010),
        "synchronise": 0.5 + 0.25 + 0.100 + 2 * 0.010,
    }
    for name, seconds in expected.items():
        np.testing.assert_allclose(found.parts[name], [seconds] * 3, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(found.seconds, [9.44] * 3)
    assert found.steps.tolist() == [2, 2, 2]
    assert found.syncs.tolist() == [1, 1, 1]
    assert found.members == 4


def test_steps_without_a_download_and_epochs_without_an_upload(timed):
    """Epoch 1 is a replay; in epoch 2 gradients come down in one of the two steps."""
    columns = [MESSAGES.index(name) for name in ("query_up", "key_up", "gradient_down")]
    with h5py.File(timed.path, "r+") as file:
        for name in ("simulated/bytes", "simulated/messages"):
            file[name][1, :, columns[0] : columns[2] + 1] = 0
            file[name][2, :, columns[2]] = file[name][2, :, columns[2]] // 2
        file["simulated/client_flops"][1] = 0
    assert columns == [0, 1, 2]
    found = timed()
    for name, replay, half in (
        ("compute", 0.0, 2.0),
        ("upload", 0.0, 4.0),
        ("server", 1.0, 1.0),  # the server's work is the same
        ("download", 0.0, 0.5),
        ("latency", 0.0, 2 * (0.050 + 2 * 0.010) + 0.050 + 0.010),
    ):
        np.testing.assert_allclose(found.parts[name][1:], [replay, half], rtol=1e-12, err_msg=name)


def test_compressed_exchanges_are_told_from_full_copies(timed):
    """100 kB of momentum each way at the synchronisation, and for the last member a copy of 500 kB before it."""
    with h5py.File(timed.path, "r+") as file:
        for name, once, copy in (("messages", 1, 1), ("bytes", 100_000, 500_000)):
            for way in ("up", "down"):
                file[f"simulated/{name}"][:, :, MESSAGES.index(f"momentum_{way}")] = once
            file[f"simulated/{name}"][:, 3, MESSAGES.index("momentum_down")] = once + copy
    found = timed()
    np.testing.assert_allclose(found.parts["fetch"], [0.5 + 0.050 + 2 * 0.010] * 3)
    np.testing.assert_allclose(found.parts["synchronise"], [0.6 + 0.3 + 0.100 + 4 * 0.010] * 3)


def test_a_step_of_two_round_trips_waits_for_both(timed):
    """100 kB of features down and their gradients up in each of two steps, beside what was there."""
    before = timed()
    with h5py.File(timed.path, "r+") as file:
        for name, each in (("messages", 2), ("bytes", 200_000)):
            for message in ("features_down", "gradient_up"):
                file[f"simulated/{name}"][:, :, MESSAGES.index(message)] = each
    found = timed()
    np.testing.assert_allclose(found.parts["upload"] - before.parts["upload"], [2 * 0.1] * 3)
    np.testing.assert_allclose(found.parts["download"] - before.parts["download"], [2 * 0.05] * 3)
    np.testing.assert_allclose(found.parts["latency"] - before.parts["latency"], [2 * (0.100 + 2 * 0.010)] * 3)


def test_labels_are_sent_in_every_step(timed):
    before = timed()
    with h5py.File(timed.path, "r+") as file:
        for name, each in (("messages", 2), ("bytes", 1_600)):
            file[f"simulated/{name}"][:, :, MESSAGES.index("labels_up")] = each
    np.testing.assert_allclose(timed().parts["upload"] - before.parts["upload"], [1_600 / 1e6] * 3)


def test_bytes_and_flops_used_are_those_recorded(timed):
    found = timed(sigma=0.7, seed=3)
    with open_run(timed.path) as run:
        assert found.bytes_used.tolist() == run["simulated/bytes"].sum(axis=(1, 2)).tolist()
        np.testing.assert_allclose(found.flops_used, run["simulated/client_flops"].sum(axis=(1, 2)), rtol=1e-12)
    assert found.bytes_used[0] == 4 * 7_000_000 + 500_000


def test_energy_by_hand(timed):
    found = timed()
    assert found.energy["compute"][0] == pytest.approx(4 * 2.0 * 4.0)
    assert found.energy["idle"][0] == pytest.approx(4 * (9.44 - 2.0) * 1.0)
    assert found.energy["radio"][0] == pytest.approx((4 * (2 * 2.5 + 0.75) + 0.25) * 2.0)
    assert found.joules[0] == pytest.approx(32 + 29.76 + 46.5)


def test_energy_by_payload_and_unknown_energy(timed):
    by_payload = timed(network=changed(NETWORK, radio_watt=None, radio_joule_per_megabyte=3.0))
    assert by_payload.energy["radio"][0] == pytest.approx(28.5 * 3.0)
    for found in (
        timed(network=changed(NETWORK, radio_watt=None)),
        timed(device=changed(DEVICE, idle_watt=None)),
        timed(device=changed(DEVICE, compute_watt=None)),
    ):
        assert found.joules is None
        assert sum(part is None for part in found.energy.values()) == 1


def test_the_servers_link_is_shared_evenly(timed):
    wide = timed(server=changed(SERVER, receive_megabit_per_second=400.0))
    narrow = timed(server=changed(SERVER, receive_megabit_per_second=16.0, send_megabit_per_second=16.0))
    np.testing.assert_array_equal(wide.seconds, timed().seconds)
    assert narrow.parts["upload"][0] == pytest.approx(2 * 4.0)  # 16 / 4 = 4 Mbit/s
    assert narrow.parts["download"][0] == pytest.approx(2 * 2.0)
    assert narrow.parts["compute"][0] == 2.0


def test_a_step_waits_for_the_slowest_client(timed):
    clients = np.array([[0, 3, 4, 5], [1, 3, 4, 5], [2, 3, 4, 5]])
    factor = slowdowns(clients, 0.8, 11)
    found = timed(sigma=0.8, seed=11)
    worst = factor.max(axis=1)
    np.testing.assert_allclose(found.parts["compute"], 2.0 * worst)
    np.testing.assert_allclose(found.parts["upload"], 4.0 * worst)
    np.testing.assert_allclose(found.parts["synchronise"], 0.75 * worst + 0.12)
    np.testing.assert_allclose(found.parts["fetch"], 0.25 * factor[:, 3] + 0.06)
    np.testing.assert_allclose(found.parts["latency"], 0.26)  # distance does not depend on the device
    np.testing.assert_allclose(found.parts["server"], 1.0)
    assert found.slowdown == (factor.min(), factor.max())


def test_slowdowns_depend_on_seed_and_client_alone():
    together = slowdowns(np.arange(2000), 0.5, 7)
    alone = slowdowns(np.array([[1999], [17]]), 0.5, 7)
    assert alone.tolist() == [[together[1999]], [together[17]]]
    assert together[0] != slowdowns(np.arange(1), 0.5, 8)[0]
    logs = np.log(together)
    assert abs(logs.mean()) < 4 * 0.5 / 2000**0.5
    assert logs.std() == pytest.approx(0.5, rel=0.07)  # 4 standard errors
    np.testing.assert_allclose(np.log(slowdowns(np.arange(5), 1.0, 7)), 2 * logs[:5])
    assert slowdowns(np.arange(3), 0.0, 7).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf"), 11.0])
def test_impossible_spread(sigma):
    with pytest.raises(BadInput, match="--stragglers"):
        slowdowns(np.arange(3), sigma, 0)


def test_time_to_accuracy(timed):
    seconds = timed().seconds
    with open_run(timed.path) as run:
        default, first, never = (time_to_accuracy(run, seconds, target) for target in (None, 15.0, 60.5))
    assert default.accuracy == pytest.approx(57.0)
    assert (default.reached, default.epoch, default.seconds) == (58.0, 2, pytest.approx(2 * 9.44))
    assert (first.reached, first.epoch, first.seconds) == (20.0, 0, 0.0)
    assert (never.accuracy, never.reached, never.seconds) == (60.5, None, None)


def test_no_evaluations(tmp_path):
    with open_run(write(tmp_path / "run.h5")) as run:
        assert time_to_accuracy(run, np.array([1.0])) is None
    with open_run(write(tmp_path / "b.h5", accuracies=[(1, np.nan)])) as run:
        assert time_to_accuracy(run, np.array([1.0])) is None


def test_a_killed_run_is_timed_up_to_its_last_whole_epoch(tmp_path):
    path = write(
        tmp_path / "run.h5", epochs=2, accuracies=[(0, 10.0), (2, 50.0), (3, 99.0)], completed=False, spare_steps=1
    )
    with open_run(path) as run:
        assert not run.completed
        assert run.rows["step"] == 5
        found = retime(run, DEVICE, NETWORK, SERVER)
        np.testing.assert_allclose(found.seconds, [9.44] * 2)
        target = time_to_accuracy(run, found.seconds)
    assert (target.epoch, target.reached) == (2, 50.0)


def test_nothing_to_time_yet(tmp_path):
    with (
        open_run(write(tmp_path / "run.h5", epochs=0, completed=False, spare_steps=1)) as run,
        pytest.raises(BadInput, match="no whole epoch"),
    ):
        retime(run, DEVICE, NETWORK, SERVER)


def put(name, place, value):
    def act(file):
        file[name][place] = value

    return act


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("simulated/bytes", (0, 0, 0), -1), "negative"),
        (put("simulated/messages", (0, 0, 0), 0), "without messages"),
        (put("steps/epoch", slice(None), 7), "without steps"),
        (put("syncs/epoch", slice(None), 7), "without synchronisation"),
        (put("cost/flops_per_image", (0, 0), 0), "compute nothing"),
        (put("message", 0, b"smoke_signal"), "no known message"),
        (put("work", 0, b"thought"), "another version"),
    ],
)
def test_a_ledger_that_contradicts_itself(tmp_path, change, reason):
    path = write(tmp_path / "run.h5")
    with h5py.File(path, "r+") as file:
        change(file)
    with open_run(path) as run, pytest.raises(BadInput, match=reason):
        retime(run, DEVICE, NETWORK, SERVER)


class Recorded(dict):
    """As much of an open run as the model reads."""

    path = "run.h5"

    def __init__(self, values, method):
        super().__init__(values)
        self.attrs = {"method": method}

    @property
    def rows(self):
        return {"epoch": 1}


@pytest.mark.parametrize(
    ("count", "each", "flops"),
    [(16, (50, 10), 2 * 100 + 3 * 7), (8, (10, 10), 5 * 7), (40, (50, 50), 5 * 100)],
    ids=["one of them", "neither", "both"],
)
def test_the_server_computes_less_for_clients_with_a_deeper_cut(count, each, flops):
    """Clients 3 and 8 with 2 and 3 rows, where a quarter of the ``count`` clients are rich."""
    work = np.zeros((1, 2, 5), int)
    work[0, :, 0] = 2 * each[0], 3 * each[1]
    per_image = {"cost/flops_per_image": (10, 7), "cost/rich_flops_per_image": (50, 100)}
    segments = {
        name: np.array([[client, 0, 0, 0, 0], [server, 0, 0, 0, 0]]) for name, (client, server) in per_image.items()
    }
    messages = np.zeros((1, 2, len(MESSAGES)), int)
    run = Recorded(
        {
            "epochs/clients": np.array([[3, 8]]),
            "steps/epoch": np.zeros(1, int),
            "syncs/epoch": np.zeros(1, int),
            "simulated/messages": messages,
            "simulated/bytes": messages,
            "simulated/client_flops": work,
            "message": np.array(MESSAGES, dtype=object),
            "work": np.array(WORK, dtype=object),
            "segment": np.array(["client", "server"], dtype=object),
            "cost/flops_per_step": np.zeros((2, 5), int),
            **segments,
        },
        "mocosfl",
    )
    run.attrs["config"] = {"model": {"rich_cut_layer": 3}, "client": {"rich_share": 0.25, "count": count}}
    run.names = list(run)
    assert retime(run, DEVICE, NETWORK, SERVER).parts["server"] == pytest.approx(flops / 40e9)
    del run.attrs["config"]["client"]["rich_share"]
    with pytest.raises(BadInput, match="nothing about rich clients"):
        retime(run, DEVICE, NETWORK, SERVER)


@given(data=st.data(), steps=st.integers(1, 20), syncs=st.integers(1, 5), members=st.integers(1, 4))
def test_conservation(data, steps, syncs, members):
    """Whatever clients sent is timed, once: bytes used are bytes recorded, and no time is negative."""
    messages = np.zeros((1, members, len(MESSAGES)), int)
    for i, name in enumerate(MESSAGES):
        model = name.startswith(("weights", "momentum", "velocity"))
        for member in range(members):
            extra = data.draw(st.integers(0, 2)) if name.endswith("down") else 0
            messages[0, member, i] = (syncs + extra if data.draw(st.booleans()) else 0) if model else steps
    each = np.array([data.draw(st.integers(0, 2**40)) for _ in MESSAGES])
    flops = np.array(data.draw(st.lists(st.integers(0, 2**50), min_size=5, max_size=5)))
    run = Recorded(
        {
            "epochs/clients": np.arange(members)[None],
            "steps/epoch": np.zeros(steps, int),
            "syncs/epoch": np.zeros(syncs, int),
            "simulated/messages": messages,
            "simulated/bytes": messages * each,
            "simulated/client_flops": np.tile(flops, (1, members, 1)),
            "message": np.array(MESSAGES, dtype=object),
            "work": np.array(WORK, dtype=object),
            "segment": np.array(["client", "server"], dtype=object),
            "cost/flops_per_image": np.ones((2, 5), int),
            "cost/flops_per_step": np.ones((2, 5), int),
        },
        data.draw(st.sampled_from(["mocosfl", "sfl_v2", "split_vertical", "a later one"])),
    )
    found = retime(run, DEVICE, NETWORK, SERVER, sigma=1.0, seed=data.draw(st.integers(0, 9)))
    np.testing.assert_allclose(found.bytes_used, (messages * each).sum(), rtol=1e-12)
    np.testing.assert_allclose(found.flops_used, flops.sum() * members, rtol=1e-12)
    assert all((part >= 0).all() for part in found.parts.values())
    assert found.seconds[0] >= flops.sum() / 2e9 * found.slowdown[0] * (1 - 1e-12)
