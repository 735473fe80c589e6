"""Same seed, same bits, for any number of ranks: the promise of the project."""

from __future__ import annotations

import itertools

import pytest

from tests.mpi.command import mocosfl

pytestmark = [pytest.mark.mpi, pytest.mark.xdist_group("mpi")]

METHODS = ("mocosfl", "monacosfl")
SYMMETRIES = ("published", "both_views", "off")


def run(out, ranks, *settings):
    arguments = [word for setting in settings for word in ("--set", setting)]
    done = mocosfl("run", "smoke", "-n", str(ranks), "--out", out, "--quiet", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return out


@pytest.mark.parametrize(("method", "symmetric"), list(itertools.product(METHODS, SYMMETRIES)))
def test_every_rank_count_gives_the_same_bits(tmp_path, method, symmetric):
    """With client sampling on (smoke draws 6 of 12 clients), so private state travels between ranks."""
    settings = (f"method={method}", f"contrast.symmetric={symmetric}")
    runs = {ranks: run(tmp_path / str(ranks), ranks, *settings) for ranks in (1, 2, 3, 5)}
    for ranks in (2, 3, 5):
        done = mocosfl("diff", runs[1], runs[ranks])
        assert done.returncode == 0, f"{ranks} ranks: {done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    "settings",
    [
        ("contrast.share_features=false", "client.gradient_scale=own_rows", "client.velocity_at_sync=averaged"),
        ("client.frozen=true",),
        ("compute.precision=fp64", "compute.backend=loop", "compute.block_size=4", "federation.weighting=data"),
        ("compute.backend=fused", "compute.precision=bf16", "model.cut_layer=4", "compute.block_size=4"),
        ("compute.backend=fused", "compute.precision=fp32", "model.bottleneck=C4S2"),
        ("compute.backend=stacked", "compute.precision=bf16"),
        ("compute.backend=stacked", "compute.precision=fp32", "client.velocity_at_sync=reset"),
        ("partition.kind=dirichlet", "client.schedule_step=published", "server.micro_batch=5"),
    ],
)
def test_options_keep_the_promise(tmp_path, settings):
    one, many = run(tmp_path / "1", 1, *settings), run(tmp_path / "5", 5, *settings)
    done = mocosfl("diff", one, many)
    assert done.returncode == 0, done.stdout


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
    import h5py

    a, b = run(tmp_path / "a", 1), run(tmp_path / "b", 1)
    with h5py.File(b / "run.h5", "r+") as file:
        file["result/state_sha256"][()] = b"0" * 64
    done = mocosfl("diff", a, b)
    assert done.returncode == 1
    assert "state_sha256" in done.stdout
