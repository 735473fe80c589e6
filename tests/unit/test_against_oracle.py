"""The engine agrees with the slow oracle (tests/reference/oracle.py) in every option, in float64."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mocosfl_mpi.clients.participation import pool as draw_pool
from mocosfl_mpi.split import cut
from mocosfl_mpi.streams import Streams
from tests.reference import oracle
from tests.unit.agreement import (
    DRIFTS,
    RESISTING,
    Watched,
    batches_of,
    configuration,
    flat,
    happenings,
    network_of,
    opponents,
    quicken,
    same,
    same_attackers,
    same_drifts,
)

THREE = ["communication.loss_threshold=0.05", "communication.warmup_epochs=1", "epochs=9", "steps_per_epoch=2"]
BACK = "three states and back, monacosfl, both views, averaged"
CASES = {
    "mocosfl published": ["compute.block_size=3"],
    "mocosfl off": ["contrast.symmetric=off", "compute.block_size=1"],
    "mocosfl both views": ["contrast.symmetric=both_views", "compute.block_size=4"],
    "monacosfl published": ["method=monacosfl", "compute.block_size=2"],
    "monacosfl both views, loop": ["method=monacosfl", "contrast.symmetric=both_views", "compute.backend=loop"],
    "private memories off": ["contrast.share_features=false", "contrast.symmetric=off", "compute.block_size=2"],
    "private memories published, sampled": [
        "contrast.share_features=false",
        "client.sampling_ratio=0.5",
        "contrast.memory_length=23",
    ],
    "private memories both views, micro batch": [
        "contrast.share_features=false",
        "contrast.symmetric=both_views",
        "server.micro_batch=8",
    ],
    "gradient of own rows": ["client.gradient_scale=own_rows", "compute.block_size=2"],
    "own rows, both views, sampled": [
        "client.gradient_scale=own_rows",
        "contrast.symmetric=both_views",
        "client.sampling_ratio=0.75",
        "compute.block_size=2",
    ],
    "published schedule step": ["client.schedule_step=published"],
    "published schedule step, sampled, loop": [
        "client.schedule_step=published",
        "client.sampling_ratio=0.5",
        "epochs=4",
        "steps_per_epoch=2",
        "compute.backend=loop",
        "compute.block_size=2",
    ],
    "multi step": [
        "client.schedule=multi_step",
        "server.schedule=multi_step",
        "epochs=5",
        "steps_per_epoch=2",
        "compute.block_size=4",
    ],
    "multi step published, constant server": [
        "client.schedule=multi_step",
        "client.schedule_step=published",
        "server.schedule=constant",
        "epochs=5",
        "steps_per_epoch=2",
    ],
    "velocity reset, sampled": [
        "client.velocity_at_sync=reset",
        "client.sampling_ratio=0.5",
        "epochs=4",
        "steps_per_epoch=2",
        "compute.block_size=2",
    ],
    "velocity averaged, monacosfl, sampled": [
        "client.velocity_at_sync=averaged",
        "method=monacosfl",
        "client.sampling_ratio=0.5",
        "epochs=4",
    ],
    "weighted by data": ["federation.weighting=data", "partition.kind=volumes", "compute.block_size=2"],
    "weighted by data, velocity averaged, monacosfl": [
        "federation.weighting=data",
        "partition.kind=volumes",
        "client.velocity_at_sync=averaged",
        "method=monacosfl",
        "federation.sync_freq=1",
    ],
    "sampled, mocosfl": ["client.sampling_ratio=0.5", "client.count=6", "epochs=3", "compute.block_size=2"],
    "sampled, monacosfl, uneven last block": [
        "method=monacosfl",
        "client.sampling_ratio=0.6",
        "client.count=5",
        "compute.block_size=2",
    ],
    "sampled, uneven syncs": [
        "client.sampling_ratio=0.5",
        "client.count=6",
        "steps_per_epoch=5",
        "federation.sync_freq=2",
    ],
    "frozen": ["client.frozen=true"],
    "frozen, both views, sampled": [
        "client.frozen=true",
        "contrast.symmetric=both_views",
        "client.sampling_ratio=0.5",
    ],
    "micro batches": ["server.micro_batch=3"],
    "micro batches, both views": ["server.micro_batch=5", "contrast.symmetric=both_views"],
    "bottleneck": ["model.bottleneck=C4S2", "model.cut_layer=1", "compute.block_size=4"],
    "bottleneck, deeper, monacosfl": ["model.bottleneck=C2S4noRELU", "model.cut_layer=3", "method=monacosfl"],
    "no client residual": ["model.client_residual=false", "model.cut_layer=4", "compute.block_size=2"],
    "no weight standardisation": ["model.weight_standardization=false", "model.cut_layer=3"],
    "batch norm in the head": ["model.head=largeV2", "model.hidden_dim=8", "contrast.momentum=0.5"],
    "linear head, whole backbone on the client": ["model.head=V1", "model.cut_layer=5"],
    "nothing aligned": ["federation.alignment=none", "compute.block_size=2"],
    "nothing aligned, sampled": ["federation.alignment=none", "client.sampling_ratio=0.5", "epochs=4"],
    "online by name": ["method=monacosfl", "federation.alignment=online"],
    "momentum reset, sampled": ["federation.alignment=momentum_reset", "client.sampling_ratio=0.5", "epochs=4"],
    "momentum reset, velocity reset": ["federation.alignment=momentum_reset", "client.velocity_at_sync=reset"],
    "momentum every third": ["method=monacosfl", "federation.momentum_every=3", "epochs=3"],
    "momentum every third, sampled, averaged": [
        "method=monacosfl",
        "federation.momentum_every=3",
        "client.velocity_at_sync=averaged",
        "client.sampling_ratio=0.5",
        "client.count=6",
        "epochs=6",
        "compute.block_size=2",
    ],
    "int8": ["method=monacosfl", "federation.momentum_compression=int8"],
    "int8, every third, by data, sampled": [
        "federation.alignment=online_and_momentum",
        "federation.momentum_compression=int8",
        "federation.momentum_every=3",
        "federation.weighting=data",
        "partition.kind=volumes",
        "client.sampling=by_data",
        "client.sampling_ratio=0.5",
        "epochs=5",
        "compute.block_size=1",
    ],
    "topk": ["method=monacosfl", "federation.momentum_compression=topk", "compute.block_size=3"],
    "topk, sampled, in turns": [
        "method=monacosfl",
        "federation.momentum_compression=topk",
        "federation.momentum_topk=0.2",
        "client.sampling=round_robin",
        "client.sampling_ratio=0.5",
        "epochs=4",
    ],
    "the stem alone": ["method=monacosfl", "federation.aligned_layers=['stem']", "compute.block_size=2"],
    "a block alone, sampled by a trace": [
        "federation.aligned_layers=['block1']",
        "model.cut_layer=3",
        "client.velocity_at_sync=reset",
        "client.sampling=trace",
        "client.availability=['1101', '1010']",
        "client.sampling_ratio=0.5",
        "epochs=4",
    ],
    "layers, int8, every third, averaged, sampled": [
        "method=monacosfl",
        "model.cut_layer=3",
        "federation.aligned_layers=['block1']",
        "federation.momentum_compression=int8",
        "federation.momentum_every=3",
        "client.velocity_at_sync=averaged",
        "client.sampling_ratio=0.5",
        "epochs=5",
    ],
    "all layers by name": ["method=monacosfl", "federation.aligned_layers=['stem', 'block1']"],
    "resnet50": ["model.backbone=resnet50", "compute.block_size=2"],
    "vgg11": ["model.backbone=vgg11", "model.cut_layer=4", "method=monacosfl"],
    "mobilenetv2": ["model.backbone=mobilenetv2", "model.cut_layer=3", "compute.block_size=4"],
    "mobilenetv2 as published, on both sides": [
        "model.backbone=mobilenetv2_published",
        "model.width=16",
        "model.cut_layer=2",
        "method=monacosfl",
    ],
    "vision transformer": ["model.backbone=vit", "contrast.symmetric=both_views", "compute.block_size=2"],
    "three states": [*THREE, "compute.block_size=2"],
    BACK: [
        *THREE,
        "method=monacosfl",
        "contrast.symmetric=both_views",
        "client.velocity_at_sync=averaged",
    ],
    "three states, private memories, sampled, published schedule step": [
        *THREE,
        "contrast.share_features=false",
        "client.sampling_ratio=0.5",
        "client.schedule_step=published",
        "compute.block_size=1",
    ],
    "three states, frozen": [*THREE, "client.frozen=true"],
    "three states, every second download, int8": [
        *THREE,
        "communication.download_every=2",
        "communication.smashed=int8",
        "communication.gradient=int8",
        "contrast.symmetric=off",
    ],
    "every third download": ["communication.download_every=3", "client.schedule_step=published"],
    "every fifth download, monacosfl, sampled": [
        "communication.download_every=5",
        "method=monacosfl",
        "client.sampling_ratio=0.5",
    ],
    "int8 at the cut": ["communication.smashed=int8", "communication.gradient=int8", "compute.block_size=3"],
    "topk up, bf16 down": ["communication.smashed=topk", "communication.topk=0.3", "communication.gradient=bf16"],
    "bf16 up, topk down, own rows, loop": [
        "communication.smashed=bf16",
        "communication.gradient=topk",
        "client.gradient_scale=own_rows",
        "contrast.symmetric=both_views",
        "compute.backend=loop",
    ],
    "clipped and noisy": [
        "defence.clip=2",
        "defence.noise=gaussian",
        "defence.noise_scale=0.3",
        "compute.block_size=3",
    ],
    "every defence, both views, monacosfl, own rows": [
        "defence.clip=3",
        "defence.noise=laplace",
        "defence.noise_scale=0.1",
        "defence.dropout=0.2",
        "defence.keep_share=0.6",
        "defence.levels=9",
        "contrast.symmetric=both_views",
        "method=monacosfl",
        "client.gradient_scale=own_rows",
        "compute.backend=loop",
        "compute.block_size=2",
    ],
    "dropped, then sent by topk with a quantised gradient, sampled": [
        "defence.dropout=0.3",
        "defence.keep_share=0.25",
        "communication.smashed=topk",
        "communication.topk=0.25",
        "communication.gradient=int8",
        "communication.download_every=2",
        "client.sampling_ratio=0.5",
    ],
    "pruned as published, rich and poor, links fail": [
        "defence.keep=published",
        "defence.keep_share=0.4",
        "defence.noise=laplace",
        "defence.noise_scale=0.2",
        "client.rich_share=0.5",
        "client.rich_batch_factor=3",
        "partition.rich_data=0.7",
        "reliability.query_loss=0.3",
        "compute.block_size=3",
    ],
    "defended frozen clients": ["client.frozen=true", "defence.clip=1", "defence.levels=4"],
    "nopeek": ["defence.nopeek=0.7", "client.batch_size=3", "compute.block_size=3"],
    "nopeek, own rows, every second download, noisy": [
        "defence.nopeek=1.5",
        "defence.noise=gaussian",
        "defence.noise_scale=0.5",
        "contrast.symmetric=both_views",
        "client.gradient_scale=own_rows",
        "communication.download_every=2",
        "client.sampling_ratio=0.5",
    ],
    "one client": ["client.count=1", "client.batch_size=4"],
    "resistance": [*RESISTING, "compute.block_size=3"],
    "resistance, two steps every other batch, both views, own rows, sampled, monacosfl": [
        *RESISTING,
        "method=monacosfl",
        "defence.resistance_steps=2",
        "defence.resistance_every=2",
        "defence.resistance_ssim=0.05",
        "contrast.symmetric=both_views",
        "client.gradient_scale=own_rows",
        "client.sampling_ratio=0.5",
        "epochs=4",
    ],
    "resistance, gradients are lost": [*RESISTING, "reliability.gradient_loss=0.4", "compute.block_size=2"],
    "resistance, queries are lost": [*RESISTING, "reliability.query_loss=0.4", "compute.block_size=2"],
    "resistance, batches large enough for BatchNorm, bottleneck": [
        *RESISTING,
        "defence.resistance_decoder=res_normN0C4",
        "model.bottleneck=C4S2",
        "client.count=2",
        "client.batch_size=20",
    ],
    "clients drop out": ["reliability.client_dropout=0.5", "epochs=5", "compute.block_size=2"],
    "clients drop out, own rows, sampled by data, weighted": [
        "reliability.client_dropout=0.4",
        "client.gradient_scale=own_rows",
        "client.sampling=by_data",
        "client.sampling_ratio=0.5",
        "client.count=6",
        "federation.weighting=data",
        "partition.kind=volumes",
        "epochs=5",
        "compute.block_size=2",
    ],
    "queries are lost": ["reliability.query_loss=0.4", "compute.block_size=2"],
    "keys are lost, private memories, both views": [
        "reliability.key_loss=0.4",
        "contrast.share_features=false",
        "contrast.symmetric=both_views",
        "compute.block_size=3",
    ],
    "gradients are lost, published schedule step": [
        "reliability.gradient_loss=0.5",
        "client.schedule_step=published",
        "compute.backend=loop",
        "compute.block_size=2",
    ],
    "nearly everything is lost, own rows, monacosfl": [
        "reliability.query_loss=0.6",
        "reliability.key_loss=0.3",
        "reliability.gradient_loss=0.3",
        "client.gradient_scale=own_rows",
        "method=monacosfl",
        "steps_per_epoch=10",
        "server.micro_batch=3",
    ],
    "frozen clients' queries are lost": ["client.frozen=true", "reliability.query_loss=0.5"],
    "synchronisations are missed": ["reliability.sync_miss=0.5", "epochs=3", "compute.block_size=2"],
    "synchronisations are missed, once an epoch, sampled": [
        "reliability.sync_miss=0.5",
        "federation.sync_freq=1",
        "client.sampling_ratio=0.75",
        "epochs=6",
        "steps_per_epoch=2",
        "compute.block_size=2",
    ],
    "synchronisations are missed, momentum every third, averaged, by data": [
        "method=monacosfl",
        "reliability.sync_miss=0.4",
        "federation.momentum_every=3",
        "federation.weighting=data",
        "partition.kind=volumes",
        "client.velocity_at_sync=averaged",
        "client.sampling_ratio=0.5",
        "client.count=6",
        "epochs=8",
        "steps_per_epoch=2",
        "compute.block_size=2",
    ],
    "synchronisations of a layer are missed, momentum and velocity reset": [
        "reliability.sync_miss=0.5",
        "federation.alignment=momentum_reset",
        "federation.aligned_layers=['stem']",
        "client.velocity_at_sync=reset",
        "client.sampling_ratio=0.75",
        "epochs=4",
        "steps_per_epoch=2",
    ],
    "rich and poor": [
        "client.rich_share=0.5",
        "client.rich_batch_factor=3",
        "partition.rich_data=0.7",
        "compute.block_size=3",
    ],
    "rich and poor, sampled, own rows, private memories": [
        "client.rich_share=0.34",
        "client.rich_batch_factor=4",
        "client.count=6",
        "client.sampling_ratio=0.67",
        "client.gradient_scale=own_rows",
        "contrast.share_features=false",
        "contrast.memory_length=40",
        "federation.weighting=data",
        "partition.rich_data=0.6",
        "epochs=4",
        "compute.block_size=2",
    ],
    "rich and poor, both views, micro batches, monacosfl": [
        "client.rich_share=0.25",
        "client.rich_batch_factor=3",
        "contrast.symmetric=both_views",
        "server.micro_batch=5",
        "method=monacosfl",
        "compute.backend=loop",
    ],
    "rich and poor, batch norm in the head, private memories": [
        "client.rich_share=0.5",
        "client.rich_batch_factor=2",
        "model.head=largeV2",
        "model.hidden_dim=8",
        "contrast.momentum=0.5",
        "contrast.share_features=false",
        "compute.block_size=4",
    ],
    "rich and poor, and links fail, own rows": [
        "client.rich_share=0.5",
        "client.rich_batch_factor=3",
        "client.gradient_scale=own_rows",
        "reliability.client_dropout=0.2",
        "reliability.query_loss=0.3",
        "reliability.gradient_loss=0.2",
        "reliability.sync_miss=0.3",
        "client.count=6",
        "epochs=4",
        "compute.block_size=2",
    ],
    "links fail, int8 at the cut, every second download": [
        "reliability.query_loss=0.3",
        "reliability.gradient_loss=0.3",
        "communication.smashed=int8",
        "communication.gradient=int8",
        "communication.download_every=2",
        "client.gradient_scale=own_rows",
    ],
    "everything fails": [
        "reliability.client_dropout=0.3",
        "reliability.query_loss=0.2",
        "reliability.key_loss=0.2",
        "reliability.gradient_loss=0.2",
        "reliability.sync_miss=0.3",
        "method=monacosfl",
        "client.sampling_ratio=0.67",
        "client.count=6",
        "epochs=5",
        "compute.block_size=2",
    ],
    "two cuts": ["client.rich_share=0.5", "model.rich_cut_layer=4", "compute.block_size=3"],
    "two cuts, monacosfl, both views, larger batches, own rows, averaged": [
        "client.rich_share=0.25",
        "client.rich_batch_factor=2",
        "model.rich_cut_layer=3",
        "method=monacosfl",
        "contrast.symmetric=both_views",
        "client.gradient_scale=own_rows",
        "client.velocity_at_sync=averaged",
        "compute.backend=loop",
        "compute.block_size=2",
    ],
    "two cuts, sampled, so that often only one kind is there, private memories, by data": [
        "client.rich_share=0.5",
        "model.rich_cut_layer=5",
        "contrast.share_features=false",
        "client.sampling_ratio=0.34",
        "client.count=6",
        "federation.weighting=data",
        "partition.rich_data=0.7",
        "client.velocity_at_sync=averaged",
        "method=monacosfl",
        "federation.momentum_every=3",
        "epochs=7",
        "steps_per_epoch=2",
    ],
    "two cuts, everything fails, micro batches": [
        "client.rich_share=0.34",
        "client.rich_batch_factor=2",
        "model.rich_cut_layer=4",
        "model.cut_layer=1",
        "reliability.client_dropout=0.3",
        "reliability.query_loss=0.3",
        "reliability.gradient_loss=0.2",
        "reliability.sync_miss=0.5",
        "server.micro_batch=3",
        "client.count=6",
        "epochs=5",
        "compute.block_size=2",
    ],
    "two cuts, a deeper layer alone, momentum reset, codecs, every second download": [
        "client.rich_share=0.5",
        "model.rich_cut_layer=4",
        "federation.alignment=momentum_reset",
        "federation.aligned_layers=['block2', 'block3']",
        "communication.smashed=int8",
        "communication.gradient=topk",
        "communication.download_every=2",
        "client.velocity_at_sync=reset",
        "compute.block_size=2",
    ],
    "two cuts, frozen": ["client.rich_share=0.5", "model.rich_cut_layer=3", "client.frozen=true"],
    "two cuts, batch norm in the head, nothing behind the deeper one": [
        "client.rich_share=0.5",
        "model.rich_cut_layer=5",
        "model.head=largeV2",
        "model.hidden_dim=8",
        "contrast.momentum=0.5",
        "contrast.symmetric=off",
    ],
    "more keys than memory": ["contrast.memory_length=5"],
    "more keys than private memory": ["contrast.memory_length=12", "contrast.share_features=false"],
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    quicken(monkeypatch)


def oracle_for(config, sim, initial_memory):
    network = network_of(config, sim)
    return oracle.run(
        config,
        network.bottom,
        network.trunk,
        initial_memory,
        batches_of(sim),
        *happenings(config, sim),
        lambda epoch: Streams(config.seed).generator("replay order", epoch).permutation(sim.steps).tolist(),
        opponents(config, sim, network),
    )


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES.keys())
def test_engine_agrees_with_oracle(settings, tmp_path):
    config = configuration(settings)
    run = Watched(config, tmp_path / "out")
    expected = oracle_for(config, run.sim, run.initial_memory)
    assert len(run.losses) == config.epochs * run.sim.steps >= 8

    heard = ~np.isnan(expected.losses)
    assert np.array_equal(heard, ~np.isnan(run.losses))
    same(np.array(run.losses)[heard], np.array(expected.losses)[heard], "losses")
    np.testing.assert_array_equal(run.accuracies, expected.accuracies)
    assert run.states == expected.states
    if config.communication.loss_threshold:
        assert "ABC" in run.states
        assert "CA" in run.states or settings != CASES[BACK]
    for client in range(config.client.count):
        for state in ("online", "momentum", *(["velocity"] if not config.client.frozen else [])):
            wanted = flat(getattr(expected, state)[client])
            same(run.client(client, state)[: len(wanted)], wanted, f"client {client} {state}")

    if config.federation.momentum_compression != "none":
        for client in range(config.client.count):
            same(run.client(client, "residual"), flat(expected.residual[client]), f"client {client} residual")
        assert flat(expected.server_residual).any()
        same(run.sim.clients.shared["server_residual"], flat(expected.server_residual), "server residual")

    if config.resists:
        same_attackers(run)
    server = run.sim.main_server
    for name, value in server.online.state_dict().items():
        same(value, expected.server_online[name], f"server {name}")
    for name, value in server.momentum.state_dict().items():
        same(value, expected.server_momentum[name], f"server momentum {name}")
    for name, parameter in server.online.named_parameters():
        same(
            server.optimiser.state[parameter]["momentum_buffer"],
            expected.server_velocity[name],
            f"server velocity {name}",
        )
    for number, keys in enumerate(expected.memory):
        same(server.memory.newest_first(number), keys.flip(0), f"memory {number}")

    if config.client.frozen:
        assert not run.drifts
        return
    same_drifts(run.drifts, expected.drifts)


def test_cases_cover_every_option():
    configs = [configuration(settings) for settings in CASES.values()]

    def values(get):
        return {get(config) for config in configs}

    assert values(lambda c: (c.method, c.contrast.symmetric)) >= {
        ("mocosfl", "off"),
        ("mocosfl", "published"),
        ("mocosfl", "both_views"),
        ("monacosfl", "published"),
        ("monacosfl", "both_views"),
    }
    assert values(lambda c: c.contrast.share_features) == {True, False}
    assert values(lambda c: c.client.gradient_scale) == {"published", "own_rows"}
    assert values(lambda c: c.client.schedule_step) == {"published", "epoch"}
    assert values(lambda c: c.client.schedule) == {"cosine", "multi_step"}
    assert values(lambda c: c.server.schedule) == {"cosine", "multi_step", "constant"}
    assert values(lambda c: c.client.velocity_at_sync) == {"kept", "reset", "averaged"}
    assert values(lambda c: c.federation.weighting) == {"uniform", "data"}
    assert values(lambda c: c.compute.backend) == {"stacked", "loop"}
    assert len(values(lambda c: c.block_size)) >= 4
    options = ("method", "none", "online", "online_and_momentum", "momentum_reset")
    assert values(lambda c: c.federation.alignment) == set(options)
    assert values(lambda c: c.federation.momentum_compression) == {"none", "int8", "topk"}
    assert values(lambda c: c.client.sampling) == {"uniform", "by_data", "round_robin", "trace"}
    assert values(lambda c: c.communication.smashed) == {"none", "bf16", "int8", "topk"}
    assert values(lambda c: c.communication.gradient) == {"none", "bf16", "int8", "topk"}
    for config in configs:
        if config.pool_size < config.client.count:
            images = np.arange(1, config.client.count + 1)
            pools = {tuple(draw_pool(config, Streams(config.seed), epoch, images)) for epoch in range(config.epochs)}
            assert len(pools) > 1, "the pool must change"


@pytest.mark.parametrize(
    "settings",
    [CASES["mocosfl published"], CASES["monacosfl published"], CASES["own rows, both views, sampled"]],
    ids=["mocosfl", "monacosfl", "sampled"],
)
def test_stacked_equals_loop(settings, tmp_path):
    runs = [
        Watched(configuration([*settings, f"compute.backend={backend}", f"compute.block_size={size}"]), tmp_path / name)
        for name, backend, size in (("a", "stacked", 4), ("b", "loop", 1), ("c", "stacked", 2))
    ]
    for other in runs[1:]:
        assert np.abs(np.array(runs[0].losses) - np.array(other.losses)).max() <= 1e-12
        for client in range(4):
            for state in ("online", "momentum", "velocity"):
                difference = (runs[0].client(client, state) - other.client(client, state)).abs().max().item()
                assert difference <= 1e-12, (state, client, difference)


# ------------------------------------------------------------------------------------- the oracle itself


def tiny(settings):
    config = configuration(settings)
    network = cut.build(config.model, 1, 16, Streams(config.seed), torch.float64)
    return config, network


def noise(batch, *ids):
    generator = torch.Generator().manual_seed(hash(ids) % 2**31)
    return (
        torch.randn(batch, 1, 16, 16, generator=generator, dtype=torch.float64),
        torch.randn(batch, 1, 16, 16, generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize("keys", [1, 10, 999])
def test_oracle_identical_keys_give_log_of_keys_plus_one(keys):
    q = oracle.unit(torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    k = oracle.unit(torch.ones(8, dtype=torch.float64))
    assert oracle.nce(q, k, [k] * keys, 0.1).item() == pytest.approx(math.log(keys + 1), abs=1e-12)


def test_oracle_first_step_leaves_momentum_models_alone():
    config, network = tiny(["epochs=1", "steps_per_epoch=1", "federation.sync_freq=1", "client.count=2"])
    memory = [F.normalize(torch.randn(20, 8, dtype=torch.float64), dim=1)]
    outcome = oracle.run(
        config,
        network.bottom,
        network.trunk,
        memory,
        lambda e, s, c: noise(2, e, s, c),
        lambda e: [0, 1],
        [1, 1],
        1,
    )
    for momentum in outcome.momentum:
        for name, value in network.bottom.state_dict().items():
            assert torch.allclose(momentum[name], value, rtol=0, atol=1e-15)
            assert not torch.equal(outcome.online[0][name], value)


def test_oracle_with_one_client_is_moco_without_a_cut():
    """One client with gradient scale 1 and a sync that averages one model: MoCo with the whole network in one piece."""
    settings = ["client.count=1", "contrast.symmetric=off", "epochs=2", "client.lr=0.1", "client.schedule=cosine"]
    config, network = tiny(settings)
    generator = torch.Generator().manual_seed(3)
    memory = F.normalize(torch.randn(20, 8, dtype=torch.float64, generator=generator), dim=1)
    outcome = oracle.run(
        config,
        network.bottom,
        network.trunk,
        [memory],
        lambda e, s, c: noise(4, e, s, c),
        lambda e: [0],
        [1],
        3,
    )

    fresh = cut.build(config.model, 1, 16, Streams(config.seed), torch.float64)
    whole = nn.Sequential(fresh.bottom, fresh.trunk).train()
    fresh = cut.build(config.model, 1, 16, Streams(config.seed), torch.float64)
    slow = nn.Sequential(fresh.bottom, fresh.trunk).train()
    optimiser = torch.optim.SGD(whole.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=2)
    queue, losses = memory.clone(), []
    for epoch in range(2):
        for step in range(3):
            query, key = noise(4, epoch, step, 0)
            with torch.no_grad():
                for s, f in zip(slow.parameters(), whole.parameters(), strict=True):
                    s.mul_(0.9).add_(f, alpha=0.1)
                k = F.normalize(slow(key), dim=1)
            q = F.normalize(whole(query), dim=1)
            logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], dim=1) / 0.1
            loss = F.cross_entropy(logits, torch.zeros(4, dtype=torch.long))
            queue = torch.cat([queue, k])[-20:]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        scheduler.step()
    assert np.allclose(losses, outcome.losses, rtol=0, atol=1e-12)
    mine = {
        **{f"0.{k}": v for k, v in outcome.online[0].items()},
        **{f"1.{k}": v for k, v in outcome.server_online.items()},
    }
    for name, value in whole.state_dict().items():
        assert torch.allclose(mine[name], value, rtol=0, atol=1e-12), name


@pytest.mark.parametrize(
    ("schedule", "torch_schedule", "decay"),
    [
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=10), 0.0),
        ("multi_step", lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [6, 8], gamma=0.2), 0.2),
    ],
)
def test_oracle_rates_are_those_of_torch(schedule, torch_schedule, decay):
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.06)
    scheduler = torch_schedule(optimiser)
    for t in range(30):
        rate = optimiser.param_groups[0]["lr"]
        assert oracle.rate(schedule, 0.06, t, 10, decay) == pytest.approx(rate, abs=1e-12)
        optimiser.step()
        scheduler.step()


def test_frozen_clients_stay_bit_for_bit(tmp_path):
    config = configuration(["client.frozen=true", "client.sampling_ratio=0.5"])
    run = Watched(config, tmp_path / "out")
    _, network = tiny(["client.frozen=true"])
    initial = torch.cat([p.detach().reshape(-1) for p in network.bottom.parameters()])
    for client in range(config.client.count):
        assert torch.equal(run.client(client, "online"), initial)
        assert torch.equal(run.client(client, "momentum"), initial)
        assert not run.client(client, "velocity").any()
    assert not torch.equal(run.sim.main_server.online.head[0].weight, network.trunk.head[0].weight)


def test_one_client_makes_monacosfl_mocosfl(tmp_path):
    """The mean of one model is that model, so both methods take the same steps."""
    runs = [
        Watched(configuration(["client.count=1", "client.batch_size=4", f"method={method}"]), tmp_path / method)
        for method in ("mocosfl", "monacosfl")
    ]
    assert runs[0].losses == runs[1].losses
    for state in ("online", "momentum", "velocity"):
        assert torch.equal(runs[0].client(0, state), runs[1].client(0, state))
    for drift in runs[0].drifts + runs[1].drifts:
        assert not drift.online_mean.any()
        assert not drift.momentum_mean.any()
        assert not drift.momentum_spread.any()


@pytest.mark.parametrize("method", ["mocosfl", "monacosfl"])
def test_equal_clients_have_zero_divergence(method, tmp_path):
    """Clients that do not move stay equal, and the mean of equal models is that model bit for bit (in fp32)."""
    settings = [f"method={method}", "client.lr=0", "client.count=3", "compute.precision=fp32"]
    run = Watched(configuration(settings), tmp_path / "out")
    assert len(run.drifts) == 4
    for drift in run.drifts:
        for name in DRIFTS:
            assert not getattr(drift, name).any(), name


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path):
    losses = [
        Watched(configuration([f"seed={seed}", "compute.precision=fp32"]), tmp_path / name).losses
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
