"""Methods without a main server agree with their slow oracle (tests/reference/local_oracle.py), in float64."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console

from mocosfl_mpi.algorithms import ALGORITHMS
from mocosfl_mpi.clients.wealth import factors
from mocosfl_mpi.objectives.feature_memory import noise
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.show import show
from mocosfl_mpi.simulation import Conduct, Simulation
from mocosfl_mpi.streams import Streams
from tests.reference import local_oracle
from tests.unit.agreement import (
    Watched,
    batches_of,
    configuration,
    flat,
    happenings,
    network_of,
    quicken,
    same,
    same_drifts,
)

CASES = {
    "fl_moco": ["compute.block_size=3"],
    "fl_moco both views": ["contrast.symmetric=both_views", "compute.backend=loop"],
    "fl_moco off, sampled": ["contrast.symmetric=off", "client.sampling_ratio=0.5", "epochs=4", "steps_per_epoch=2"],
    "fl_moco, more keys than memory": ["contrast.memory_length=3"],
    "fl_moco, sampled, published schedule": [
        "client.sampling_ratio=0.5",
        "client.schedule_step=published",
        "epochs=4",
        "steps_per_epoch=2",
        "compute.block_size=1",
    ],
    "fl_moco, batch norm": ["model.head=largeV2", "model.hidden_dim=8"],
    "fl_byol": ["compute.block_size=2"],
    "fl_byol off, by data": [
        "contrast.symmetric=off",
        "federation.weighting=data",
        "partition.kind=dirichlet",
        "model.hidden_dim=32",
    ],
    "fl_byol both views, batch norm": [
        "contrast.symmetric=both_views",
        "model.head=largeV2",
        "model.hidden_dim=8",
        "client.batch_size=6",
        "client.lr=0.05",
    ],
    "fl_simclr": ["client.velocity_at_sync=averaged", "client.batch_size=3"],
    "fl_simclr both views": ["contrast.symmetric=both_views", "client.velocity_at_sync=reset"],
    "fl_simsiam": ["model.head=smallV2"],
    "fl_simsiam both views, sampled": [
        "contrast.symmetric=both_views",
        "client.sampling_ratio=0.5",
        "epochs=4",
        "steps_per_epoch=2",
    ],
    "fl_moco, momentum averaged too, by data": [
        "federation.alignment=online_and_momentum",
        "federation.weighting=data",
        "partition.kind=volumes",
        "client.sampling=by_data",
        "client.sampling_ratio=0.5",
        "epochs=4",
        "steps_per_epoch=2",
    ],
    "fl_byol, int8": ["federation.alignment=online_and_momentum", "federation.momentum_compression=int8"],
    "fl_moco, top-k, every third, sampled": [
        "federation.alignment=online_and_momentum",
        "federation.momentum_compression=topk",
        "federation.momentum_every=3",
        "client.sampling_ratio=0.5",
        "epochs=5",
        "steps_per_epoch=2",
        "compute.block_size=1",
    ],
    "fl_moco, nothing aligned, sampled": [
        "federation.alignment=none",
        "client.sampling_ratio=0.5",
        "epochs=4",
        "steps_per_epoch=2",
    ],
    "fl_byol, momentum reset": ["federation.alignment=momentum_reset", "client.velocity_at_sync=reset"],
    "fl_byol, top-k, layers, in turns": [
        "federation.alignment=online_and_momentum",
        "federation.momentum_compression=topk",
        "federation.aligned_layers=['stem', 'block2', 'head']",
        "client.sampling=round_robin",
        "client.sampling_ratio=0.5",
        "epochs=4",
        "steps_per_epoch=2",
    ],
    "fl_simclr, nothing aligned": ["federation.alignment=none"],
    "fl_simsiam, all but the head, sampled, averaged": [
        "federation.aligned_layers=['stem', 'block1', 'block2', 'block3', 'block4']",
        "client.velocity_at_sync=averaged",
        "client.sampling_ratio=0.5",
        "epochs=4",
        "steps_per_epoch=2",
    ],
    "fl_moco, rich and poor, sampled": [
        "client.rich_share=0.5",
        "client.rich_batch_factor=3",
        "partition.rich_data=0.7",
        "client.sampling_ratio=0.75",
        "epochs=4",
        "steps_per_epoch=2",
        "compute.block_size=2",
    ],
    "fl_moco, clients drop out and miss synchronisations": [
        "reliability.client_dropout=0.3",
        "reliability.sync_miss=0.4",
        "client.velocity_at_sync=averaged",
        "federation.sync_freq=1",
        "epochs=5",
        "steps_per_epoch=2",
        "compute.block_size=3",
    ],
    "fl_byol, synchronisations are missed, momentum every other, sampled, by data": [
        "reliability.sync_miss=0.4",
        "federation.alignment=online_and_momentum",
        "federation.momentum_every=2",
        "federation.weighting=data",
        "partition.kind=volumes",
        "client.sampling_ratio=0.75",
        "epochs=5",
        "steps_per_epoch=2",
    ],
    "fedu": ["federation.divergence_threshold=0.08"],
    "fedu, sampled, by data": [
        "federation.divergence_threshold=0.1",
        "federation.weighting=data",
        "partition.kind=volumes",
        "client.sampling_ratio=0.5",
        "client.count=6",
        "epochs=5",
        "steps_per_epoch=2",
        "compute.block_size=2",
    ],
    "fedu, every predictor common": ["federation.divergence_threshold=1000.0", "contrast.symmetric=off"],
    "fedema": ["compute.block_size=3", "client.lr=0.05"],
    "fedema, sampled, velocity averaged": [
        "model.hidden_dim=32",
        "client.lr=0.05",
        "client.velocity_at_sync=averaged",
        "client.sampling_ratio=0.5",
        "client.count=6",
        "epochs=5",
        "steps_per_epoch=2",
        "compute.block_size=2",
    ],
    "fedema, in turns, small target, batch norm": [
        "federation.divergence_target=0.3",
        "federation.weighting=data",
        "partition.kind=dirichlet",
        "client.sampling=round_robin",
        "client.sampling_ratio=0.5",
        "client.velocity_at_sync=reset",
        "model.head=largeV2",
        "model.hidden_dim=8",
        "client.batch_size=6",
        "client.lr=0.05",
        "epochs=5",
        "steps_per_epoch=2",
        "compute.block_size=1",
    ],
    "standalone, sampled": ["client.sampling_ratio=0.5", "epochs=4", "steps_per_epoch=2"],
    "central": ["client.count=1", "client.batch_size=4"],
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    quicken(monkeypatch)


def oracle_for(config, sim):
    network = network_of(config, sim)
    memory = noise(1, config.contrast.memory_length, network.key_dim, Streams(config.seed), torch.float64)[0]
    pools, images, steps, _, present = happenings(config, sim)
    return local_oracle.run(config, network.bottom, memory, batches_of(sim), pools, images, steps, present)


@pytest.mark.parametrize(("name", "settings"), CASES.items(), ids=CASES)
def test_engine_agrees_with_oracle(name, settings, tmp_path):
    config = configuration([f"method={name.split()[0].rstrip(',')}", *settings])
    run = Watched(config, tmp_path / "out")
    expected = oracle_for(config, run.sim)
    assert len(run.losses) == config.epochs * run.sim.steps >= 8
    same(run.losses, expected.losses, "losses")
    np.testing.assert_array_equal(run.accuracies, expected.accuracies)
    for number, client in enumerate(expected.clients):
        same(run.client(number, "online"), flat(dict(client.online.named_parameters())), f"client {number} online")
        same(run.client(number, "velocity"), flat(client.velocity()), f"client {number} velocity")
        if ALGORITHMS[config.method].momentum:
            slow = flat(dict(client.momentum.named_parameters()))
            same(run.client(number, "momentum"), slow, f"client {number} momentum")
        if "memory" in run.sim.clients.shared:
            keys = run.client(number, "memory").view(config.contrast.memory_length, -1)
            written = int(run.sim.clients._steps[number]) * config.rows_per_client * int(factors(config)[number])
            same(keys.roll(-(written % len(keys)), dims=0), torch.stack(client.queue), f"client {number} memory")
        if "scale" in run.sim.clients.shared:
            expected_scale = torch.tensor([client.scale], dtype=torch.float64)
            same(run.client(number, "scale"), expected_scale, f"client {number} scale")
        if config.federation.momentum_compression != "none":
            same(run.client(number, "residual"), flat(client.residual), f"client {number} residual")
    same_drifts(run.drifts, expected.drifts)
    if expected.shares:
        same(np.array([drift.kept for drift in run.drifts]), np.array(expected.shares), "shares of own models")
    else:
        assert all(np.isnan(drift.kept).all() for drift in run.drifts)


def test_one_client_alone_is_mocosfl_with_one_client(tmp_path):
    """With one client there is no one else's memory and nothing to average: the cut then changes nothing."""
    alone = ["client.count=1", "client.batch_size=4", "contrast.symmetric=both_views", "server.lr=0.3"]
    central = Watched(configuration(["method=central", *alone]), tmp_path / "central")
    split = Watched(configuration(["method=mocosfl", "model.cut_layer=5", *alone]), tmp_path / "split")
    same(central.losses, split.losses, "losses")
    assert central.accuracies == split.accuracies
    bottom = split.client(0, "online")
    head = flat(dict(split.sim.main_server.online.named_parameters()))
    same(central.client(0, "online"), torch.cat([bottom, head.detach()]), "weights")


