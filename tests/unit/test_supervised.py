"""Methods that learn from labels agree with their slow oracle (tests/reference/label_oracle.py), in float64."""

import numpy as np
import pytest
import torch

from mocosfl_mpi.clients.participation import pool as draw_pool
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.comm.stream import Beside
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.server.copies import Copies
from mocosfl_mpi.simulation import Conduct, Simulation
from mocosfl_mpi.split.ends import StackedEnds
from mocosfl_mpi.streams import Streams
from tests.reference import label_oracle
from tests.unit.agreement import (
    RESISTING,
    Watched,
    batches_of,
    configuration,
    flat,
    network_of,
    opponents,
    quicken,
    same,
    same_attackers,
    same_drifts,
)

CASES = {
    "fedavg": ["compute.block_size=3", "epochs=3"],
    "fedavg, sampled, velocity averaged, by data": [
        "client.sampling_ratio=0.5",
        "client.velocity_at_sync=averaged",
        "federation.weighting=data",
        "partition.kind=volumes",
        "epochs=4",
    ],
    "fedavg, loop, published schedule": ["compute.backend=loop", "client.schedule_step=published"],
    "fedavg, one client alone": ["client.count=1", "client.batch_size=5", "federation.sync_freq=1"],
    "fedavg, nothing aligned": ["federation.alignment=none", "client.velocity_at_sync=kept"],
    "fedavg, layers": ["federation.aligned_layers=['stem', 'head']", "client.velocity_at_sync=reset"],
    "sfl_v2": ["compute.block_size=3", "epochs=3"],
    "sfl_v2, sampled, velocity reset, bottleneck": [
        "client.sampling_ratio=0.5",
        "client.velocity_at_sync=reset",
        "model.bottleneck=C4S2",
        "epochs=4",
    ],
    "sfl_v2, everything on the client but the classifier": ["model.cut_layer=5", "compute.backend=loop"],
    "ressfl": [*RESISTING, "compute.block_size=3", "epochs=3"],
    "ressfl, light, sampled": [
        *RESISTING,
        "defence.resistance_every=5",
        "client.lr=0.05",
        "client.sampling_ratio=0.5",
        "epochs=4",
        "compute.backend=loop",
    ],
    "sfl_v1": ["compute.block_size=3", "epochs=3"],
    "sfl_v1, resistance": [*RESISTING, "compute.block_size=2"],
    "sfl_v1, sampled, by data, velocity averaged": [
        "client.sampling_ratio=0.75",
        "client.velocity_at_sync=averaged",
        "federation.weighting=data",
        "partition.kind=volumes",
        "epochs=4",
        "compute.block_size=2",
    ],
    "sfl_v1, loop, cut at the end": ["model.cut_layer=5", "compute.backend=loop"],
    "split_vanilla": ["epochs=6", "steps_per_epoch=3"],
    "split_vanilla, velocity handed over": ["epochs=6", "client.velocity_at_sync=averaged", "model.cut_layer=3"],
    "split_vanilla, nothing handed over": ["epochs=5", "federation.alignment=none"],
    "split_u_shaped": ["epochs=6", "steps_per_epoch=3"],
    "split_u_shaped, velocity handed over, loop": [
        "epochs=5",
        "client.velocity_at_sync=averaged",
        "compute.backend=loop",
        "model.cut_layer=4",
    ],
    "split_u_shaped, only the first layers handed over": ["epochs=5", "federation.aligned_layers=['stem', 'block1']"],
    "sfl_v2, every defence": [
        "defence.clip=2",
        "defence.noise=gaussian",
        "defence.noise_scale=0.2",
        "defence.dropout=0.2",
        "defence.keep_share=0.5",
        "defence.levels=12",
        "compute.block_size=2",
    ],
    "sfl_v1, nopeek, pruned as published": [
        "defence.nopeek=1.0",
        "defence.keep_share=0.7",
        "defence.keep=published",
        "client.batch_size=4",
    ],
    "split_u_shaped, clipped and noisy, nopeek": [
        "epochs=5",
        "defence.clip=2",
        "defence.noise=laplace",
        "defence.noise_scale=0.2",
        "defence.nopeek=0.5",
        "client.batch_size=3",
    ],
    "split_vertical, dropped, nopeek": [
        "client.count=2",
        "defence.dropout=0.3",
        "defence.nopeek=0.5",
        "client.batch_size=4",
    ],
    "split_vertical": ["client.count=2", "epochs=3", "client.batch_size=5"],
    "split_vertical, quadrants, loop, deeper": [
        "client.count=4",
        "client.batch_size=4",
        "compute.backend=loop",
        "model.cut_layer=3",
        "client.schedule_step=published",
    ],
}


@pytest.fixture
def _quick(monkeypatch):
    quicken(monkeypatch)


def trainable(sim):
    """What is judged, as a plain module."""
    return sim.results._encode.module(sim.clients.average)


