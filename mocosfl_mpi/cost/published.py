"""The papers' own cost calculator, for comparison: MocoSFL's ``overhead_calculator.py`` (spec 8.1).

Its units differ from those used everywhere else here. An *operation* is one of fvcore's: a multiply-accumulate of a
convolution or matrix product, and a few per element of a normalisation or pool. "M" is 2^20, "G" 2^30, "MB" 2^20 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mocosfl_mpi.cost.shapes import Skeleton
from mocosfl_mpi.split.cut import SplitNetwork

MEBIBYTE = 2**20
"""Bytes in what the papers call MB, operations in their M."""
GIBI = 2**30
"""Operations in the papers' G."""
GROUP_NORM, BATCH_NORM, POOL = 5, 2, 1
"""Operations per input element: fvcore's for affine group norm, affine batch norm in evaluation, adaptive pool."""
PASSES, PASSES_FROZEN = 3, 1
"""Forward passes that a client's training is taken for: online, momentum, backward; or the online one alone."""

_FLOAT = 4


@dataclass(frozen=True)
class PublishedTraffic:
    """Traffic of one client over a whole training by the papers' formula, in MB of 2^20 bytes."""

    latents: float
    weights: float

    @property
    def total(self) -> float:
        """Latents and weights together."""
        return self.latents + self.weights


def published_megabytes(
    epochs: float, images: int, activation_floats: int, scalars: int, syncs: int, frozen: bool = False
) -> PublishedTraffic:
    """The one-way formula behind MocoSFL's Table 1 and Fig. 7.

    Latents 2·epochs·images·A·4 B; weights syncs·P·4 B. ``images`` and ``epochs`` are one client's, A =
    ``activation_floats`` the floats of one image at the cut, P = ``scalars`` of the client's state. It leaves out a
    third of the latents (query up, key up, gradient down make 3 A) and the downlink of the weights: the ledger counts
    all. ``frozen`` (TAResSFL): half the latents, no weights.
    """
    copies = 1 if frozen else 2
    return PublishedTraffic(
        latents=copies * epochs * images * activation_floats * _FLOAT / MEBIBYTE,
        weights=0.0 if frozen else syncs * scalars * _FLOAT / MEBIBYTE,
    )


def elements(network: SplitNetwork) -> tuple[int, int]:
    """Operations per image in normalisations and the pool: (client's part, main server's part).

    With the multiply-accumulates of one forward pass they make up the papers' "FLOPs". Nothing is computed.
    """
    assert network.trunk is not None, "the papers' calculator counts a network that is cut"
    backbone, shape = Skeleton(network.trunk.backbone), network.smashed_shape
    with torch.no_grad():
        pooled = backbone.bind(learns=False)(torch.empty(1, *shape, dtype=backbone.dtype, device="meta"))
    return (
        _normalisations(network.bottom, network.input_shape),
        _normalisations(network.trunk, shape) + POOL * pooled.numel(),
    )


def _normalisations(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    found: list[int] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        each = GROUP_NORM if isinstance(layer, nn.GroupNorm) else BATCH_NORM
        found.append(each * inputs[0][0].numel())

    layers = [layer for layer in module.modules() if isinstance(layer, nn.GroupNorm | _BatchNorm)]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        skeleton = Skeleton(module)
        rows = torch.empty(2, *input_shape, dtype=skeleton.dtype, device="meta")  # BatchNorm refuses a single row
        with torch.no_grad():
            skeleton.bind(learns=False)(rows)
    finally:
        for handle in handles:
            handle.remove()
    return sum(found)


def state(network: SplitNetwork) -> tuple[int, int]:
    """(scalars, bytes) of the whole network's state, counters of BatchNorm included: what an FL client sends."""
    parts = [network.bottom, *([network.trunk] if network.trunk else [])]
    values = [value for part in parts for value in part.state_dict().values()]
    return sum(value.numel() for value in values), sum(value.numel() * value.element_size() for value in values)
