"""The simulated ledger against numbers worked out by hand, on complete small runs in this process."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mocosfl_mpi.config import apply_settings, parse
from mocosfl_mpi.presets import load
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.schema import MEMORY, MESSAGES, WORK
from mocosfl_mpi.simulation import Conduct, Simulation
from mocosfl_mpi.split import cut

# smoke: 1 input channel, width 4, cut 2 = stem (36 weights, 8 affine) + block (2 x 144 weights, 16 affine)
PARAMETERS = 36 + 8 + 2 * 144 + 16
SMASHED_FLOATS = 4 * 16 * 16
EPOCHS, STEPS, SYNCS, BATCH, FLOAT = 2, 4, 2, 2, 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run smoke in this process with some settings; what its file says, and the simulation."""

    def start(*settings):
        _, values = load("smoke")
        config = parse(apply_settings(values, ["evaluation.linear_probe=false", *settings]), "smoke")
        out = tmp_path_factory.mktemp("run") / "out"
        simulation = Simulation.begin(config, Conduct("smoke", out, quiet=True))
        simulation.run()
        with open_run(out) as file:
            names = (
                "simulated/bytes",
                "simulated/messages",
                "simulated/client_flops",
                "epochs/clients",
                "cost/client_memory",
                "epochs/state",
            )
            return simulation, {name: file[name] for name in names if name in file.names} | {"summary": file.summary()}

    return start


def entries(pools):
    """Per epoch and member, whether the client must fetch the model first: it has changed since it last had it."""
    held, version, stale = {}, 0, []
    for pool in pools:
        stale.append([held.get(int(client), 0) != version for client in pool])
        version += SYNCS
        held |= {int(client): version for client in pool}
    return np.array(stale)


@pytest.mark.parametrize(
    ("settings", "up", "down", "aligned"),
    [
        (("contrast.symmetric=published",), 1, 1, ("weights",)),
        (("contrast.symmetric=off", "method=monacosfl"), 1, 1, ("weights", "momentum")),
        (("contrast.symmetric=both_views", "method=monacosfl"), 2, 2, ("weights", "momentum")),
        (("client.velocity_at_sync=averaged",), 1, 1, ("weights", "velocity")),
        (("compute.precision=fp64",), 2, 2, ("weights",)),
        (("compute.precision=bf16", "method=monacosfl"), 0.5, 0.5, ("weights", "momentum")),
        (("client.frozen=true",), 1, 0, ()),
    ],
)
def test_bytes_and_messages_are_those_worked_out_by_hand(run, settings, up, down, aligned):
    _, found = run("compute.precision=fp32", *settings)
    message = STEPS * BATCH * SMASHED_FLOATS * FLOAT
    wide = 2 if "compute.precision=fp64" in settings else 1
    weights = PARAMETERS * FLOAT * wide
    stale = entries(found["epochs/clients"])
    for name in MESSAGES:
        measured = found["simulated/bytes"][:, :, MESSAGES.index(name)]
        count = found["simulated/messages"][:, :, MESSAGES.index(name)]
        kind, _, direction = name.rpartition("_")
        if kind in ("query", "key"):
            assert (measured == up * message).all(), name
            assert (count == STEPS).all()
        elif kind == "gradient":
            assert (measured == down * message).all()
            assert (count == (STEPS if down else 0)).all()
        else:
            expected = (SYNCS + (stale if direction == "down" else 0)) * (kind in aligned)
            np.testing.assert_array_equal(count, np.broadcast_to(expected, count.shape), err_msg=name)
            np.testing.assert_array_equal(measured, count * weights)
    assert stale.any(), "sampling must bring in clients with an old model, or this test shows less than it says"


