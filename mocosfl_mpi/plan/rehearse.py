"""One rank of a rehearsal: some steps of an experiment with made-up images, timed.

    mpiexec -n N python -m mocosfl_mpi.plan.rehearse CONFIG OUT CHANNELS SIDE

Rank 0 prints one JSON object as its last line. The parts are the real ones, so what is timed is what will run; nothing
of it is kept.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.config import Config, parse, read_toml
from mocosfl_mpi.data.images import Dataset, Images
from mocosfl_mpi.problem import Source
from mocosfl_mpi.simulation import Conduct, Simulation

IMAGES, TEST_IMAGES = 64, 8
ENCODED = 250


def made_up(config: Config, channels: int, side: int) -> Source:
    """Random images, of which every client owns a batch."""
    generator = np.random.default_rng(config.seed)

    def some(count: int) -> Images:
        pixels = generator.integers(0, 256, (count, channels, side, side), dtype=np.uint8)
        return Images(pixels, np.arange(count, dtype=np.int64) % 2)

    train = some(IMAGES)
    parts = [generator.integers(0, IMAGES, config.client.batch_size) for _ in range(config.client.count)]
    data = Dataset(train, some(TEST_IMAGES), ("a", "b"), (0.5,) * channels, (0.25,) * channels)
    return Source(data, train, None, parts)


def _seconds(work: Callable[[], object]) -> float:
    """The shortest of three times, after a first one."""
    work()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def _rates(simulation: Simulation) -> dict[str, float]:
    """Seconds per encoded image, and rates of the products that evaluations need, with the server's threads."""
    size = simulation.config.views.size or simulation.problem.pixels.shape[-1]
    with simulation.meter.phase("evaluate"), torch.no_grad():
        encoder = simulation.results.encoder()
        images = torch.zeros(ENCODED, simulation.problem.pixels.shape[1], size, size)
        square, tall = torch.ones(1024, 1024), torch.ones(8192, 512, dtype=torch.float64)
        thin = torch.ones(512, 10, dtype=torch.float64)
        return {
            "encoding": _seconds(lambda: encoder(images.to(simulation.clients.dtype))) / ENCODED,
            "products": 2.0 * 1024**3 / _seconds(lambda: square @ square),
            "double_products": 2.0 * tall.numel() * 10 / _seconds(lambda: tall @ thin),
        }


def main(arguments: Sequence[str]) -> None:
    """Be one rank."""
    file, out, channels, side = arguments
    Cluster().abort_on_error()
    config = parse(read_toml(Path(file)), file)
    source = made_up(config, int(channels), int(side))
    simulation = Simulation.begin(config, Conduct("rehearsal", out=Path(out), quiet=True), source)
    for _ in simulation.train():
        pass
    cluster = simulation.cluster
    rates = _rates(simulation) if cluster.serves else {}
    simulation.results.complete(0.0, 0.0)
    cluster.close()
    if cluster.serves:
        from mocosfl_mpi.record.reader import open_run

        with open_run(simulation.results.path) as run:
            names = ("measured/seconds", "measured/resident_bytes", "ranks/threads")
            found = {name.rpartition("/")[2]: run[name].tolist() for name in names}
            print(json.dumps(found | rates | {"phase": run["phase"].tolist()}))


if __name__ == "__main__":
    main(sys.argv[1:])
