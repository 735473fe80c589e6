"""Same seed, same bits, for any number of ranks: the promise of the project."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

from mocosfl_mpi.record.reader import differences, open_run
from tests.mpi.command import mocosfl
from tests.mpi.many import carry_out

pytestmark = pytest.mark.mpi

ROWS = {
    **{
        f"{method}, {symmetric}": (f"method={method}", f"contrast.symmetric={symmetric}")
        for method in ("mocosfl", "monacosfl")
        for symmetric in ("published", "both_views", "off")
    },
    **{
        method: (f"method={method}", "client.batch_size=4", "compute.block_size=2")
        for method in ("fl_moco", "fl_byol", "fl_simclr", "fl_simsiam", "standalone")
    },
    "fedavg": ("method=fedavg", "client.batch_size=4", "compute.block_size=2"),
    "sfl_v2": ("method=sfl_v2", "compute.block_size=2", "compute.precision=fp32"),
    "sfl_v1": ("method=sfl_v1", "compute.block_size=2", "client.velocity_at_sync=averaged"),
    "split_vanilla": ("method=split_vanilla", "epochs=5"),
    "split_u_shaped": ("method=split_u_shaped", "epochs=5"),
    "fedema": ("method=fedema", "client.batch_size=4", "compute.block_size=2", "epochs=4"),
    "fedema, three of their own": (
        "method=fedema",
        "federation.divergence_target=0.3",
        "evaluation.own_models=3",
        "client.velocity_at_sync=averaged",
        "compute.precision=fp32",
    ),
    "fedu": ("method=fedu", "federation.divergence_threshold=0.65", "compute.block_size=2", "epochs=4"),
    "split_vertical": ("method=split_vertical", "client.count=4"),
    "split_vertical, the first holds the labels": (
        "method=split_vertical",
        "client.count=4",
        "client.holds_labels=true",
        "compute.block_size=1",
    ),
    "split_vertical, halves, fp32": ("method=split_vertical", "client.count=2", "compute.precision=fp32"),
    "central": ("method=central", "client.count=1", "client.sampling_ratio=1.0", "partition.kind=iid"),
    "private memories": (
        "contrast.share_features=false",
        "client.gradient_scale=own_rows",
        "client.velocity_at_sync=averaged",
    ),
    "frozen": ("client.frozen=true",),
    "fp64 loop, weighted": (
        "compute.precision=fp64",
        "compute.backend=loop",
        "compute.block_size=4",
        "federation.weighting=data",
    ),
    "fused bf16": ("compute.backend=fused", "compute.precision=bf16", "model.cut_layer=4", "compute.block_size=4"),
    "fused fp32": ("compute.backend=fused", "compute.precision=fp32", "model.bottleneck=C4S2"),
    "stacked bf16": ("compute.backend=stacked", "compute.precision=bf16"),
    "stacked fp32": ("compute.backend=stacked", "compute.precision=fp32", "client.velocity_at_sync=reset"),
    "nothing aligned": ("federation.alignment=none", "epochs=3", "evaluation.own_models=4"),
    "momentum reset, in turns": ("federation.alignment=momentum_reset", "client.sampling=round_robin"),
    "momentum every third, by data": (
        "method=monacosfl",
        "federation.momentum_every=3",
        "epochs=4",
        "client.sampling=by_data",
        "partition.kind=volumes",
    ),
    "int8": ("method=monacosfl", "federation.momentum_compression=int8", "compute.block_size=2", "epochs=3"),
    "topk, every other": (
        "method=monacosfl",
        "federation.momentum_compression=topk",
        "federation.momentum_every=2",
        "epochs=3",
    ),
    "layers, trace": (
        "method=monacosfl",
        "federation.aligned_layers=['block1']",
        "client.sampling=trace",
        "client.availability=['110', '011', '101']",
        "epochs=3",
    ),
    "whole networks, layers, int8 every other": (
        "method=fl_moco",
        "federation.alignment=online_and_momentum",
        "federation.momentum_every=2",
        "federation.momentum_compression=int8",
        "federation.aligned_layers=['stem', 'head']",
        "client.batch_size=4",
        "epochs=3",
    ),
    "everything fails": (
        *(f"reliability.{name}=0.3" for name in ("client_dropout", "query_loss", "key_loss", "gradient_loss")),
        "reliability.sync_miss=0.4",
        "method=monacosfl",
        "federation.momentum_every=2",
        "epochs=4",
        "compute.block_size=2",
    ),
    "rich and poor, links fail": (
        "client.rich_share=0.34",
        "client.rich_batch_factor=3",
        "partition.rich_data=0.6",
        "client.gradient_scale=own_rows",
        "contrast.share_features=false",
        "contrast.memory_length=96",
        "reliability.query_loss=0.3",
        "compute.block_size=2",
        "epochs=3",
    ),
    "two cuts": (
        "client.rich_share=0.34",
        "model.rich_cut_layer=4",
        "method=monacosfl",
        "contrast.share_features=false",
        "contrast.memory_length=96",
        "client.sampling_ratio=0.25",
        "compute.block_size=2",
        "epochs=4",
    ),
    "two cuts, links fail, fp32, stacked": (
        "client.rich_share=0.5",
        "client.rich_batch_factor=2",
        "model.rich_cut_layer=3",
        "client.velocity_at_sync=averaged",
        "reliability.gradient_loss=0.3",
        "reliability.sync_miss=0.4",
        "compute.precision=fp32",
        "compute.backend=stacked",
        "compute.block_size=2",
    ),
    "rich and poor, whole networks, fail": (
        "method=fl_moco",
        "client.rich_share=0.5",
        "client.rich_batch_factor=2",
        "client.batch_size=4",
        "compute.block_size=2",
    ),
    "whole networks fail": (
        "method=fl_moco",
        "reliability.client_dropout=0.4",
        "reliability.sync_miss=0.5",
        "client.velocity_at_sync=averaged",
        "client.batch_size=4",
        "epochs=4",
    ),
    "three states, private memories": (
        "communication.loss_threshold=100",
        "communication.warmup_epochs=1",
        "contrast.share_features=false",
        "epochs=5",
    ),
    "three states, int8 both ways": (
        "communication.loss_threshold=0.01",
        "communication.warmup_epochs=0",
        "communication.smashed=int8",
        "communication.gradient=int8",
        "method=monacosfl",
        "epochs=6",
    ),
    "downloads every third step, topk up, bf16 down": (
        "communication.download_every=3",
        "communication.smashed=topk",
        "communication.gradient=bf16",
        "compute.precision=fp32",
        "compute.block_size=2",
    ),
    "topk down, stacked bf16": (
        "communication.gradient=topk",
        "communication.topk=0.2",
        "compute.backend=stacked",
        "compute.precision=bf16",
    ),
    "every defence": (
        *(f"defence.{setting}" for setting in ("clip=2", "noise=gaussian", "noise_scale=0.3", "dropout=0.1")),
        *(f"defence.{setting}" for setting in ("keep_share=0.5", "levels=16", "nopeek=1", "adversarial=0.1")),
        *("defence.resistance=1", "defence.resistance_decoder=conv_normN0C4"),
        "client.batch_size=4",
        "compute.block_size=2",
    ),
    "split_u_shaped, laplace, pruned as published": (
        "method=split_u_shaped",
        *(f"defence.{setting}" for setting in ("noise=laplace", "noise_scale=0.2", "keep=published", "keep_share=0.6")),
        "epochs=5",
    ),
    "resistance, blocks of two": (
        *("defence.resistance=2.0", "defence.resistance_ssim=0.1", "defence.resistance_decoder=conv_normN0C4"),
        *("defence.resistance_every=2", "compute.block_size=2", "epochs=3"),
    ),
    "sfl_v2, resistance with BatchNorm": (
        *("method=sfl_v2", "defence.resistance=0.3", "defence.resistance_ssim=0.0", "client.batch_size=20"),
        *("defence.resistance_decoder=res_normN0C4", "model.bottleneck=C4S2", "steps_per_epoch=2"),
    ),
    "dirichlet": ("partition.kind=dirichlet", "client.schedule_step=published", "server.micro_batch=5"),
    "equal blocks, some absent": (
        *("client.count=30", "client.sampling_ratio=1.0", "reliability.client_dropout=0.2", "model.cut_layer=2"),
        *("steps_per_epoch=2", "epochs=2"),
    ),
}
"""Settings by name. Smoke samples 6 of 12 clients, so private state travels between ranks."""
EVALUATED = (
    "evaluations/knn_top1",
    "result/linear_top1",
    "result/own_knn_top1",
    "result/own_linear_top1",
    "after_sync/own_share",
    "resistance/ssim",
)
"""What is computed from models that come from other ranks."""
LEDGER = ("simulated/bytes", "simulated/messages", "simulated/client_flops")
"""What every rank knows by itself."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All rows on a number of ranks, in one start of MPI; their directories by name."""
    done = {}

    def at(ranks):
        if ranks not in done:
            folder = tmp_path_factory.mktemp(f"on-{ranks}")
            paths = {name: folder / str(number) for number, name in enumerate(ROWS)}
            commands = [
                words(paths[name], *row, f"compute.pipeline={('on', 'off')[number % 2]}")
                for number, (name, row) in enumerate(ROWS.items())
            ]
            said = carry_out(commands, ranks, folder / "rows.json")
            assert said.stdout == ""
            done[ranks] = paths
        return done[ranks]

    return at


