"""How networks are computed in this run: in which number format, and by which backend."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mocosfl_mpi.config import Compute
from mocosfl_mpi.native.kernels import Kernels
from mocosfl_mpi.split.cut import SplitNetwork
from mocosfl_mpi.split.fused import FusedNetwork

MASTERS = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.float32}
"""Type of weights, optimiser state, averages, logits and loss by precision."""
CPU = torch.device("cpu")
ACTIVATIONS = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16}
"""Type of activations, convolutions and all that travels at the cut by precision."""

SHARE = 8
"""What need not lie on a device may take this part of its memory, which several ranks may share: an eighth."""


@dataclass(frozen=True)
class Accelerator:
    """What a rank computes on in place of the processor."""

    device: torch.device
    bfloat16: bool
    """Whether those of all ranks compute in it."""


@dataclass(frozen=True)
class Engine:
    """Precision and backend, decided; ``kernels`` where the backend is `fused`."""

    precision: str
    backend: str
    kernels: Kernels | None = None
    device: torch.device = CPU
    """Where clients and main server compute; what MPI moves lies in host memory."""
    compiled: bool = False
    """Whether torch's passes are compiled (see ``compiling``)."""

    @property
    def weights(self) -> torch.dtype:
        """Type of weights, optimiser state, averages, logits and loss."""
        return MASTERS[self.precision]

    @property
    def activations(self) -> torch.dtype:
        """Type of activations and of what travels at the cut."""
        return ACTIVATIONS[self.precision]


def has_room(device: torch.device, size: int) -> bool:
    """Whether ``size`` bytes that lie in host memory may lie on ``device`` too, beside what must; never on processors.

    By all of its memory, not by what is free: where things are computed must not hang on the moment.
    """
    if device.type == "cpu":
        return False
    _, memory = torch.get_device_module(device).mem_get_info(device)
    return size <= int(memory) // SHARE


def precision(compute: Compute, kernels: Kernels | None, accelerator: Accelerator | None = None) -> str:
    """The precision asked for; `auto` is bf16 where the device computes in it, otherwise fp32."""
    if compute.precision != "auto":
        return compute.precision
    if accelerator is not None:
        return "bf16" if accelerator.bfloat16 else "fp32"
    return "bf16" if kernels is not None and torch.bfloat16 in kernels.convolves else "fp32"


def choose(
    compute: Compute, kernels: Kernels | None, network: SplitNetwork, accelerator: Accelerator | None = None
) -> Engine:
    """The engine for ``network``: what is asked for, as far as this machine has it.

    `auto`, and `fused` where it cannot be had, are `fused` if the kernels can compute this network in this precision
    and `stacked` otherwise, as with `compute.compile`.
    """
    chosen = precision(compute, kernels, accelerator)
    if accelerator is not None:
        backend = "loop" if compute.backend == "loop" else "stacked"
        return Engine(chosen, backend, device=accelerator.device, compiled=compute.compile)
    if compute.compile:
        return Engine(chosen, "stacked", compiled=True)
    if compute.backend in ("auto", "fused"):
        if kernels is not None and _fits(network, kernels, ACTIVATIONS[chosen]):
            return Engine(chosen, "fused", kernels)
        return Engine(chosen, "stacked")
    return Engine(chosen, compute.backend)


def _fits(network: SplitNetwork, kernels: Kernels, dtype: torch.dtype) -> bool:
    clients = (cut.first for cut in network.cuts)
    return all(FusedNetwork.supports(first, kernels, dtype, library=False) for first in clients) and (
        network.trunk is None or FusedNetwork.supports(network.trunk.backbone, kernels, dtype, library=True)
    )
