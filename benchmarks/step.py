"""One training step against the published structure, in one process, both taking turns.

    python benchmarks/step.py --cut 1 --precision bf16 [--backend fused] [--repeats 5] [--data-dir DIR] [--threads N]

100 sampled clients of 1,000 with batches of one image, published symmetric loss, ResNet-18 of width 64, 6,000 keys of
1,024 dimensions. Images are CIFAR-10's with --data-dir, otherwise the embedded ones at 32 pixels. The last line is one
JSON object: `ratio` (published structure / ours, median of the pairs), `seconds` and `seconds_published_structure`
(medians), the phases of both, and the machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from machine import convolution_seconds, description, limits
from published_structure import PublishedStructure

from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.config import Config, parse
from mocosfl_mpi.simulation import Simulation
from mocosfl_mpi.split.cut import SplitNetwork


def configuration(options: argparse.Namespace) -> Config:
    data = {"source": "cifar10", "allow_unofficial": True} if options.data_dir else {"source": "embedded"}
    return parse(
        {
            "epochs": 1000,
            "steps_per_epoch": 1000,
            "data": data,
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
            "compute": {
                "precision": options.precision,
                "backend": options.backend,
                "server_threads": options.threads,
                "host_threads": options.threads,
            },
        },
        "benchmark",
    )


def trunk_layers(network: SplitNetwork) -> list[tuple[int, int, int, int, int]]:
    """(inputs, outputs, kernel, stride, side) of every convolution above the cut."""
    found: list[tuple[int, int, int, int, int]] = []
    hooks = [
        module.register_forward_hook(
            lambda m, x, _: found.append((m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], x[0].shape[-1]))
        )
        for module in network.trunk.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    with torch.no_grad():
        network.trunk(torch.zeros(1, *network.smashed_shape))
    for hook in hooks:
        hook.remove()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cut", type=int, default=1)
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--backend", choices=("auto", "fused", "stacked", "loop"), default="auto")
    parser.add_argument("--symmetric", choices=("published", "off"), default="published")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--pool", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = configuration(options)
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(
            config, Cluster(), preset="benchmark", out=Path(folder) / "run", data_dir=options.data_dir, quiet=True
        )
        steps = simulation.train()
        baseline = PublishedStructure(config, simulation.problem)
        ours, theirs, phases, published = [], [], [], []
        for repeat in range(options.repeats + 1):
            before = simulation.meter.seconds
            start = time.perf_counter()
            next(steps)
            seconds = time.perf_counter() - start
            torch.set_num_threads(options.threads)
            baseline.seconds = dict.fromkeys(baseline.seconds, 0.0)
            start = time.perf_counter()
            baseline.step()
            if repeat:  # the first of each warms up
                theirs.append(time.perf_counter() - start)
                ours.append(seconds)
                phases.append({k: v - before[k] for k, v in simulation.meter.seconds.items()})
                published.append(dict(baseline.seconds))
    result: dict[str, object] = {
        "cut": options.cut,
        "precision": simulation.config.compute.precision,
        "backend": simulation.config.compute.backend,
        "ratio": median(b / a for a, b in zip(ours, theirs, strict=True)),
        "ratios": [round(b / a, 3) for a, b in zip(ours, theirs, strict=True)],
        "seconds": median(ours),
        "seconds_published_structure": median(theirs),
        "phases": {name: median(p[name] for p in phases) for name in phases[0]},
        "phases_published_structure": {name: median(p[name] for p in published) for name in published[0]},
    }
    dtype = torch.bfloat16 if simulation.config.compute.precision == "bf16" else torch.float32
    assert simulation.main_server is not None
    from mocosfl_mpi.split import cut
    from mocosfl_mpi.streams import Streams

    network = cut.build(config.model, simulation.problem.pixels.shape[1], 32, Streams(0), torch.float32)
    bare = convolution_seconds(trunk_layers(network), options.pool * options.batch, dtype)
    passes = 2 if options.symmetric == "published" else 1
    bound = passes * (2 * bare["forward"] + bare["backward"])
    result["limits"] = limits()
    result["convolutions_alone_seconds"] = bound
    server = result["phases"]["server"]  # type: ignore[index]
    result["server_share_of_convolutions"] = bound / server
    flops = passes * 4 * bare["forward_gflop"]
    result["server_gflops"] = flops / server
    result["server_share_of_convolution_rate"] = (
        flops / server / result["limits"][f"convolution_{'bf16' if dtype is torch.bfloat16 else 'fp32'}_gflops"]
    )  # type: ignore[index]
    result["machine"] = description()
    print(f"{'phase':<18}{'ours':>10}{'published structure':>22}   seconds, medians of {options.repeats}")
    for name in dict.fromkeys((*phases[0], *published[0])):
        mine, other = result["phases"].get(name), result["phases_published_structure"].get(name)  # type: ignore[attr-defined]
        print(
            f"{name:<18}{mine if mine is None else round(mine, 4)!s:>10}{other if other is None else round(other, 4)!s:>22}"
        )
    print(f"{'step':<18}{median(ours):>10.4f}{median(theirs):>22.4f}   ratio {result['ratio']:.2f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