def words(out, *settings):
    return ["run", "smoke", "--out", out, "--quiet", *(w for setting in settings for w in ("--set", setting))]


@pytest.mark.parametrize("ranks", [2, 3, 5])
@pytest.mark.parametrize("name", ROWS)
def test_every_rank_count_gives_the_same_bits(runs, name, ranks):
    with open_run(runs(1)[name]) as one, open_run(runs(ranks)[name]) as many:
        assert many["ranks/clients"].shape == (ranks,)
        assert differences(one, many) is None
        assert one.names == many.names
        for series in set(one.names) & {*EVALUATED, *LEDGER}:
            np.testing.assert_array_equal(one[series], many[series], err_msg=series)


def run(out, ranks, *settings):
    done = mocosfl(*words(out, *settings), "-n", str(ranks))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return out


def test_more_ranks_than_blocks(tmp_path):
    """Six clients in blocks of three for seven hosts: five have nothing to do."""
    one, many = (run(tmp_path / str(n), n, "compute.block_size=3") for n in (1, 8))
    done = mocosfl("diff", one, many)
    assert done.returncode == 0, done.stdout


def test_diff_sees_another_seed(tmp_path):
    a, b = run(tmp_path / "a", 1), run(tmp_path / "b", 1, "seed=7")
    done = mocosfl("diff", a, b)
    assert done.returncode == 1
    assert "seed" in done.stdout


def test_diff_sees_another_state_under_the_same_configuration(tmp_path):
    """A run whose stored hash differs is told apart although every setting agrees."""
    a, b = run(tmp_path / "a", 1), tmp_path / "b"
    shutil.copytree(a, b)
    with h5py.File(b / "run.h5", "r+") as file:
        file["result/state_sha256"][()] = b"0" * 64
    done = mocosfl("diff", a, b)
    assert done.returncode == 1
    assert "state_sha256" in done.stdout
