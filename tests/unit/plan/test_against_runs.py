"""What can be told exactly is told exactly: plans against complete small runs in this process."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from mocosfl_mpi.config import apply_settings, parse
from mocosfl_mpi.config.expert import first_stage
from mocosfl_mpi.cost.flops import kinds_of_work
from mocosfl_mpi.native import NoKernelsError
from mocosfl_mpi.native import load as kernels
from mocosfl_mpi.plan.compare import actual
from mocosfl_mpi.plan.disk import checkpoint_bytes, record_bytes
from mocosfl_mpi.plan.experiment import Elsewhere, experiment
from mocosfl_mpi.plan.images import image_set
from mocosfl_mpi.plan.traffic import traffic
from mocosfl_mpi.presets import load
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.schema import MESSAGES, WORK
from mocosfl_mpi.simulation import Conduct, Simulation

OLD = Path(__file__).parents[1] / "record/run-1.0.h5.gz"


def machine():
    try:
        return kernels()
    except NoKernelsError:
        return None


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("method=monacosfl", "contrast.symmetric=both_views", "compute.precision=fp32"),
        ("client.velocity_at_sync=averaged", "contrast.symmetric=off", "client.count=25"),
        ("client.velocity_at_sync=reset", "federation.sync_freq=3", "compute.backend=stacked"),
        ("client.frozen=true", "epochs=3"),
        ("contrast.share_features=false", "contrast.memory_length=60"),
        ("federation.alignment=none", "client.sampling=round_robin"),
        ("federation.alignment=momentum_reset", "client.sampling=by_data", "partition.kind=volumes"),
        ("method=monacosfl", "federation.momentum_every=3", "federation.momentum_compression=int8", "epochs=4"),
        ("method=monacosfl", "federation.momentum_compression=topk", "federation.aligned_layers=['block1']"),
        ("method=fl_moco", "federation.alignment=online_and_momentum", "federation.momentum_every=3"),
        ("method=fl_byol", "federation.aligned_layers=['stem', 'head']"),
        ("method=fl_simclr", "client.velocity_at_sync=averaged", "epochs=3"),
        ("method=fedavg", "epochs=3"),
        (
            *("reliability.client_dropout=0.3", "reliability.query_loss=0.2", "reliability.key_loss=0.2"),
            *("reliability.gradient_loss=0.3", "method=monacosfl", "federation.momentum_every=3", "epochs=4"),
        ),
        ("client.rich_share=0.5", "client.rich_batch_factor=3", "partition.rich_data=0.7", "client.sampling_ratio=1.0"),
        (
            *("client.rich_share=0.5", "client.rich_batch_factor=3", "model.rich_cut_layer=4"),
            *("client.sampling_ratio=1.0", "method=monacosfl", "client.velocity_at_sync=averaged"),
        ),
        (
            *("client.rich_share=0.5", "model.rich_cut_layer=5", "federation.aligned_layers=['block1', 'block3']"),
            *("client.sampling_ratio=1.0", "communication.smashed=int8", "reliability.query_loss=0.3"),
            *("contrast.symmetric=both_views", "reliability.sync_miss=0.4"),
        ),
        ("reliability.sync_miss=0.5", "epochs=4", "method=monacosfl"),
        ("method=sfl_v2", "epochs=3"),
        ("method=sfl_v1", "client.velocity_at_sync=averaged"),
        ("method=split_vanilla", "epochs=5", "client.velocity_at_sync=averaged"),
        ("method=split_u_shaped", "epochs=5"),
        ("method=fedema", "epochs=3"),
        ("method=fedu", "epochs=3"),
        ("method=standalone", "client.sampling=round_robin"),
        ("communication.download_every=3", "communication.smashed=int8", "communication.gradient=topk"),
        (
            *("communication.smashed=int8", "communication.gradient=int8", "communication.download_every=2"),
            *("method=monacosfl", "federation.momentum_compression=int8", "federation.momentum_every=3", "epochs=3"),
            *("reliability.client_dropout=0.3", "reliability.query_loss=0.2", "reliability.gradient_loss=0.3"),
        ),
        ("communication.smashed=topk", "communication.topk=0.3", "client.frozen=true"),
        ("method=split_vertical", "client.count=4"),
        (
            *("defence.clip=2", "defence.dropout=0.2", "defence.nopeek=1", "client.batch_size=4"),
            *("defence.keep_share=0.3", "communication.smashed=topk", "communication.topk=0.3"),
        ),
        ("method=split_vertical", "client.count=2", "client.holds_labels=true"),
        ("client.sampling=trace", "client.availability=['10', '11', '01']"),
        ("defence.resistance=1.0", "defence.resistance_decoder=conv_normN0C4", "defence.resistance_every=3"),
        ("method=taressfl", "client.frozen=true"),
        (
            *("method=ressfl", "defence.resistance=0.3", "defence.resistance_decoder=res_normN0C4", "epochs=3"),
            *("client.batch_size=20", "defence.resistance_steps=2", "steps_per_epoch=2"),
        ),
    ],
)
def test_bytes_flops_and_sizes_are_those_of_the_run(tmp_path, settings):
    _, values = load("smoke")
    config = parse(apply_settings(values, ["evaluation.linear_probe=false", *settings]), "smoke")
    compare(config, tmp_path)


@pytest.mark.parametrize("settings", [("pretraining.target_share=0.1",), ("method=ressfl",)])
def test_a_first_stage_is_planned_as_well(tmp_path, settings):
    stage = ("pretraining.auxiliary=embedded", "pretraining.auxiliary_images=50", "pretraining.batch=8")
    game = ("pretraining.epochs=2", "defence.resistance=1.0", "defence.resistance_decoder=conv_normN0C4")
    values = apply_settings(load("smoke")[1], ["evaluation.linear_probe=false", *stage, *game, *settings])
    config = first_stage(parse(values, "smoke"), "smoke")
    planned = compare(config, tmp_path)
    assert planned.steps == 7, "50 auxiliary images in batches of eight"


def compare(config, tmp_path):
    """Run it and hold the plan against it; the plan."""
    Simulation.begin(config, Conduct("smoke", out=tmp_path / "run", quiet=True)).run()
    planned = experiment(config, image_set(config, None), machine())
    sent, work = traffic(planned)
    with open_run(tmp_path / "run") as run:
        found = actual(run)
        pools, rows, flops = run["epochs/clients"], run["simulated/bytes"], run["simulated/client_flops"]
        per_image, per_step = run["cost/flops_per_image"][1], run["cost/flops_per_step"][1]
        by_kind = [run["cost/rich_flops_per_image"][1]] if config.model.rich_cut_layer else []
        assert run.attrs["config"]["compute"]["backend"] == planned.config.compute.backend
    assert dict(zip(MESSAGES, sent.sum(axis=0).tolist(), strict=True)) == found["simulated_bytes"]
    assert dict(zip(kinds_of_work(config), work.sum(axis=0).tolist(), strict=True)) == found["client_flops"]
    for client in range(config.client.count):  # who, not only how much
        took_part = pools == client
        np.testing.assert_array_equal(sent[client], rows[took_part].sum(axis=0))
        np.testing.assert_array_equal(work[client], flops[took_part].sum(axis=0))
    images = sum(flops * rows for flops, rows in zip([*by_kind, per_image], planned.rows_by_kind, strict=True))
    server = images + per_step
    assert list(planned.server_flops.values()) == server[: len(WORK)].tolist()
    assert not server[len(WORK) :].any()
    assert record_bytes(planned, 1) == pytest.approx(found["record_bytes"], rel=0.1)
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    size = sum(file.stat().st_size for file in newest.iterdir())
    assert checkpoint_bytes(planned) == pytest.approx(size, rel=0.1)
    return planned


def test_what_is_saved_by_the_loss_is_planned_as_if_nothing_were(tmp_path):
    """Bytes and FLOPs are the most that they can be; the checkpoint of a run that ends in a replay is as large."""
    saving = ("communication.loss_threshold=1000", "communication.warmup_epochs=0", "epochs=5")
    _, values = load("smoke")
    config = parse(apply_settings(values, ["evaluation.linear_probe=false", *saving]), "smoke")
    Simulation.begin(config, Conduct("smoke", out=tmp_path / "run", quiet=True)).run()
    planned = experiment(config, image_set(config, None), machine())
    sent, _ = traffic(planned)
    with open_run(tmp_path / "run") as run:
        found = actual(run)
        assert run["epochs/state"].tolist() == [0, 0, 1, 2, 2]
    up = found["simulated_bytes"]["query_up"]
    assert sent[:, MESSAGES.index("query_up")].sum() * 3 == up * 5
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    size = sum(file.stat().st_size for file in newest.iterdir())
    assert checkpoint_bytes(planned) == pytest.approx(size, rel=0.1)
    assert planned.replay_bytes == 4 * 2 * 6 * 2 * 1024 * planned.activation


def test_images_that_are_not_here_have_their_published_sizes(tmp_path):
    config = parse(load("cifar10-100clients-cut1")[1], "test")
    images = image_set(config, tmp_path)
    assert (len(images.labels), images.test, images.image_bytes) == (50_000, 10_000, 3072)
    assert "cifar10" in images.notes[0]
    planned = experiment(config, images, Elsewhere("bf16", fused=True))
    assert planned.steps == 500
    assert planned.syncs == 10
    assert planned.sizes.step["query_up"] == 64 * 32 * 32 * 2


def test_a_file_of_fewer_kinds_of_messages(tmp_path):
    """Its own scale says what its numbers are, not the schema's."""
    (tmp_path / "run.h5").write_bytes(gzip.decompress(OLD.read_bytes()))
    with open_run(tmp_path) as run:
        assert len(run["message"]) < len(MESSAGES)
        sent = run["simulated/bytes"].sum(axis=(0, 1)).tolist()
        assert actual(run)["simulated_bytes"] == dict(zip(run["message"], sent, strict=True))
