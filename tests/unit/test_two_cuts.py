"""Rich clients with a deeper cut, in complete small runs: what must be the same as without them."""

import numpy as np
import pytest
import torch

from mocosfl_mpi import parts, results
from mocosfl_mpi.config import apply_settings, parse
from mocosfl_mpi.cost.flops import Costs, SegmentCost
from mocosfl_mpi.cost.memory import ClientMemory
from mocosfl_mpi.networks import STAGES
from mocosfl_mpi.presets import load
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.schema import MEMORY
from mocosfl_mpi.simulation import Conduct, Simulation
from mocosfl_mpi.split import cut
from mocosfl_mpi.streams import Streams
from tests.kernels import kernels_or_skip

PLAIN = (
    *("data.train_images=120", "data.test_images=20", "evaluation.every=0", "evaluation.linear_probe=false"),
    *("evaluation.neighbours=5", "server.weight_decay=0.01", "client.lr=0.05", "compute.server_threads=1"),
)
CUTS = ("client.rich_share=0.34", "model.rich_cut_layer=4")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Costs are the matter of other tests."""
    monkeypatch.setattr(parts, "measure", lambda *_: Costs(SegmentCost(2, 2, 2, 2), SegmentCost(2, 2, 2, 2)))
    monkeypatch.setattr(results, "measure", lambda *_: Costs(SegmentCost(2, 2, 2, 2), SegmentCost(2, 2, 2, 2)))
    monkeypatch.setattr(results.memory, "measure", lambda *_, **__: ClientMemory(*[1] * len(MEMORY)))
    monkeypatch.setitem(STAGES, "resnet18", (1, 1, 1, 1))
    torch.set_num_threads(1)


def begun(out, *settings):
    _, values = load("smoke")
    config = parse(apply_settings(values, [*PLAIN, *settings]), "smoke")
    return Simulation.begin(config, Conduct("smoke", out, quiet=True))


def losses(out, *settings):
    simulation = begun(out, *settings)
    return np.array([simulation.route.report.loss for _ in simulation.train()])


@pytest.mark.parametrize("symmetric", ["published", "both_views"])
def test_where_nothing_learns_a_cut_changes_nothing(tmp_path, symmetric):
    """The same weights are behind and before the cut, so the losses are those of one cut."""
    still = ("client.lr=0", "server.lr=0", "compute.precision=fp64", f"contrast.symmetric={symmetric}")
    rich = ("client.rich_share=0.34", "client.rich_batch_factor=2")
    one = losses(tmp_path / "one", *still, *rich)
    two = losses(tmp_path / "two", *still, *rich, "model.rich_cut_layer=5")
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-12)


def test_the_fused_backend_agrees(tmp_path):
    kernels_or_skip(torch.float32)
    fused, plain = (
        losses(tmp_path / backend, *CUTS, "compute.precision=fp32", f"compute.backend={backend}")
        for backend in ("fused", "loop")
    )
    np.testing.assert_allclose(fused, plain, rtol=1e-3)
    assert np.abs(fused - plain).max() > 0, "it was another backend"


def test_every_client_begins_with_the_same_network():
    model = parse(apply_settings({}, ["client.rich_share=0.5", "model.rich_cut_layer=4", "model.width=4"]), "x").model
    network = cut.build(model, 1, 16, Streams(3), torch.float32)
    deeper = network.deeper
    images = torch.randn(3, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(network.trunk(network.bottom(images)), deeper.trunk(deeper.bottom(images)))
    flat, longer = (torch.cat([p.flatten() for p in part.bottom.parameters()]) for part in (network, deeper))
    assert torch.equal(longer[: len(flat)], flat)
    assert [name for name, _ in deeper.bottom.named_parameters()][: len(list(network.bottom.parameters()))] == [
        name for name, _ in network.bottom.named_parameters()
    ]
    shared = {id(p) for p in network.trunk.parameters()}
    assert {id(p) for p in deeper.trunk.parameters()} < shared
    assert not {id(p) for p in deeper.bottom.parameters()} & shared, "rich clients' layers are their own"
    assert model.between_cuts == 3


@pytest.mark.parametrize("method", ["mocosfl", "monacosfl"])
def test_columns_behind_a_poor_clients_network_are_never_read(tmp_path, method):
    """NaN put there before every step reaches nothing."""
    settings = (*CUTS, f"method={method}", "compute.precision=fp32", "compute.backend=stacked")
    simulation = begun(tmp_path / "out", *settings)
    population, poisoned = simulation.clients, 0
    forward = population.forward

    def poison(epoch, step):
        nonlocal poisoned
        for block in population.blocks:
            for state in ("online", "momentum", "velocity"):
                block.state[state][:, block.width :] = torch.nan
                poisoned += block.state[state][:, block.width :].numel()
        return forward(epoch, step)

    population.forward = poison
    for _ in simulation.train():
        pass
    assert poisoned
    plain = begun(tmp_path / "plain", *settings)
    for _ in plain.train():
        pass
    for state in ("online", "velocity"):
        assert torch.equal(population.shared[state], plain.clients.shared[state])
    for one, other in zip(simulation.main_server.state().values(), plain.main_server.state().values(), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("settings", "nobodys"),
    [
        (("method=mocosfl",), range(9, 27)),
        (("method=monacosfl",), ()),
        (("method=monacosfl", "federation.aligned_layers=['block2']"), range(18, 27)),
    ],
)
def test_a_mean_of_nobodys_momentum_models_is_no_number(tmp_path, settings, nobodys):
    """Where all rich clients of the pool miss a synchronisation: layers 9 to 26 are theirs alone, 18 to 26 block3."""
    simulation = begun(tmp_path / "out", *CUTS, "reliability.sync_miss=0.6", "epochs=6", *settings)
    simulation.run()
    with open_run(tmp_path / "out") as run:
        rich, present = run["syncs/clients"] < 4, run["syncs/present"].astype(bool)
        distances, spread = run["divergence/momentum_mean"], run["after_sync/momentum_spread"]
        assert run.summary()["momentum_spread"] is not None
    here = np.isfinite(distances[:, :, 0])  # who took part at all
    alone = rich.any(axis=1) & ~(rich & present).any(axis=1)
    assert alone.any()
    assert (~alone & rich.any(axis=1)).any()
    for sync in np.flatnonzero(rich.any(axis=1)):
        for member in np.flatnonzero(rich[sync] & here[sync]):
            missing = set(np.flatnonzero(np.isnan(distances[sync, member])))
            assert missing == (set(nobodys) if alone[sync] else set())
            assert np.isnan(spread[sync, member]) == bool(missing)
    assert np.isfinite(spread[~rich & here]).all()


def test_the_encoder_is_the_mean_of_the_first_layers_and_the_trunk(tmp_path):
    simulation = begun(tmp_path / "out", *CUTS, "compute.precision=fp32", "compute.backend=stacked")
    for _ in simulation.train():
        pass
    weights, images = simulation.clients.average, torch.randn(4, 1, 16, 16)
    bottom = simulation.clients.models[1].module(weights[: simulation.clients.models[1].parameters])
    with torch.no_grad():
        wanted = simulation.main_server.online.features(bottom(images))
        features, _ = simulation.results.encoder()(images)
        whole = simulation.results._encode.module(weights)(images)
    torch.testing.assert_close(features, wanted)
    torch.testing.assert_close(whole, wanted)
    simulation.results.close()
