"""A ledger small enough to work out by hand: four members, two steps and one synchronisation an epoch."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from mocosfl_mpi.record.schema import MESSAGES, WORK
from tests.unit.record.samples import STATE, create, row

STEPS = 2
PER_MEMBER = {  # messages and bytes of one member in an epoch
    "query_up": (STEPS, 2_000_000),
    "key_up": (STEPS, 2_000_000),
    "gradient_down": (STEPS, 2_000_000),
    "weights_up": (1, 500_000),
    "weights_down": (1, 500_000),
}
FLOPS = {"query_forward": 800_000_000, "backward": 3_200_000_000}


def write(path: Path, epochs: int = 1, accuracies=(), completed: bool = True, spare_steps: int = 0) -> Path:
    """A run's file; in each epoch the last member fetches the model once more than the others, at the beginning."""
    messages, size, flops = np.zeros((4, len(MESSAGES)), int), np.zeros((4, len(MESSAGES)), int), np.zeros((4, 5), int)
    for name, (count, amount) in PER_MEMBER.items():
        messages[:, MESSAGES.index(name)], size[:, MESSAGES.index(name)] = count, amount
    messages[3, MESSAGES.index("weights_down")] += 1
    size[3, MESSAGES.index("weights_down")] += 500_000
    for name, amount in FLOPS.items():
        flops[:, WORK.index(name)] = amount
    simulated = {"simulated/messages": messages, "simulated/bytes": size, "simulated/client_flops": flops}
    with create(path) as recorder:
        for epoch in range(epochs):
            for _ in range(STEPS):
                recorder.append("step", row("step", 0) | {"steps/epoch": epoch})
            recorder.append("sync", row("sync", 0) | {"syncs/epoch": epoch})
            clients = {"epochs/clients": [epoch % 3, 3, 4, 5]}
            recorder.append("epoch", row("epoch", epoch) | simulated | clients)
        for _ in range(spare_steps):
            recorder.append("step", row("step", 0) | {"steps/epoch": epochs})
        for epoch, accuracy in accuracies:
            values = {"evaluations/epoch": epoch, "evaluations/knn_top1": accuracy}
            recorder.append("evaluation", row("evaluation", 0) | values)
        recorder.flush()
        if completed:
            recorder.complete(STATE)
    with h5py.File(path, "r+") as file:
        file["cost/flops_per_image"][...] = [[100_000_000, 0, 0, 0, 0], [600_000_000, 400_000_000, 0, 0, 0]]
        file["cost/flops_per_step"][...] = [[0] * 5, [0, 0, 0, 1_000_000_000, 3_000_000_000]]
    return path