def test_alone_is_fl_moco_that_aligns_nothing(tmp_path):
    """The same training; only who is judged differs."""
    sampled = ["client.sampling_ratio=0.5", "epochs=3", "evaluation.every=1"]
    alone = complete(["method=standalone", "evaluation.own_models=2", *sampled], tmp_path / "alone")
    averaged = complete(["method=fl_moco", "federation.alignment=none", *sampled], tmp_path / "averaged")
    with open_run(tmp_path / "alone") as a, open_run(tmp_path / "averaged") as b:
        assert a.state_sha256 == b.state_sha256
        own = a["result/own_knn_top1"]
        trained = np.flatnonzero(alone.clients._steps)
        judged = [trained[0], trained[len(trained) // 2]]
        assert np.flatnonzero(np.isfinite(own)).tolist() == judged
        for client in judged:
            assert own[client] == alone.results._look(alone.clients.own(client)).knn_top1
        assert a["result/knn_top1"] == own[judged].mean() == a["evaluations/knn_top1"][-1]
        assert a["evaluations/knn_top1"][0] == b["evaluations/knn_top1"][0] == a["result/knn_top1_untrained"]
        assert b["result/knn_top1"] == averaged.results._look(averaged.clients.average).knn_top1
        assert "result/own_knn_top1" not in b.names
        assert not a["simulated/bytes"].any()


def test_fedema_is_judged_by_the_mean_and_by_those_who_did_not_miss_it(tmp_path):
    settings = ["method=fedema", "client.sampling_ratio=0.5", "epochs=3", "client.lr=0.05"]
    run = complete(settings, tmp_path / "out")
    with open_run(tmp_path / "out") as file:
        pool, own = file["epochs/clients"][-1], file["result/own_knn_top1"]
        assert np.flatnonzero(np.isfinite(own)).tolist() == pool.tolist()
        assert own[pool[0]] == run.results._look(run.clients.own(int(pool[0]))).knn_top1
        assert file["result/knn_top1"] == run.results._look(run.clients.shared["online"]).knn_top1
        assert file["after_sync/own_share"].shape == (6, 2)
        summary = file.summary()
        assert summary["further"]["own_knn_top1"]["clients"] == 2
        assert summary["further"]["own_knn_top1"]["std"] is not None
        assert summary["own_share"] == file["after_sync/own_share"][-1].mean()
    shown = io.StringIO()
    with open_run(tmp_path / "out") as file:
        show(file, Console(file=shown, width=120))
    assert "Test accuracy in % of 2 clients' own models" in shown.getvalue()
    assert "own share" in shown.getvalue()


def complete(settings, out):
    simulation = Simulation.begin(configuration(settings), Conduct("test", out, quiet=True))
    simulation.run()
    return simulation


def test_nothing_travels_but_models(tmp_path):
    run = Simulation.begin(configuration(["method=fl_byol"]), Conduct("test", tmp_path / "out", quiet=True))
    run.run()
    with open_run(tmp_path / "out") as file:
        sent = dict(zip(file["message"], file["simulated/bytes"].sum(axis=(0, 1)), strict=True))
        syncs, weights = len(file["syncs/epoch"]), run.clients.shared["online"].nbytes
    assert sent.pop("weights_up") == sent.pop("weights_down") == 4 * syncs * weights
    assert not any(sent.values())
