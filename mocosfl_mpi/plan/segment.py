"""One side of the cut as numbers: parameters, work, and what its passes keep in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mocosfl_mpi.cost import memory
from mocosfl_mpi.cost.flops import NOTHING, Costs, measure
from mocosfl_mpi.cost.shapes import Skeleton

_ROWS = 2  # BatchNorm refuses to train on a single row


@dataclass(frozen=True)
class Segment:
    """A network segment; bytes are per row (one image of one view)."""

    parameters: int
    costs: Costs
    saved: int
    """Activations that wait for the backward pass."""
    largest: int
    """The largest map between two layers."""


NO_SEGMENT = Segment(parameters=0, costs=NOTHING, saved=0, largest=0)
"""Where there is no main server."""


def both_ends(first: Segment, last: Segment) -> Segment:
    """A client's segments on either side of the server's."""
    costs = Costs(
        first.costs.answering + last.costs.answering,
        first.costs.last + last.costs.answering,
    )
    largest = max(first.largest, last.largest)
    return Segment(first.parameters + last.parameters, costs, first.saved + last.saved, largest)


def segment(module: nn.Module, input_shape: tuple[int, ...], *, fused: bool, itemsize: int) -> Segment:
    """Measure ``module`` by shapes alone; ``itemsize`` is that of an activation."""
    maps = _maps(module, input_shape, (nn.Conv2d, nn.ConvTranspose2d))
    if fused:  # of each convolution its output and what the normalisation makes of it
        saved = itemsize * (torch.Size(input_shape).numel() + 2 * sum(maps))
    else:
        found = memory.measure(module, input_shape, _ROWS, frozen=False)
        own = next(module.parameters()).element_size()
        saved = found.activations * itemsize // (own * _ROWS)
    return Segment(
        parameters=sum(p.numel() for p in module.parameters()),
        costs=measure(module, input_shape),
        saved=saved,
        largest=itemsize * max([*maps, *_maps(module, input_shape, (nn.Linear,)), torch.Size(input_shape).numel()]),
    )


def _maps(module: nn.Module, input_shape: tuple[int, ...], kinds: tuple[type[nn.Module], ...]) -> list[int]:
    """Numbers per row in the output of each layer of these kinds."""
    found: list[int] = []

    def note(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(output.numel() // _ROWS)

    handles = [part.register_forward_hook(note) for part in module.modules() if isinstance(part, kinds)]
    try:
        skeleton = Skeleton(module)
        with torch.no_grad():
            skeleton.bind(learns=False)(torch.empty(_ROWS, *input_shape, dtype=skeleton.dtype, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    return found
