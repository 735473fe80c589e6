"""The clients' phases alone: fused kernels against the loop over clients, both taking turns in one process.

    python benchmarks/clients.py --cut 2 [--precision bf16] [--clients 100] [--batch 1] [--threads 2]

Momentum update, key forward, query forward, backward and SGD of all clients, ResNet-18 of width 64 on images of 32
pixels. The reference is the `loop` backend in fp32. The last line is one JSON object: `ratio`, and seconds of both.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from statistics import median

import numpy as np
import torch
from machine import description

from mocosfl_mpi.clients.block import Block
from mocosfl_mpi.config import Client, Model
from mocosfl_mpi.launch import environment
from mocosfl_mpi.native import load
from mocosfl_mpi.split import cut
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.split.stacked import StackedModel
from mocosfl_mpi.streams import Streams

BLOCK = 16
PREPARED = "BENCHMARK_PREPARED"


class Clients:
    """All clients in blocks, as a rank holds them."""

    def __init__(self, options: argparse.Namespace, engine: Engine) -> None:
        network = cut.build(Model(cut_layer=options.cut), 3, 32, Streams(0), torch.float32)
        model = StackedModel(network.bottom, engine)
        flat = model.flat(network.bottom)
        self.blocks = []
        for start in range(0, options.clients, BLOCK):
            ids = np.arange(start, min(start + BLOCK, options.clients))
            state = {name: flat.repeat(len(ids), 1) for name in ("online", "momentum")}
            state["velocity"] = torch.zeros_like(state["online"])
            self.blocks.append(Block(ids, state, model, Client()))
        self.views = torch.randn(2, options.clients, options.batch, 3, 32, 32)

    def step(self) -> float:
        """Seconds of one step of all clients."""
        start = time.perf_counter()
        outputs = []
        for block in self.blocks:
            block.update_momentum(0.99)
            query, key = self.views[:, block.clients[0] : block.clients[-1] + 1]
            outputs.append(block.forward(query, key)[0])
        for block, output in zip(self.blocks, outputs, strict=True):
            lanes = len(block.clients)
            block.backward(output, torch.full((lanes,), 1e-6), torch.ones(lanes, dtype=torch.bool))
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cut", type=int, default=2)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if PREPARED not in os.environ:
        prepared = environment("none", os.environ | {PREPARED: "1"}, ranks=1)
        os.execve(sys.executable, [sys.executable, *sys.argv], prepared)
    torch.set_num_threads(options.threads)
    fused = Clients(options, Engine(options.precision, "fused", load()))
    loop = Clients(options, Engine("fp32", "loop"))
    taken = [(fused.step(), loop.step()) for _ in range(options.repeats + 1)][1:]
    result = {
        "cut": options.cut,
        "precision": options.precision,
        "ratio": median(b / a for a, b in taken),
        "ratios": [round(b / a, 2) for a, b in taken],
        "seconds": median(a for a, _ in taken),
        "seconds_loop_fp32": median(b for _, b in taken),
    }
    for name, value in result.items():
        print(f"{name:<18} {value}")
    print(json.dumps(result | {"machine": description()}))


if __name__ == "__main__":
    main()
