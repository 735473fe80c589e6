"""The benchmarks start, and their last line is what they promise. What they measure is no test's business."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.kernels import kernels_or_skip
from tests.mpi.command import clean_environment

ROOT = Path(__file__).parents[2]


def last_line(*arguments):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_step():
    tiny = ("--clients", 6, "--pool", 4, "--width", 8, "--repeats", 1, "--threads", 1)
    found = last_line("benchmarks/step.py", "--cut", 2, "--precision", "fp32", *tiny)
    assert found["seconds"] > 0
    assert found["seconds_published_structure"] > 0
    assert found["ratios"] == [round(found["ratio"], 3)]
    assert found["phases"]["server"] > 0
    assert found["phases_published_structure"]["views"] > 0
    assert found["limits"]["gemm_fp32_gflops"] > 0
    assert found["server_share_of_convolution_rate"] > 0


def test_clients():
    kernels_or_skip(torch.float32)
    found = last_line("benchmarks/clients.py", "--cut", 1, "--precision", "fp32", "--clients", 3, "--repeats", 1)
    assert found["ratio"] > 0
    assert found["seconds"] > 0
    assert found["seconds_loop_fp32"] > 0


def test_published_structure_computes_what_the_simulator_computes(tmp_path):
    """Fed with the same views, both have the same loss: the baseline is no straw man."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from published_structure import PublishedStructure

    from mocosfl_mpi.config import parse
    from mocosfl_mpi.simulation import Conduct, Simulation

    torch.set_num_threads(1)
    config = parse(
        {
            "epochs": 1,
            "steps_per_epoch": 3,
            "data": {"train_images": 60, "test_images": 20},
            "model": {"width": 8, "cut_layer": 2, "key_dim": 16},
            "contrast": {"memory_length": 30},
            "client": {"count": 4, "batch_size": 2, "schedule": "constant"},
            "server": {"schedule": "constant"},
            "federation": {"sync_freq": 1},
            "evaluation": {"every": 0, "linear_probe": False, "neighbours": 5},
            "compute": {"precision": "fp32", "backend": "stacked", "server_threads": 1},
        },
        "test",
    )
    simulation = Simulation.begin(config, Conduct("test", tmp_path / "run", quiet=True))
    baseline = PublishedStructure(config, simulation.problem, config.seed)
    baseline.queue.copy_(simulation.main_server.memory.newest_first().flip(0).T)
    views = {}
    draw = simulation.clients._draw

    def keep(block, epoch, step):
        query, key = draw(block, epoch, step)
        for lane, client in enumerate(block.clients):
            views[step, int(client)] = query[lane], key[lane]
        return query, key

    simulation.clients._draw = keep
    steps = []
    baseline._views = lambda client: views[len(steps), client]
    for scheduler in baseline.schedulers:
        scheduler.step = lambda: None
    for number, _ in enumerate(simulation.train()):
        loss = baseline.step()
        steps.append((simulation.route.report.loss, loss))
        if number == 1:
            break  # the simulator averages after the third
    for ours, theirs in steps:
        assert abs(ours - theirs) < 1e-4 * ours


@pytest.mark.mpi
def test_pipeline():
    tiny = ("--clients", 6, "--pool", 4, "--width", 8, "--repeats", 1)
    found = last_line("benchmarks/pipeline.py", "--cut", 2, "--precision", "fp32", *tiny)
    assert found["ranks"] == 2
    assert found["seconds_on"] > found["waiting_on"] > 0
    assert found["seconds_off"] > found["waiting_off"] > 0
    assert len(found["ratios"]) == 2


@pytest.mark.mpi
def test_exchange():
    found = last_line("benchmarks/exchange.py", "--ranks", 2, "--clients", 5, "--mib", 0.01, "--repeats", 2)
    assert found["ranks"] == 2
    assert found["up_gbytes_per_s"] > 0
    assert found["down_gbytes_per_s"] > 0
