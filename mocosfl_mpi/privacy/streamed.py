"""The guard of a run: its random numbers belong to client and step, and its work and memory to the client's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from mocosfl_mpi.clients.shield import Ids, Pull
from mocosfl_mpi.config import Config
from mocosfl_mpi.cost.flops import SegmentCost
from mocosfl_mpi.cost.memory import ClientMemory
from mocosfl_mpi.privacy import nopeek
from mocosfl_mpi.privacy.transforms import guard
from mocosfl_mpi.streams import Streams


class Streamed:
    """The guard of a run as a shield.

    Draws are from the streams ("defence query" or "defence key", epoch, step, client).
    """

    def __init__(self, config: Config, streams: Streams) -> None:
        self._guard = guard(config)
        self._streams = streams

    def query(self, smashed: Tensor, clients: Ids, epoch: int, step: int) -> tuple[Tensor, Pull]:
        """What a block sends of ``smashed [lanes, rows, C, h, w]``, and the way back for its gradient."""
        return self._guard.send(smashed, self._draws("query", clients, epoch, step))

    def key(self, smashed: Tensor, clients: Ids, epoch: int, step: int) -> Tensor:
        """The same of key data, to which no gradient comes back."""
        return self._guard.send(smashed, self._draws("key", clients, epoch, step))[0]

    def _draws(self, branch: str, clients: Ids, epoch: int, step: int) -> list[np.random.Generator]:
        return [self._streams.generator(f"defence {branch}", epoch, step, int(client)) for client in clients]


def guard_cost(config: Config, numbers: int, pixels: int) -> SegmentCost:
    """What a client's defences compute on an image of ``pixels`` numbers and its smashed data of ``numbers``."""
    there, back = guard(config).flops(numbers)
    found = SegmentCost(forward=there, backward_weights=0, backward_input=back, parameters=0)
    if not config.defence.nopeek:
        return found
    return found.defended(image=nopeek.flops(config.rows_per_client, pixels, numbers))


def with_guard(memory: ClientMemory, config: Config, numbers: int, rows: int, itemsize: int) -> ClientMemory:
    """A client's memory with what its defences keep of ``rows`` samples, up to the end of the backward pass."""
    if config.client.frozen:
        return memory
    kept = rows * guard(config).kept(numbers, itemsize)
    if config.defence.nopeek:
        kept += nopeek.kept(rows, itemsize)
    return replace(memory, activations=memory.activations + kept, peak=memory.peak + kept)
