"""One training step against the published structure, both taking turns on the same cores.

    python benchmarks/step.py --cut 1 --precision bf16 [--ranks 3] [--backend fused] [--device cuda] [--compile]
        [--block 100] [--repeats 5] [--data-dir DIR]

100 sampled clients of 1,000 with batches of one image, published symmetric loss, ResNet-18 of width 64, 6,000 keys of
1,024 dimensions. Images are CIFAR-10's with --data-dir, otherwise the embedded ones at 32 pixels. The last line is one
JSON object: `ratio` (published structure / ours, median of the pairs), `seconds` and `seconds_published_structure`
(medians), the phases of both, the machine's limits. Each side runs as its users start it: ours with what the launcher
sets (allocator, threads that sleep), the published structure in a process of its own with torch's defaults. With
--ranks N also `mocosfl run` with one process and with N ranks, in turns: `ranks_ratio` is the time of N ranks over that
of one process with as many cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import Layer, convolution_seconds, description, limits

from mocosfl_mpi.config import Config, parse, to_toml
from mocosfl_mpi.launch import environment
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.simulation import Conduct, Simulation
from mocosfl_mpi.split import cut
from mocosfl_mpi.streams import Streams

PREPARED = "BENCHMARK_PREPARED"
TRAINING = ("views", "client_forward", "exchange", "server", "client_backward", "synchronise")


def configuration(options: argparse.Namespace, threads: int, **changes: object) -> Config:
    """The experiment of the benchmark."""
    source = {"source": "cifar10", "allow_unofficial": True} if options.data_dir else {"source": "embedded"}
    values: dict[str, object] = {
        "epochs": 1000,
        "steps_per_epoch": 1000,
        "data": source,
        "views": {"size": 32},
        "partition": {"kind": "iid"},
        "model": {"cut_layer": options.cut, "width": options.width},
        "contrast": {"symmetric": options.symmetric},
        "client": {
            "count": options.clients,
            "batch_size": options.batch,
            "sampling_ratio": options.pool / options.clients,
        },
        "federation": {"sync_freq": 1},
        "evaluation": {"every": 0, "linear_probe": False},
        "compute": {
            "device": options.device,
            "precision": options.precision,
            "backend": options.backend,
            "compile": options.compile,
            "block_size": options.block,
            "server_threads": options.threads,
            "host_threads": threads,
        },
    }
    return parse(values | changes, "benchmark")


class Baseline:
    """The published structure in a process of its own, which steps when it is told to."""

    def __init__(self, config: Config, options: argparse.Namespace, folder: Path) -> None:
        file = folder / "baseline.toml"
        file.write_text(to_toml(config))
        script = Path(__file__).with_name("published_structure.py")
        command = [sys.executable, str(script), str(file), str(options.threads), options.device]
        command += [str(options.data_dir)] if options.data_dir else []
        plain = {name: value for name, value in os.environ.items() if name not in json.loads(os.environ[PREPARED])}
        self._process = subprocess.Popen(
            command, env=plain, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def step(self) -> dict[str, Any]:
        """One step; its seconds, and those of its phases."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("step\n")
        return dict(json.loads(self._process.stdout.readline()))

    def end(self) -> None:
        """Let the process end."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def pairs(options: argparse.Namespace) -> dict[str, object]:
    """Steps of the simulator and of the published structure by turns."""
    config = configuration(options, options.threads)
    ours, theirs, phases, published = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        simulation = Simulation.begin(config, Conduct("step", out, options.data_dir, quiet=True))
        steps = simulation.train()
        baseline = Baseline(config, options, Path(folder))
        for repeat in range(options.repeats + 1):
            before = simulation.meter.seconds
            start = time.perf_counter()
            next(steps)
            seconds = time.perf_counter() - start
            other = baseline.step()
            if repeat:  # the first of each warms up
                theirs.append(other["step"])
                ours.append(seconds)
                phases.append({k: simulation.meter.seconds[k] - before[k] for k in TRAINING})
                published.append(other["phases"])
        baseline.end()
    return {
        "precision": simulation.config.compute.precision,
        "backend": simulation.config.compute.backend,
        "compile": options.compile,
        "channels": simulation.problem.pixels.shape[1],
        "ratio": median(b / a for a, b in zip(ours, theirs, strict=True)),
        "ratios": [round(b / a, 3) for a, b in zip(ours, theirs, strict=True)],
        "seconds": median(ours),
        "seconds_published_structure": median(theirs),
        "phases": {name: median(p[name] for p in phases) for name in phases[0]},
        "phases_published_structure": {name: median(p[name] for p in published) for name in published[0]},
    }


def trunk_layers(options: argparse.Namespace, channels: int) -> list[Layer]:
    """(inputs, outputs, kernel, stride, side) of every convolution above the cut."""
    found: list[Layer] = []
    network = cut.build(configuration(options, 1).model, channels, 32, Streams(0), torch.float32)
    for module in network.trunk.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda m, x, _: found.append(
                    (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], x[0].shape[-1])
                )
            )
    with torch.no_grad():
        network.trunk(torch.zeros(1, *network.smashed_shape))
    return found


def against_limits(options: argparse.Namespace, found: dict[str, object]) -> dict[str, object]:
    """The server's phase against what the machine's convolutions would take alone."""
    dtype, name = (torch.bfloat16, "bf16") if found["precision"] == "bf16" else (torch.float32, "fp32")
    bare = convolution_seconds(
        trunk_layers(options, int(str(found["channels"]))), options.pool * options.batch, dtype, options.device
    )
    terms = 2 if options.symmetric == "published" else 1  # each: key forward, query forward and backward
    rates = limits(options.device)
    seconds = float(found["phases"]["server"])  # type: ignore[index]
    rate = terms * 4 * bare["forward_gflop"] / seconds
    return {
        "limits": rates,
        "server_gflops": rate,
        "server_share_of_convolution_rate": rate / rates[f"convolution_{name}_gflops"],
        "server_share_of_its_convolutions_alone": terms * (2 * bare["forward"] + bare["backward"]) / seconds,
    }


def run_seconds(options: argparse.Namespace, config: Config, ranks: int, out: Path) -> list[dict[str, float]]:
    """Seconds per step and phase of rank 0 in `mocosfl run`, for each epoch but the first, which warms up."""
    few = config.data.model_copy(update={"train_images": 2000, "test_images": 100})  # little to evaluate
    file = out.with_suffix(".toml")
    file.write_text(to_toml(config.model_copy(update={"data": few})))
    command = [sys.executable, "-m", "mocosfl_mpi", "run", str(file), "-n", str(ranks), "--out", str(out)]
    command += ["--quiet", *(["--data-dir", str(options.data_dir)] if options.data_dir else [])]
    subprocess.run(command, check=True)
    with open_run(out) as run:
        names, seconds = [str(name) for name in run["phase"]], run["measured/seconds"][1:, 0]
        epochs = [dict(zip(names, epoch / config.steps_per_epoch, strict=True)) for epoch in seconds]
    return [{name: float(epoch[name]) for name in TRAINING} for epoch in epochs]


def over_ranks(options: argparse.Namespace) -> dict[str, object]:
    """`mocosfl run` with one process and with several ranks by turns: seconds per step of rank 0."""
    seconds: dict[int, list[float]] = {1: [], options.ranks: []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(options.repeats):
            for ranks, taken in seconds.items():
                threads = options.threads if ranks == 1 else max(1, options.threads // (ranks - 1))
                config = configuration(options, threads, epochs=3, steps_per_epoch=4)
                epochs = run_seconds(options, config, ranks, Path(folder) / f"{ranks}-{repeat}")
                taken += [sum(phases.values()) for phases in epochs]
    one, many = (median(taken) for taken in seconds.values())
    return {"ranks": options.ranks, "ranks_ratio": many / one, "seconds_one_process": one, "seconds_ranks": many}


def table(found: dict[str, object], repeats: int) -> str:
    """The phases of both as a table."""
    mine, other = found["phases"], found["phases_published_structure"]
    lines = [f"{'phase':<18}{'ours':>10}{'published structure':>22}   seconds, medians of {repeats}"]
    for name in dict.fromkeys((*mine, *other)):  # type: ignore[misc]
        cells = (f"{part[name]:.4f}" if name in part else "" for part in (mine, other))  # type: ignore[operator, index]
        lines.append("{:<18}{:>10}{:>22}".format(name, *cells))
    sums = found["seconds"], found["seconds_published_structure"], found["ratio"]
    return "\n".join([*lines, "step              {:>10.4f}{:>22.4f}   ratio {:.2f}".format(*sums)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cut", type=int, default=1)
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of both sides")
    parser.add_argument("--backend", choices=("auto", "fused", "stacked", "loop"), default="auto")
    parser.add_argument("--compile", action="store_true", help="compute.compile, with the stacked backend")
    parser.add_argument("--block", type=int, help="compute.block_size")
    parser.add_argument("--symmetric", choices=("published", "off"), default="published")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--pool", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    if PREPARED not in os.environ:  # the launcher's environment, for both sides alike
        prepared = environment("none", os.environ, ranks=1)
        added = sorted(set(prepared) - set(os.environ))
        os.execve(sys.executable, [sys.executable, *sys.argv], prepared | {PREPARED: json.dumps(added)})
    torch.set_num_threads(options.threads)
    found = {"cut": options.cut, "device": options.device, **pairs(options)}
    found |= against_limits(options, found)
    print(table(found, options.repeats))
    if options.ranks > 1:
        found |= over_ranks(options)
        print("{ranks} ranks: {seconds_ranks:.4f} s, one process: {seconds_one_process:.4f} s".format(**found))
    print(json.dumps(found | {"machine": description()}))


if __name__ == "__main__":
    main()