def oracle_for(config, sim):
    network = network_of(config, sim)
    if config.vertical:  # what the method says, in words that the oracle knows
        config = config.model_copy(update={"federation": config.federation.model_copy(update={"alignment": "none"})})
    return label_oracle.run(
        config,
        network.bottom,
        network.trunk,
        batches_of(sim),
        lambda epoch: draw_pool(config, Streams(config.seed), epoch, sim.problem.images).tolist(),
        sim.problem.images.tolist(),
        sim.steps,
        lambda step, clients: Streams(config.seed).generator("turns", step).permutation(clients).tolist(),
        opponents(config, sim, network),
    )


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(("name", "settings"), CASES.items(), ids=CASES)
def test_engine_agrees_with_oracle(name, settings, tmp_path):
    config = configuration([f"method={name.partition(',')[0]}", *settings])
    run = Watched(config, tmp_path / "out")
    expected = oracle_for(config, run.sim)
    assert len(run.losses) == config.epochs * run.sim.steps >= 8
    same(run.losses, expected.losses, "losses")
    np.testing.assert_allclose(run.accuracies, expected.accuracies, rtol=0, atol=1e-15)
    assert len(set(run.accuracies)) > 1
    for number, client in enumerate(expected.clients):
        same(run.client(number, "online"), flat(dict(client.online.named_parameters())), f"client {number} online")
        same(run.client(number, "velocity"), flat(client.velocity()), f"client {number} velocity")
    if config.resists:
        same_attackers(run)
    server = run.sim.main_server
    for place, copy in enumerate(expected.servers):
        weights, velocity = flat(dict(copy.network.named_parameters())), flat(copy.velocity())
        if isinstance(server, Copies):
            same(server._weights[place], weights, f"copy {place}")
            same(server._velocities[place], velocity, f"velocity of copy {place}")
        else:
            same(flat(server.state()["velocity"]), velocity, "server velocity")
        same(flat(dict(server.online.named_parameters())).detach(), weights.detach(), "server")
    same_drifts(run.drifts, expected.drifts)


@pytest.mark.usefixtures("_quick")
def test_neither_labels_nor_logits_leave_a_u_shaped_client(tmp_path, monkeypatch):
    """All that goes through the exchange in a run: maps, features, weights, what the record asks; nothing by class."""
    config = configuration(["method=split_u_shaped", "epochs=4", "data.train_images=120", "client.batch_size=3"])
    seen, made = [], []

    def spy(owner, name, note):
        original = getattr(owner, name)

        def noting(self, *arguments, **named):
            found = original(self, *arguments, **named)
            note(arguments, found)
            return found

        monkeypatch.setattr(owner, name, noting)

    rows = config.client.batch_size
    spy(Beside, "send", lambda given, _: seen.extend(("up", part) for part in given))
    spy(Beside, "answer", lambda given, _: seen.append(("down", given[0].only.unflatten(0, (-1, rows)))))
    spy(Exchange, "up", lambda given, _: seen.extend(("up", part) for part in given[0]))
    spy(Exchange, "down", lambda given, _: seen.append(("down", given[0].reshape(-1, *given[2]))))
    spy(Exchange, "broadcast", lambda given, _: seen.append(("all", given[0][None])))
    spy(StackedEnds, "classify", lambda given, found: made.append(found[0]))
    sim = Simulation.begin(config, Conduct("test", tmp_path / "out", quiet=True))
    with sim.speaker:
        list(sim.train())
    classes, layers = sim.problem.classes, len(sim.clients.model.names)
    parameters, features = sim.clients.model.parameters, 4 * 2**3
    maps = (rows, 16, 16, 4)
    travelled = {(way, tuple(part.shape[1:])) for way, part in seen}
    assert travelled == {
        ("up", maps),
        ("down", (rows, features)),
        ("up", (rows, features)),
        ("down", maps),
        ("up", (2,)),  # loss and hits, for the record
        ("up", (parameters,)),  # the part that is handed over
        ("all", (parameters,)),
        ("up", (3 * layers + 3,)),  # how far models have drifted, for the record
    }
    assert len(made) == config.epochs * sim.steps
    assert {tuple(logits.shape[1:]) for logits in made} == {(rows, classes)}
    assert not any(part.dtype == torch.int64 for _, part in seen)
    assert classes not in {size for _, shape in travelled for size in shape}


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("clients", [2, 4])
def test_pieces_are_judged_as_they_were_trained(tmp_path, clients):
    """Every client's own part sees its own piece; the trained module gives the same features."""
    config = configuration(["method=split_vertical", f"client.count={clients}", "client.batch_size=4"])
    run = Watched(config, tmp_path / "out")
    images = torch.randn(250, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    features, logits = run.sim.results.encoder()(images)
    model, server = run.sim.clients.model, run.sim.main_server
    edge = 16 if clients == 2 else 8
    spots = [(0, 0), (0, 8)] if clients == 2 else [(0, 0), (0, 8), (8, 0), (8, 8)]
    maps = [
        model.module(run.client(number, "online"))(images[:, :, top : top + edge, left : left + 8])
        for number, (top, left) in enumerate(spots)
    ]
    rows = [torch.cat(maps[start : start + 2], dim=3) for start in range(0, clients, 2)]
    with torch.no_grad():
        same(features, server.online.features(torch.cat(rows, dim=2)), "features")
        same(trainable(run.sim)(images), features, "module")
        same(logits, server.online.head(features), "logits")
    assert not torch.equal(run.client(0, "online"), run.client(1, "online"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["method=fedavg", "client.frozen=true"], "nothing would learn with client.frozen = true"),
        (["method=sfl_v2", "client.frozen=true"], "leave client.frozen = true out"),
        (["method=sfl_v2", "client.gradient_scale=own_rows"], "leave client.gradient_scale out"),
        (["method=sfl_v1", "server.micro_batch=4"], "leave server.micro_batch = 4 out"),
        (["method=fedavg", "views.pipeline=mocov1"], "views.pipeline = 'mocov1'"),
        (["method=split_vanilla", "views.exact=true"], "views.exact = true"),
        (["method=split_vanilla", "client.sampling=by_data"], "leave client.sampling = by_data out"),
        (["method=sfl_v1", "federation.alignment=momentum_reset"], "clients of method = 'sfl_v1' have none"),
        (["method=sfl_v2", "federation.momentum_every=2"], "clients of method = 'sfl_v2' have none"),
        (["method=split_u_shaped", "model.cut_layer=9"], "leaves the main server nothing"),
        (["method=split_vertical", "client.count=3"], "set client.count to 2 or 4"),
        (["method=split_vertical", "client.count=2", "federation.alignment=online"], "never averaged"),
        (["method=split_vertical", "client.count=2", "client.velocity_at_sync=averaged"], "averages none"),
        (["method=split_vertical", "client.count=2", "client.sampling=by_data"], "leave client.sampling = by_data out"),
    ],
)
def test_what_says_nothing_is_refused(settings, message):
    with pytest.raises(BadInput, match=message):
        configuration(settings)


