"""The guard of a run: its random numbers belong to client and step, and its work and memory to the client's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from mocosfl_mpi.clients.block import Block
from mocosfl_mpi.clients.shield import Pull
from mocosfl_mpi.config import Config
from mocosfl_mpi.cost.flops import SegmentCost
from mocosfl_mpi.cost.memory import ClientMemory
from mocosfl_mpi.privacy import nopeek
from mocosfl_mpi.privacy.resistance import slope_flops
from mocosfl_mpi.privacy.transforms import guard
from mocosfl_mpi.split.cut import SplitNetwork
from mocosfl_mpi.streams import Streams

Slope = Callable[[Block, Tensor, Tensor], Tensor]
"""(block, images, smashed data) to the derivative of how well the clients' own decoders draw the images."""


class Streamed:
    """The guard of a run as a shield.

    Draws are from the streams ("defence query" or "defence key", epoch, step, client).
    """

    def __init__(self, config: Config, streams: Streams, slope: Slope | None = None) -> None:
        self._guard = guard(config)
        self._streams = streams
        self._slope = slope if config.defence.adversarial else None

    def query(self, block: Block, images: Tensor, smashed: Tensor, epoch: int, step: int) -> tuple[Tensor, Pull]:
        """What a block sends of ``smashed [lanes, rows, C, h, w]``, and the way back for its gradient."""
        return self._send("query", block, images, smashed, epoch, step)

    def key(self, block: Block, images: Tensor, smashed: Tensor, epoch: int, step: int) -> Tensor:
        """The same of key data, to which no gradient comes back."""
        return self._send("key", block, images, smashed, epoch, step)[0]

    def _send(
        self, branch: str, block: Block, images: Tensor, smashed: Tensor, epoch: int, step: int
    ) -> tuple[Tensor, Pull]:
        draws = [self._streams.generator(f"defence {branch}", epoch, step, int(client)) for client in block.clients]
        return self._guard.send(smashed, draws, self._slope(block, images, smashed) if self._slope else None)


def guard_cost(config: Config, network: SplitNetwork) -> SegmentCost:
    """What a client's defences compute on an image and its smashed data; not what `resistance` adds."""
    found = arithmetic(config, network)
    if not config.defence.adversarial:
        return found
    return found + SegmentCost(slope_flops(config, network), backward_weights=0, backward_input=0, parameters=0)


def arithmetic(config: Config, network: SplitNetwork) -> SegmentCost:
    """Of that what no network computes: all but the slope, which is the client's decoder there and back."""
    numbers, pixels, defence = network.smashed_floats, math.prod(network.input_shape), config.defence
    there, back = guard(config).flops(numbers)
    found = SegmentCost(forward=there, backward_weights=0, backward_input=back, parameters=0)
    if not defence.nopeek:
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
