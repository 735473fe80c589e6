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
            )
            return simulation, {name: file[name] for name in names}

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


@pytest.mark.parametrize("method", ["sfl_v1", "sfl_v2"])
def test_with_labels_one_view_goes_up_and_its_labels(run, method):
    _, found = run("compute.precision=fp32", f"method={method}")
    message, weights = STEPS * BATCH * SMASHED_FLOATS * FLOAT, PARAMETERS * FLOAT
    stale = entries(found["epochs/clients"])
    expected = {
        "query_up": message,
        "labels_up": STEPS * BATCH * 8,
        "gradient_down": message,
        "weights_up": SYNCS * weights,
        "weights_down": (SYNCS + stale) * weights,
    }
    for name in MESSAGES:
        measured = found["simulated/bytes"][:, :, MESSAGES.index(name)]
        np.testing.assert_array_equal(measured, np.broadcast_to(expected.get(name, 0), measured.shape), err_msg=name)
    flops = dict(zip(WORK, found["simulated/client_flops"][0, 0], strict=True))
    stem, conv = 16 * 16 * 4 * 1 * 9, 16 * 16 * 4 * 4 * 9  # MACs
    forward = 2 * (stem + 2 * conv)
    assert flops == {
        "query_forward": STEPS * BATCH * forward,
        "key_forward": 0,
        "backward": STEPS * BATCH * (forward + 2 * 2 * conv),
        "ema": 0,
        "optimiser": STEPS * 6 * PARAMETERS,
    }
    memory = dict(zip(MEMORY, found["cost/client_memory"], strict=True))
    assert memory["momentum_weights"] == 0
    assert memory["input"] == BATCH * 16 * 16 * FLOAT


def test_a_client_hands_its_part_to_the_next(run):
    """One up at the end of a turn; one down as the next begins, but not for the first, who has what all began with."""
    _, found = run("compute.precision=fp32", "method=split_vanilla", "client.count=3", "epochs=7")
    pools = found["epochs/clients"]
    assert pools.shape == (7, 1)
    assert (pools[3:] == pools[:-3]).all()
    assert sorted(pools[:3, 0]) == [0, 1, 2]
    up, down = (found["simulated/bytes"][:, 0, MESSAGES.index(f"weights_{way}")] for way in ("up", "down"))
    assert up.tolist() == [PARAMETERS * FLOAT] * 7
    assert down.tolist() == [0] + [PARAMETERS * FLOAT] * 6


def test_u_shaped_clients_send_no_labels_and_compute_the_classifier(run):
    _, found = run("compute.precision=fp32", "method=split_u_shaped", "client.count=3", "epochs=4")
    features, classes = 4 * 8, 10
    head = features * classes + classes
    message, wide = STEPS * BATCH * SMASHED_FLOATS * FLOAT, STEPS * BATCH * features * FLOAT
    sent = {name: found["simulated/bytes"][:, 0, MESSAGES.index(name)].tolist() for name in MESSAGES}
    weights = (PARAMETERS + head) * FLOAT
    assert {name: amount for name, amount in sent.items() if any(amount)} == {
        "query_up": [message] * 4,
        "features_down": [wide] * 4,
        "gradient_up": [wide] * 4,
        "gradient_down": [message] * 4,
        "weights_up": [weights] * 4,
        "weights_down": [0, weights, weights, weights],
    }
    flops = dict(zip(WORK, found["simulated/client_flops"][0, 0], strict=True))
    stem, conv = 16 * 16 * 4 * 1 * 9, 16 * 16 * 4 * 4 * 9  # MACs
    forward, product = 2 * (stem + 2 * conv), 2 * features * classes
    assert flops["query_forward"] == STEPS * BATCH * (forward + product)
    assert flops["backward"] == STEPS * BATCH * (forward + 2 * 2 * conv + 2 * product)
    assert flops["optimiser"] == STEPS * 6 * (PARAMETERS + head)
    memory = dict(zip(MEMORY, found["cost/client_memory"], strict=True))
    assert memory["weights"] == memory["velocity"] == memory["gradients"] == weights
    assert memory["peak"] > memory["weights"] + memory["velocity"] + memory["input"] + memory["activations"]


def test_clients_with_pieces_send_maps_of_pieces_and_nothing_else(run):
    _, found = run("compute.precision=fp32", "method=split_vertical", "client.count=4")
    message = STEPS * BATCH * SMASHED_FLOATS // 4 * FLOAT
    sent = {name: found["simulated/bytes"][..., MESSAGES.index(name)] for name in MESSAGES}
    assert {name for name, amount in sent.items() if amount.any()} == {"query_up", "gradient_down"}
    assert (sent["query_up"] == message).all()
    assert (sent["gradient_down"] == message).all()
    assert sent["query_up"].shape == (EPOCHS, 4)
    flops = dict(zip(WORK, found["simulated/client_flops"][0, 0], strict=True))
    stem, conv = 8 * 8 * 4 * 1 * 9, 8 * 8 * 4 * 4 * 9  # MACs
    assert flops["query_forward"] == STEPS * BATCH * 2 * (stem + 2 * conv)