TENSORS = (36, 4, 4, 144, 4, 4, 144, 4, 4)
WHOLE = FLOAT * PARAMETERS
INT8 = PARAMETERS + FLOAT * len(TENSORS)
TOPK = (2 + 8 + 8 + 6) * (4 + FLOAT)
"""Of 5 %: 1.8 of 36 are two, 7.2 of 144 are eight, 0.2 of 4 are one."""
STEM = FLOAT * (36 + 8)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (("federation.alignment=none",), {}),
        (("federation.alignment=online", "method=monacosfl"), {"weights": (1, WHOLE, WHOLE)}),
        (
            ("federation.alignment=online_and_momentum",),
            {"weights": (1, WHOLE, WHOLE), "momentum": (1, WHOLE, WHOLE)},
        ),
        (("federation.alignment=momentum_reset",), {"weights": (1, WHOLE, WHOLE)}),
        (
            ("method=monacosfl", "federation.momentum_every=3"),
            {"weights": (1, WHOLE, WHOLE), "momentum": (3, WHOLE, WHOLE)},
        ),
        (
            ("method=monacosfl", "federation.momentum_compression=int8"),
            {"weights": (1, WHOLE, WHOLE), "momentum": (1, INT8, WHOLE)},
        ),
        (
            ("method=monacosfl", "federation.momentum_compression=topk", "federation.momentum_every=5"),
            {"weights": (1, WHOLE, WHOLE), "momentum": (5, TOPK, WHOLE)},
        ),
        (
            ("method=monacosfl", "federation.aligned_layers=['stem']", "client.velocity_at_sync=averaged"),
            dict.fromkeys(("weights", "momentum", "velocity"), (1, STEM, STEM)),
        ),
    ],
)
def test_bytes_of_every_alignment_are_those_worked_out_by_hand(run, settings, expected):
    """``expected``: by kind, at every so-manieth synchronisation, bytes each way, bytes of a copy."""
    _, found = run("compute.precision=fp32", "epochs=5", *settings)
    pools = found["epochs/clients"]
    for kind in ("weights", "momentum", "velocity"):
        every, each_way, copy = expected.get(kind, (10**9, 0, 0))
        version, held = 0, {}
        for epoch, pool in enumerate(pools):
            numbers = range(epoch * SYNCS + 1, (epoch + 1) * SYNCS + 1)
            syncs = sum(number % every == 0 for number in numbers)
            for member, client in enumerate(pool):
                stale = held.get(int(client), 0) != version
                at = (slice(epoch, epoch + 1), member)
                up, down = (MESSAGES.index(f"{kind}_{way}") for way in ("up", "down"))
                assert found["simulated/messages"][*at, up] == syncs
                assert found["simulated/bytes"][*at, up] == syncs * each_way
                assert found["simulated/messages"][*at, down] == syncs + stale
                assert found["simulated/bytes"][*at, down] == syncs * each_way + stale * copy
            version += syncs
            held |= {int(client): version for client in pool}


SAMPLES = STEPS * BATCH


@pytest.mark.parametrize(
    ("settings", "up", "down"),
    [
        (("communication.smashed=int8",), SMASHED_FLOATS + 4, SMASHED_FLOATS * FLOAT),  # and a scale
        (("communication.gradient=int8",), SMASHED_FLOATS * FLOAT, SMASHED_FLOATS + 4),
        (("communication.smashed=bf16", "communication.gradient=bf16"), SMASHED_FLOATS * 2, SMASHED_FLOATS * 2),
        (("communication.smashed=topk",), 52 * (4 + FLOAT), SMASHED_FLOATS * FLOAT),  # 5 % of 1024 are 51.2
        (("communication.gradient=topk", "communication.topk=0.25"), SMASHED_FLOATS * FLOAT, 256 * (4 + FLOAT)),
        (
            ("communication.smashed=int8", "communication.gradient=topk", "compute.precision=bf16"),
            SMASHED_FLOATS + 4,  # the scale of bfloat16 rows is a float32
            52 * (4 + 2),
        ),
        (("communication.smashed=int8", "compute.precision=fp64"), SMASHED_FLOATS + 8, SMASHED_FLOATS * 8),
        (("communication.smashed=int8", "client.frozen=true"), SMASHED_FLOATS + 4, 0),
    ],
)
def test_bytes_of_compressed_samples_are_those_worked_out_by_hand(run, settings, up, down):
    _, found = run("compute.precision=fp32", *settings)
    for name, each in (("query_up", up), ("key_up", up), ("gradient_down", down)):
        assert (found["simulated/bytes"][:, :, MESSAGES.index(name)] == SAMPLES * each).all(), name
        assert (found["simulated/messages"][:, :, MESSAGES.index(name)] == STEPS * (each > 0)).all(), name


def test_gradients_that_come_down_every_third_step(run):
    """Of eight steps the third and the sixth: one in each epoch."""
    _, plain = run("compute.precision=fp32", "contrast.symmetric=off")
    _, found = run("compute.precision=fp32", "contrast.symmetric=off", "communication.download_every=3")
    down = MESSAGES.index("gradient_down")
    assert (found["simulated/messages"][:, :, down] == 1).all()
    assert (found["simulated/bytes"][:, :, down] == BATCH * SMASHED_FLOATS * FLOAT).all()
    others = [place for place in range(len(MESSAGES)) if place != down]
    np.testing.assert_array_equal(found["simulated/bytes"][:, :, others], plain["simulated/bytes"][:, :, others])
    same, fewer = [WORK.index(name) for name in ("query_forward", "key_forward", "ema")], [WORK.index("backward"), -1]
    assert WORK[-1] == "optimiser"
    flops = found["simulated/client_flops"]
    np.testing.assert_array_equal(flops[:, :, same], plain["simulated/client_flops"][:, :, same])
    np.testing.assert_array_equal(flops[:, :, fewer] * STEPS, plain["simulated/client_flops"][:, :, fewer])