def test_images_that_cannot_be_cut_are_refused(tmp_path):
    config = configuration(["method=split_vertical", "client.count=4", "views.size=15"])
    with pytest.raises(BadInput, match=r"set views\.size to an even number"):
        Simulation.begin(config, Conduct("test", tmp_path / "out", quiet=True))


def test_who_takes_part_follows_from_the_method():
    assert configuration(["method=split_vanilla", "client.sampling_ratio=1.0"]).pool_size == 1
    assert configuration(["method=split_u_shaped", "federation.sync_freq=3"]).sync_freq == 1
    assert configuration(["method=split_vertical", "client.sampling_ratio=0.5"]).pool_size == 4
    assert configuration(["method=sfl_v2", "contrast.symmetric=both_views"]).rows_per_client == 2


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(
    "settings",
    [
        ["method=fedavg"],
        ["method=sfl_v1"],
        ["method=sfl_v2"],
        ["method=split_vanilla"],
        ["method=split_u_shaped"],
        ["method=split_vertical", "client.count=2"],
    ],
    ids=lambda settings: settings[0],
)
def test_what_is_judged_is_what_was_trained(tmp_path, settings):
    """In the machine's own backend: the kernels' weights are those of the module that shares none with the run."""
    words = [*settings, "compute.precision=fp32", "compute.backend=auto"]
    sim = Simulation.begin(configuration(words), Conduct("test", tmp_path / "out", quiet=True))
    images = torch.randn(20, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    untrained = sim.results.encoder()(images)
    with sim.speaker:
        list(sim.train())
    features, logits = sim.results.encoder()(images)
    with torch.no_grad():
        module = trainable(sim)(images)
    assert (features - module).abs().max() < 1e-4 * features.abs().max()
    assert (features - untrained[0]).abs().max() > 1e-2 * features.abs().max()
    assert logits.shape == (20, sim.problem.classes)
    assert (logits - untrained[1]).abs().max() > 1e-2 * logits.abs().max()


@pytest.mark.usefixtures("_quick")
def test_the_classifier_s_own_accuracy_is_recorded(tmp_path):
    sim = Simulation.begin(
        configuration(["method=sfl_v2", "evaluation.every=1"]), Conduct("test", tmp_path / "out", quiet=True)
    )
    test = sim.results._judge._test
    prepared = sim.results._judge._prepare(torch.from_numpy(test.pixels))

    def accuracy():
        logits = sim.results.encoder()(prepared)[1]
        return 100 * sum(int(row.argmax()) == label for row, label in zip(logits, test.labels, strict=True)) / len(test)

    before = accuracy()
    sim.run()
    with open_run(tmp_path / "out") as run:
        series, summary = run["evaluations/classifier_top1"], run.summary()
    assert summary["classifier_top1"] == series[-1] == pytest.approx(accuracy())
    assert summary["classifier_top1_untrained"] == series[0] == pytest.approx(before)
    assert summary["last_evaluation"]["classifier_top1"] == series[-1]
    assert len(series) == 3
    other = Simulation.begin(configuration(["epochs=1"]), Conduct("test", tmp_path / "other", quiet=True))
    other.run()
    with open_run(tmp_path / "other") as run:
        assert not [name for name in run.names if "classifier" in name]
        assert run.summary()["classifier_top1"] is None
