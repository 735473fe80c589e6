"""The published decoders, as attacks build them: one that cannot be had is a reason, and no mistake of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from mocosfl_mpi.attacks.attack import NotApplicable
from mocosfl_mpi.cost.flops import measure
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.privacy import decoders


def macs(network: nn.Module, smashed_shape: Sequence[int]) -> float:
    """Multiply-accumulates of a decoder for one image: what makes decoders comparable."""
    return float(measure(network, tuple(smashed_shape)).last.macs)


def decoder(
    name: str, smashed_shape: Sequence[int], image_shape: Sequence[int], norm: Literal["batch", "group"] = "batch"
) -> nn.Module:
    """See ``privacy.decoders.decoder``. NotApplicable where it cannot draw such images from such smashed data."""
    try:
        return decoders.decoder(name, smashed_shape, image_shape, norm)
    except BadInput as error:
        raise NotApplicable(str(error)) from None
