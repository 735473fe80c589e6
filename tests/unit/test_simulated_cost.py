"""The simulated ledger against numbers worked out by hand, on complete small runs in this process."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mocosfl_mpi.clients.reliability import Reliability
from mocosfl_mpi.config import apply_settings, parse
from mocosfl_mpi.networks import STAGES
from mocosfl_mpi.presets import load
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.schema import MEMORY, MESSAGES, WORK
from mocosfl_mpi.saving import Trip
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
                "work",
                "epochs/clients",
                "cost/client_memory",
                "steps/loss",
                "divergence/online_mean",
                "cost/rich_client_memory",
                "cost/defence_memory",
                "cost/rich_defence_memory",
                "cost/macs_per_image",
                "cost/flops_per_image",
                "epochs/state",
            )
            failures = ("epochs/present", "syncs/present", "steps/heard", "simulated/lost")
            known = {name: file[name] for name in (*names, *failures) if name in file.names}
            return simulation, known | {"summary": file.summary()}

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
        elif name == "gradient_down":
            assert (measured == down * message).all()
            assert (count == (STEPS if down else 0)).all()
        else:
            expected = (SYNCS + (stale if direction == "down" else 0)) * (kind in aligned)
            np.testing.assert_array_equal(count, np.broadcast_to(expected, count.shape), err_msg=name)
            np.testing.assert_array_equal(measured, count * weights)
    assert stale.any(), "sampling must bring in clients with an old model, or this test shows less than it says"


FAILING = {"client_dropout": 0.3, "query_loss": 0.3, "key_loss": 0.2, "gradient_loss": 0.3, "sync_miss": 0.4}


def test_what_is_lost_was_sent_and_costs_its_sender(run):
    """Messages, bytes and FLOPs of each client, from what happened to it in every step."""
    chances = [f"reliability.{name}={chance}" for name, chance in FAILING.items()]
    simulation, found = run("compute.precision=fp32", "contrast.symmetric=off", "epochs=4", *chances)
    reliability = Reliability(simulation.config, simulation.streams)
    stem, conv = 16 * 16 * 4 * 1 * 9, 16 * 16 * 4 * 4 * 9  # MACs
    forward, backward = 2 * (stem + 2 * conv), 2 * (stem + 2 * conv) + 2 * 2 * conv
    version, held, total = 0, {}, dict.fromkeys(("dropped", "unheard", "lost", "missed", "stale"), 0)
    heard = np.zeros((4, STEPS), dtype=int)
    for epoch, drawn in enumerate(found["epochs/clients"]):
        pool = reliability.survivors(epoch, drawn).tolist()
        present = [reliability.present(epoch, step, np.array(pool)).tolist() for step in (1, 3)]
        for member, client in enumerate(drawn.tolist()):
            sent, lost = dict.fromkeys(MESSAGES, 0), dict.fromkeys(MESSAGES, 0)
            learnt = 0
            there = client in pool
            total["dropped"] += not there
            assert found["epochs/present"][epoch, member] == there
            for step in range(STEPS if there else 0):
                delivery = reliability.delivery(Trip(epoch, step), np.array([client]))
                query, key, gradient = (bool(kind[0]) for kind in (delivery.query, delivery.key, delivery.gradient))
                sent["query_up"] += 1
                sent["key_up"] += 1
                lost["query_up"] += not query
                lost["key_up"] += not key
                if query and key:
                    heard[epoch, step] += 1
                    sent["gradient_down"] += 1
                    lost["gradient_down"] += not gradient
                    learnt += gradient
            if there:
                synchronised = sum(row[pool.index(client)] for row in present)
                stale = held.get(client, 0) != version
                sent["weights_up"], sent["weights_down"] = synchronised, synchronised + stale
                total["missed"] += 2 - synchronised
                total["stale"] += stale
                for number in range(2):
                    row = found["syncs/present"][2 * epoch + number]
                    assert row[member] == present[number][pool.index(client)]
            np.testing.assert_array_equal(found["simulated/messages"][epoch, member], list(sent.values()))
            np.testing.assert_array_equal(found["simulated/lost"][epoch, member], list(lost.values()))
            sizes = dict.fromkeys(MESSAGES, BATCH * SMASHED_FLOATS * FLOAT)
            sizes["weights_up"] = sizes["weights_down"] = PARAMETERS * FLOAT
            expected = [count * sizes[kind] for kind, count in sent.items()]
            np.testing.assert_array_equal(found["simulated/bytes"][epoch, member], expected)
            done = STEPS * there
            flops = [done * BATCH * forward] * 2 + [learnt * BATCH * backward]
            flops += [done * 3 * PARAMETERS, learnt * 6 * PARAMETERS]
            np.testing.assert_array_equal(found["simulated/client_flops"][epoch, member], flops)
            total["lost"] += sum(lost.values())
            if not there:
                assert np.isnan(found["divergence/online_mean"][2 * epoch : 2 * epoch + 2, member]).all()
        version += SYNCS
        held |= dict.fromkeys(pool, version)
    np.testing.assert_array_equal(found["steps/heard"], heard.ravel())
    total["unheard"] = int((heard == 0).sum())
    assert min(total["dropped"], total["lost"], total["missed"], total["stale"]) > 0, total


def test_a_step_in_which_nobody_is_heard_changes_nothing_on_the_server(run):
    chances = ("reliability.query_loss=0.97", "steps_per_epoch=8", "epochs=1")
    simulation, found = run("compute.precision=fp32", *chances)
    nobody = found["steps/heard"] == 0
    assert 0 < nobody.sum() < len(nobody)
    np.testing.assert_array_equal(np.isnan(found["steps/loss"]), nobody)
    fresh = 2 * BATCH * found["steps/heard"].sum()
    assert simulation.main_server.memory.position[0] == fresh % simulation.config.contrast.memory_length
    assert simulation.chronicle._keys == fresh


@pytest.mark.parametrize("symmetric", ["off", "both_views"])
def test_rich_clients_send_and_compute_multiples_and_need_more_memory(run, symmetric):
    """A third of twelve clients with batches three times as large; six take part."""
    rich = ("client.rich_share=0.34", "client.rich_batch_factor=3", "partition.rich_data=0.5", "epochs=4")
    rich += ("partition.kind=shards_full",)
    same = ("compute.precision=fp32", f"contrast.symmetric={symmetric}", f"steps_per_epoch={STEPS}")
    simulation, found = run(*same, *rich)
    views = 2 if symmetric == "both_views" else 1
    stem, conv = 16 * 16 * 4 * 1 * 9, 16 * 16 * 4 * 4 * 9  # MACs
    forward, backward = 2 * (stem + 2 * conv), 2 * (stem + 2 * conv) + 2 * 2 * conv
    seen = set()
    for epoch, pool in enumerate(found["epochs/clients"]):
        for member, client in enumerate(pool):
            times = 3 if client < 4 else 1
            seen.add(times)
            rows = STEPS * views * BATCH * times
            sent = dict(zip(MESSAGES, found["simulated/bytes"][epoch, member], strict=True))
            assert sent["query_up"] == sent["key_up"] == sent["gradient_down"] == rows * SMASHED_FLOATS * FLOAT
            assert sent["weights_up"] == SYNCS * PARAMETERS * FLOAT
            flops = [rows * forward] * 2 + [rows * backward, STEPS * 3 * PARAMETERS, STEPS * 6 * PARAMETERS]
            np.testing.assert_array_equal(found["simulated/client_flops"][epoch, member], flops)
    assert seen == {1, 3}
    _, plain = run(*same, f"client.batch_size={3 * BATCH}")
    np.testing.assert_array_equal(found["cost/rich_client_memory"], plain["cost/client_memory"])
    assert found["cost/rich_client_memory"][MEMORY.index("peak")] > found["cost/client_memory"][MEMORY.index("peak")]
    images = simulation.problem.images
    assert images[:4].sum() == images[4:].sum() == images.sum() / 2


MEMORIES = ("client_memory", "rich_client_memory")
DEEPER = (2 * 144 + 16) + (288 + 576 + 32 + 32 + 16)  # a second block, and one of 8 channels with a shortcut


@pytest.mark.parametrize("layers", ["", "federation.aligned_layers=['block2', 'block3']"])
def test_rich_clients_with_a_deeper_cut_send_compute_and_hold_what_they_have(run, layers):
    """A third of twelve clients have two blocks more, and maps of 8 x 8 x 8; six take part."""
    rich = ("client.rich_share=0.34", "client.rich_batch_factor=3", "model.rich_cut_layer=4", "epochs=4")
    same = ("compute.precision=fp32", "contrast.symmetric=off", f"steps_per_epoch={STEPS}", "method=monacosfl")
    _, found = run(*same, *rich, *([layers] if layers else []))
    stem, conv = 16 * 16 * 4 * 1 * 9, 16 * 16 * 4 * 4 * 9  # MACs
    strided = 8 * 8 * (8 * 4 * 9 + 8 * 8 * 9 + 8 * 4)
    aligned = {True: DEEPER, False: 0} if layers else {True: PARAMETERS + DEEPER, False: PARAMETERS}
    stale, seen = entries(found["epochs/clients"]), set()
    for epoch, pool in enumerate(found["epochs/clients"]):
        for member, client in enumerate(pool):
            is_rich = bool(client < 4)
            seen.add((is_rich, bool(stale[epoch, member])))
            rows = STEPS * BATCH * (3 if is_rich else 1)
            inner = 4 * conv + strided if is_rich else 2 * conv
            parameters = PARAMETERS + (DEEPER if is_rich else 0)
            sent = dict(zip(MESSAGES, found["simulated/bytes"][epoch, member], strict=True))
            count = dict(zip(MESSAGES, found["simulated/messages"][epoch, member], strict=True))
            floats = 8 * 8 * 8 if is_rich else SMASHED_FLOATS
            assert sent["query_up"] == sent["key_up"] == sent["gradient_down"] == rows * floats * FLOAT
            assert count["query_up"] == STEPS
            for kind in ("weights", "momentum"):
                assert sent[f"{kind}_up"] == SYNCS * aligned[is_rich] * FLOAT
                assert sent[f"{kind}_down"] == (SYNCS + stale[epoch, member]) * aligned[is_rich] * FLOAT
                assert count[f"{kind}_up"] == SYNCS * (aligned[is_rich] > 0)
            flops = [rows * 2 * (stem + inner)] * 2 + [rows * (2 * (stem + inner) + 2 * inner)]
            flops += [STEPS * 3 * parameters, STEPS * 6 * parameters]
            np.testing.assert_array_equal(found["simulated/client_flops"][epoch, member], flops)
            nothing = np.isnan(found["divergence/online_mean"][SYNCS * epoch, member])
            assert nothing.tolist() == [False] * 9 + [not is_rich] * (6 + 9)
    assert len(seen) == 4
    memory, rich_memory = (dict(zip(MEMORY, found[f"cost/{whose}"], strict=True)) for whose in MEMORIES)
    for kind in ("weights", "momentum_weights", "velocity", "gradients"):
        assert memory[kind] == PARAMETERS * FLOAT
        assert rich_memory[kind] == (PARAMETERS + DEEPER) * FLOAT
    assert rich_memory["input"] == 3 * memory["input"] == 3 * 2 * BATCH * 16 * 16 * FLOAT
    if not layers:
        _, plain = run(*same, f"client.batch_size={3 * BATCH}", "model.cut_layer=4")
        np.testing.assert_array_equal(found["cost/rich_client_memory"], plain["cost/client_memory"])


TENSORS = (36, 4, 4, 144, 4, 4, 144, 4, 4)
WHOLE = FLOAT * PARAMETERS
INT8 = PARAMETERS + FLOAT * len(TENSORS)
TOPK = (2 + 8 + 8 + 6) * (4 + FLOAT)
"""Of 5 %: 1.8 of 36 are two, 7.2 of 144 are eight, 0.2 of 4 are one."""
STEM = FLOAT * (36 + 8)


STEM_INT8 = 36 + 8 + FLOAT * 3


@pytest.mark.parametrize(
    ("settings", "expected", "flops"),
    [
        (("federation.alignment=none",), {}, None),
        (("federation.alignment=online", "method=monacosfl"), {"weights": (1, WHOLE, WHOLE)}, None),
        (
            ("federation.alignment=online_and_momentum",),
            {"weights": (1, WHOLE, WHOLE), "momentum": (1, WHOLE, WHOLE)},
            None,
        ),
        (("federation.alignment=momentum_reset",), {"weights": (1, WHOLE, WHOLE)}, None),
        (
            ("method=monacosfl", "federation.momentum_every=3"),
            {"weights": (1, WHOLE, WHOLE), "momentum": (3, WHOLE, WHOLE)},
            None,
        ),
        (
            ("method=monacosfl", "federation.momentum_compression=int8"),
            {"weights": (1, WHOLE, WHOLE), "momentum": (1, INT8, WHOLE)},
            # x - M + e, / s, · s, u - q, · s, M + q; and max / 127 of each tensor
            7 * PARAMETERS + len(TENSORS),
        ),
        (
            ("method=monacosfl", "federation.momentum_compression=topk", "federation.momentum_every=5"),
            {"weights": (1, WHOLE, WHOLE), "momentum": (5, TOPK, WHOLE)},
            4 * PARAMETERS,  # x - M + e, u - q, M + q: what is chosen is chosen by comparisons
        ),
        (
            (
                "method=monacosfl",
                "federation.momentum_compression=int8",
                "federation.momentum_every=2",
                "federation.aligned_layers=['stem']",
            ),
            {"weights": (1, STEM, STEM), "momentum": (2, STEM_INT8, STEM)},
            7 * (36 + 8) + 3,
        ),
        (
            ("method=monacosfl", "federation.aligned_layers=['stem']", "client.velocity_at_sync=averaged"),
            dict.fromkeys(("weights", "momentum", "velocity"), (1, STEM, STEM)),
            None,
        ),
    ],
)
def test_bytes_and_flops_of_every_alignment_are_those_worked_out_by_hand(run, settings, expected, flops):
    """``expected``: by kind, at every so-manieth synchronisation, bytes each way, bytes of a copy.

    ``flops``: of compression each time that the momentum model is due.
    """
    _, found = run("compute.precision=fp32", "epochs=5", *settings)
    pools = found["epochs/clients"]
    assert found["work"].tolist() == [*WORK, *(["alignment"] if flops else [])]
    if flops:
        every = expected["momentum"][0]
        syncs = [sum(number % every == 0 for number in (2 * epoch + 1, 2 * epoch + 2)) for epoch in range(len(pools))]
        work = found["simulated/client_flops"][:, :, -1]
        np.testing.assert_array_equal(work, np.broadcast_to(flops * np.array(syncs)[:, None], work.shape))
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


BACKBONE = (
    (36 + 8)  # stem
    + (2 * 144 + 16)  # 4 channels
    + (288 + 576 + 32 + 32 + 16)  # 8, with a shortcut
    + (1152 + 2304 + 64 + 128 + 32)  # 16
    + (4608 + 9216 + 128 + 512 + 64)  # 32
)
"""Of a ResNet with a block in each stage."""
FILTERS = 36 + 2 * 144 + (288 + 576 + 32) + (1152 + 2304 + 128) + (4608 + 9216 + 512)
"""Weights of its 12 convolutions, shortcuts included."""
DIVERGENCE = 3 * FILTERS + 2 * 12 + 1
"""Subtraction, square and sum of every weight; a root and a term of the mean of every convolution; a division."""
HEAD = (32 * 16 + 16) + (16 * 16 + 16)
PREDICTOR = 2 * (16 * 16 + 16)


@pytest.mark.parametrize(
    ("method", "parameters", "beside", "mixing"),
    [
        ("fl_byol", BACKBONE + HEAD + PREDICTOR, 0, None),
        ("fedu", BACKBONE + HEAD + PREDICTOR, 0, DIVERGENCE),
        ("fedema", BACKBONE + HEAD + PREDICTOR, FLOAT, DIVERGENCE + 1 + 3 * (BACKBONE + HEAD + PREDICTOR)),
        ("standalone", 0, 0, None),
    ],
)
def test_cost_of_methods_that_keep_own_models_is_that_worked_out_by_hand(
    run, monkeypatch, method, parameters, beside, mixing
):
    """Everything up and down at every synchronisation, once more down with an old model; and nothing else.

    ``mixing``: FLOPs of divergence and mixture at each.
    """
    monkeypatch.setitem(STAGES, "resnet18", (1, 1, 1, 1))
    _, found = run("compute.precision=fp32", "epochs=4", f"method={method}", "evaluation.every=0")
    sent, stale = found["simulated/bytes"], entries(found["epochs/clients"])
    up, down = (MESSAGES.index(f"weights_{way}") for way in ("up", "down"))
    assert (sent[:, :, up] == SYNCS * FLOAT * parameters).all()
    np.testing.assert_array_equal(sent[:, :, down], (SYNCS + stale) * FLOAT * parameters)
    assert not np.delete(sent, [up, down], axis=2).any()
    memory = dict(zip(MEMORY, found["cost/client_memory"], strict=True))
    assert memory["momentum_weights"] == memory["weights"] + beside
    assert memory["weights"] == FLOAT * (parameters or BACKBONE + HEAD)
    assert stale.any()
    assert found["work"].tolist() == [*WORK, *(["alignment"] if mixing else [])]
    if mixing:
        assert (found["simulated/client_flops"][:, :, -1] == SYNCS * mixing).all()


SAMPLES = STEPS * BATCH
QUANTISED = 2 * (SMASHED_FLOATS + 1)
"""x / s of queries and of keys, and max / 127 of each."""


@pytest.mark.parametrize(
    ("settings", "up", "down", "flops"),
    [
        (("communication.smashed=int8",), SMASHED_FLOATS + 4, SMASHED_FLOATS * FLOAT, QUANTISED),  # and a scale
        (("communication.gradient=int8",), SMASHED_FLOATS * FLOAT, SMASHED_FLOATS + 4, SMASHED_FLOATS),
        (("communication.smashed=bf16", "communication.gradient=bf16"), SMASHED_FLOATS * 2, SMASHED_FLOATS * 2, 0),
        (("communication.smashed=topk",), 52 * (4 + FLOAT), SMASHED_FLOATS * FLOAT, 0),  # 5 % of 1024 are 51.2
        (("communication.gradient=topk", "communication.topk=0.25"), SMASHED_FLOATS * FLOAT, 256 * (4 + FLOAT), 0),
        (
            ("communication.smashed=int8", "communication.gradient=topk", "compute.precision=bf16"),
            SMASHED_FLOATS + 4,  # the scale of bfloat16 rows is a float32
            52 * (4 + 2),
            QUANTISED,
        ),
        (("communication.smashed=int8", "compute.precision=fp64"), SMASHED_FLOATS + 8, SMASHED_FLOATS * 8, QUANTISED),
        (("communication.smashed=int8", "client.frozen=true"), SMASHED_FLOATS + 4, 0, QUANTISED),
        (
            ("communication.smashed=int8", "communication.gradient=int8"),
            SMASHED_FLOATS + 4,
            SMASHED_FLOATS + 4,
            QUANTISED + SMASHED_FLOATS,
        ),
    ],
)
def test_bytes_and_flops_of_compressed_samples_are_those_worked_out_by_hand(run, settings, up, down, flops):
    """Bytes of a sample up and down; FLOPs of the client for a sample, of queries, keys and gradients together."""
    _, found = run("compute.precision=fp32", *settings)
    assert found["work"].tolist() == [*WORK, "codec"]
    assert (found["simulated/client_flops"][:, :, -1] == SAMPLES * flops).all()
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
    same = [WORK.index(name) for name in ("query_forward", "key_forward", "ema")]
    fewer = [WORK.index(name) for name in ("backward", "optimiser")]
    flops = found["simulated/client_flops"]
    np.testing.assert_array_equal(flops[:, :, same], plain["simulated/client_flops"][:, :, same])
    np.testing.assert_array_equal(flops[:, :, fewer] * STEPS, plain["simulated/client_flops"][:, :, fewer])


def test_a_client_restores_what_reached_it_and_quantises_what_it_sends(run):
    """Gradients in every other step, some lost; who is rich has three times as many samples."""
    _, found = run(
        *("compute.precision=fp32", "contrast.symmetric=off", "epochs=3", f"steps_per_epoch={STEPS}"),
        *("communication.smashed=int8", "communication.gradient=int8", "communication.download_every=2"),
        *("reliability.client_dropout=0.2", "reliability.query_loss=0.2", "reliability.gradient_loss=0.4"),
        *("client.rich_share=0.34", "client.rich_batch_factor=3"),
    )
    sent, lost = (found[f"simulated/{name}"][..., MESSAGES.index("gradient_down")] for name in ("messages", "lost"))
    samples = BATCH * np.where(found["epochs/clients"] < 4, 3, 1)
    there = found["epochs/present"] == 1
    expected = samples * (there * STEPS * QUANTISED + (sent - lost) * SMASHED_FLOATS)
    np.testing.assert_array_equal(found["simulated/client_flops"][..., -1], expected)
    assert 0 < lost.sum() < sent.sum() < there.sum() * STEPS // 2
    assert not there.all()


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


def test_defences_cost_computation_and_memory_and_no_bytes(run):
    same = ("compute.precision=fp32", "contrast.symmetric=off")
    _, plain = run(*same)
    protect = ("clip=2", "noise=gaussian", "noise_scale=0.5", "dropout=0.1", "keep_share=0.5", "levels=16")
    _, found = run(*same, *(f"defence.{setting}" for setting in protect))
    np.testing.assert_array_equal(found["simulated/bytes"], plain["simulated/bytes"])
    more = found["simulated/client_flops"] - plain["simulated/client_flops"]
    more = {kind: more[:, :, place] for place, kind in enumerate(WORK)}
    there, back = 3 + 2 + 1 + 1 + 4, 6 + 0 + 1 + 1 + 0  # clip, noise, dropout, the largest, levels; a number
    rows = STEPS * BATCH * SMASHED_FLOATS
    assert (more["query_forward"] == rows * there).all()
    assert (more["key_forward"] == rows * there).all()
    assert (more["backward"] == rows * back).all()
    assert not more["ema"].any()
    assert not more["optimiser"].any()
    kept = BATCH * (4 * (SMASHED_FLOATS + 1) + 2 * SMASHED_FLOATS)  # samples and norms, and two masks of a byte
    memory = dict(zip(MEMORY, found["cost/client_memory"] - plain["cost/client_memory"], strict=True))
    assert {kind: amount for kind, amount in memory.items() if amount} == {"activations": kept, "peak": kept}
    assert found["summary"]["protection"]["sends"] == 2 * 2, "an image once an epoch, as query and as key"


def test_topk_sends_just_what_the_defence_keeps(run):
    keep = ("defence.keep_share=0.1", "communication.smashed=topk", "communication.topk=0.1")
    simulation, found = run("compute.precision=fp32", *keep)
    assert (found["simulated/bytes"][:, :, MESSAGES.index("query_up")] == STEPS * BATCH * 103 * (4 + FLOAT)).all()
    _, other = run("compute.precision=fp32", "defence.keep_share=0.1")
    np.testing.assert_array_equal(found["steps/loss"], other["steps/loss"])
    assert simulation.config.defence.keep_share == 0.1


def test_nopeek_costs_distances(run):
    same = ("compute.precision=fp32", "contrast.symmetric=off", "client.batch_size=4", "steps_per_epoch=4")
    _, plain = run(*same)
    _, found = run(*same, "defence.nopeek=1")
    assert found["work"].tolist() == [*WORK, "defence"]
    same, more = np.split(found["simulated/client_flops"], [len(WORK)], axis=2)
    assert (more == STEPS * 4 * 4 * (3 * 16 * 16 + 6 * SMASHED_FLOATS)).all()
    np.testing.assert_array_equal(same, plain["simulated/client_flops"])
    assert (found["cost/client_memory"] - plain["cost/client_memory"]).tolist()[-2:] == [4 * 16 * FLOAT] * 2


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


def test_an_attacker_that_learns_every_third_step(run):
    """Of a client's eight steps those with number 0, 3 and 6: two of the first epoch, one of the second."""
    name = "conv_normN0C4"
    game = ("defence.resistance=1.0", f"defence.resistance_decoder={name}", "defence.resistance_every=3")
    simulation, found = run("client.sampling_ratio=1.0", *game)
    clients, maps = simulation.config.client.count, 16 * 16
    assert (STEPS, EPOCHS) == (4, 2)
    first = body = 2 * maps * 4 * 4 * 9  # no doubling behind a cut at full resolution: three such, then one to grey
    last = 2 * maps * 4 * 1 * 9
    decoding, filtering = first + 2 * body + last, 2 * 5 * 2 * maps * 16
    parameters = 3 * (4 * 4 * 9 + 4) + 4 * 9 + 1 + 2 * (3 * 4 + 1)
    each = 2 * (decoding + filtering)
    attack = 3 * decoding - first + 2 * filtering
    expected = [STEPS * BATCH * each + updates * (BATCH * attack + 12 * parameters) for updates in (2, 1)]
    assert found["work"].tolist() == [*WORK, "defence"]
    flops = found["simulated/client_flops"][..., -1]
    np.testing.assert_array_equal(flops, np.tile(np.array(expected)[:, None], (1, clients)))