def test_three_states(run):
    """A, A, B, C: three tensors a step, two, none; models travel all the time."""
    saving = ("communication.loss_threshold=1000", "communication.warmup_epochs=0", "epochs=4")
    _, found = run("compute.precision=fp32", "contrast.symmetric=off", *saving)
    assert found["epochs/state"].tolist() == [0, 0, 1, 2]
    message = STEPS * BATCH * SMASHED_FLOATS * FLOAT
    for name, epochs in (("query_up", [1, 1, 1, 0]), ("key_up", [1, 1, 1, 0]), ("gradient_down", [1, 1, 0, 0])):
        place = MESSAGES.index(name)
        for epoch, travels in enumerate(epochs):
            assert (found["simulated/bytes"][epoch, :, place] == travels * message).all()
            assert (found["simulated/messages"][epoch, :, place] == travels * STEPS).all()
    stale = entries(found["epochs/clients"])
    for way in ("up", "down"):
        weights = found["simulated/bytes"][:, :, MESSAGES.index(f"weights_{way}")]
        np.testing.assert_array_equal(
            weights, (SYNCS + (stale if way == "down" else 0)) * WHOLE + np.zeros_like(weights)
        )
    forward, learning = 2 * STEPS * BATCH * (16 * 16 * 4 * 9 + 2 * 16 * 16 * 4 * 4 * 9), STEPS * 6 * PARAMETERS
    for name in ("query_forward", "key_forward", "ema"):
        each = STEPS * 3 * PARAMETERS if name == "ema" else forward
        flops = found["simulated/client_flops"][:, :, WORK.index(name)]
        np.testing.assert_array_equal(flops, np.tile(np.array([[1], [1], [1], [0]]) * each, (1, flops.shape[1])))
    assert (found["simulated/client_flops"][:, 0, WORK.index("optimiser")] == [learning, learning, 0, 0]).all()
    assert (found["simulated/client_flops"][:2, :, WORK.index("backward")] > 0).all()
    assert not found["simulated/client_flops"][2:, :, WORK.index("backward")].any()
    saved = found["summary"]["saving"]
    assert saved == {
        "A": 2,
        "B": 1,
        "C": 1,
        "saved_epochs": 1.5,
        "saved_epochs_published": 2.5,
        "saved_share": saved["saved_share"],
    }
    assert saved["saved_share"] == pytest.approx(1 - (3 + 3 + 2) / 12)


def test_compression_costs_memory_on_the_device(run):
    _, plain = run("method=monacosfl")
    _, found = run("method=monacosfl", "federation.momentum_compression=int8", "federation.aligned_layers=['stem']")
    more = dict(zip(MEMORY, found["cost/client_memory"] - plain["cost/client_memory"], strict=True))
    assert {kind: amount for kind, amount in more.items() if amount} == {"momentum_weights": 2 * STEM, "peak": 2 * STEM}


def test_flops_are_those_worked_out_by_hand(run):
    _, found = run("contrast.symmetric=off")
    flops = dict(zip(WORK, found["simulated/client_flops"][0, 0], strict=True))
    stem, conv = 16 * 16 * 4 * 1 * 9, 16 * 16 * 4 * 4 * 9  # MACs
    forward = 2 * (stem + 2 * conv)
    assert flops["query_forward"] == flops["key_forward"] == STEPS * BATCH * forward
    # weight gradients cost one forward; input gradients are needed by all but the first layer
    assert flops["backward"] == STEPS * BATCH * (forward + 2 * 2 * conv)
    assert flops["ema"] == STEPS * 3 * PARAMETERS
    assert flops["optimiser"] == STEPS * 6 * PARAMETERS


def test_frozen_clients_change_nothing_and_get_nothing(run):
    simulation, found = run("client.frozen=true", "method=monacosfl")
    downlinks = [MESSAGES.index(name) for name in MESSAGES if name.endswith("_down")]
    assert not found["simulated/bytes"][:, :, downlinks].any()
    assert not found["simulated/client_flops"][:, :, WORK.index("backward") :].any()
    network = cut.build(simulation.config.model, 1, 16, simulation.streams, torch.float32)
    initial = torch.cat([p.detach().flatten() for p in network.bottom.parameters()])
    shared = simulation.clients.shared
    assert (shared["online"] == initial).all()
    assert (shared["momentum"] == initial).all()
    assert simulation.clients.digests() == []
