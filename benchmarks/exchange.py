"""How fast smashed data travels between hosts and server, against a plain copy in memory.

    python benchmarks/exchange.py [--ranks 3] [--clients 100] [--mib 0.125] [--repeats 20]

Messages and shared windows take turns.

Every client sends one message of --mib MiB up, and gets one down, in 16 blocks (one 32x32x64 map in bfloat16
is 0.125 MiB). The last line is one JSON object: payload per second up and down (GB/s), and a copy's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from statistics import median

import numpy as np
import torch
from machine import best, description

from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.comm.placement import deal
from mocosfl_mpi.comm.stream import stream
from mocosfl_mpi.launch import environment, find_mpiexec
from mocosfl_mpi.rows import Rows
from mocosfl_mpi.split.engine import CPU


def measure(options: argparse.Namespace) -> None:
    """On every rank: messages of all clients up and down, timed on rank 0 between two meetings."""
    torch.set_num_threads(1)
    cluster = Cluster()
    by_windows, by_messages = Exchange(cluster), Exchange(cluster)
    dealt = deal(np.arange(options.clients), max(1, options.clients // 16), cluster.hosts)
    width = int(options.mib * 2**20) // 2
    ways = {}
    for way, exchange in (("", by_messages), ("windows_", by_windows)):
        exchange.begin(dealt)
        ways[way] = stream(exchange, (f"{way}maps",), 1, [(width,)], torch.bfloat16, CPU, eager=True)
    by_messages.windows.refuse()
    own = [len(b) for b, owner in zip(dealt.blocks, dealt.owners, strict=True) if owner == cluster.rank]
    parts = [torch.ones(lanes, 1, width, dtype=torch.bfloat16) for lanes in own]
    gradient = Rows((torch.ones(options.clients, width, dtype=torch.bfloat16),))
    up, down = ({way: [] for way in ways} for _ in range(2))
    for _ in range(options.repeats + 1):
        for way, traffic in ways.items():
            cluster.meet()
            start = time.perf_counter()
            traffic.begin()
            for part in parts:
                traffic.send(part)
            traffic.sent()
            if cluster.serves:
                traffic.take(slice(None))
            cluster.meet()
            up[way].append(time.perf_counter() - start)
            start = time.perf_counter()
            if cluster.serves:
                traffic.answer(gradient)
            traffic.end(down=True)
            list(traffic.receive())
            cluster.meet()
            down[way].append(time.perf_counter() - start)
    if cluster.serves:
        payload = options.clients * width * 2
        source = torch.ones(payload // 2, dtype=torch.bfloat16)
        target = torch.empty_like(source)
        result = {
            "ranks": cluster.size,
            "payload_mib": payload / 2**20,
            **{f"{way}up_gbytes_per_s": payload / median(up[way][1:]) / 1e9 for way in ways},
            **{f"{way}down_gbytes_per_s": payload / median(down[way][1:]) / 1e9 for way in ways},
            "copy_gbytes_per_s": payload / best(lambda: target.copy_(source), options.repeats) / 1e9,
            "library": cluster.library(),
        }
        for name, value in result.items():
            print(f"{name:<26} {value:.2f}" if isinstance(value, float) else f"{name:<26} {value}")
        print(json.dumps(result | {"machine": description()}))
    cluster.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--mib", type=float, default=0.125)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        measure(options)
        return
    path, kind = find_mpiexec()
    command = [path, "-n", str(options.ranks), sys.executable, *sys.argv, "--inside"]
    environ = environment(kind, os.environ, ranks=options.ranks) | dict(os.environ)
    sys.exit(subprocess.run(command, env=environ, check=False).returncode)


if __name__ == "__main__":
    main()