def test_the_decoder_of_a_rich_client_has_its_batch(run):
    game = ("defence.resistance=1.0", "defence.resistance_decoder=conv_normN0C4", "steps_per_epoch=4")
    _, found = run(*game, "client.rich_share=0.34", "client.rich_batch_factor=3")
    _, plain = run(*game, f"client.batch_size={3 * BATCH}")
    assert found["cost/rich_defence_memory"] == plain["cost/defence_memory"] > found["cost/defence_memory"]
    assert "cost/rich_defence_memory" not in plain


def test_moving_against_the_decoder_is_work_of_its_network(run):
    """Of a sample: the decoder and its score forward, back to the smashed data, and two operations for each number.

    The first two are a network's, so that they are MACs as well; of the defence's other work nothing is.
    """
    game = ("defence.resistance=1.0", "defence.resistance_decoder=conv_normN0C4", "contrast.symmetric=off")
    _, plain = run(*game)
    _, found = run(*game, "defence.adversarial=0.1", "defence.clip=1.0")
    maps, clip_there, clip_back = 16 * 16, 3 * SMASHED_FLOATS, 6 * SMASHED_FLOATS
    body, last = 2 * maps * 4 * 4 * 9, 2 * maps * 4 * 1 * 9  # FLOPs; no doubling behind a cut at full resolution
    slope = 2 * (3 * body + last + 2 * 5 * 2 * maps * 16)  # five maps are filtered, by rows and by columns
    macs = found["cost/macs_per_image"][0] - plain["cost/macs_per_image"][0]
    flops = found["cost/flops_per_image"][0] - plain["cost/flops_per_image"][0]
    forward = slope + 2 * SMASHED_FLOATS + clip_there
    assert dict(zip(found["work"], flops, strict=True)) == {
        **dict.fromkeys(found["work"], 0),
        "query_forward": forward,
        "key_forward": forward,
        "backward": clip_back,
    }
    assert dict(zip(found["work"], macs, strict=True)) == {
        **dict.fromkeys(found["work"], 0),
        "query_forward": slope // 2,
        "key_forward": slope // 2,
    }
    spent = found["simulated/client_flops"] - plain["simulated/client_flops"]
    assert (spent[:, :, WORK.index("query_forward")] == STEPS * BATCH * forward).all()


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
    _, labelled = run("compute.precision=fp32", "method=split_vertical", "client.count=4", "client.holds_labels=true")
    labels = labelled["simulated/bytes"][..., MESSAGES.index("labels_up")]
    assert labels.tolist() == [[STEPS * BATCH * 8, 0, 0, 0]] * EPOCHS
    assert labelled["simulated/messages"][..., MESSAGES.index("labels_up")].tolist() == [[STEPS, 0, 0, 0]] * EPOCHS
    np.testing.assert_array_equal(labelled["steps/loss"], found["steps/loss"])
    flops = dict(zip(WORK, found["simulated/client_flops"][0, 0], strict=True))
    stem, conv = 8 * 8 * 4 * 1 * 9, 8 * 8 * 4 * 4 * 9  # MACs
    assert flops["query_forward"] == STEPS * BATCH * 2 * (stem + 2 * conv)
