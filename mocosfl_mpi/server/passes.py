"""Passes of the main server through its backbone: by torch's autograd, or by the fused kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from mocosfl_mpi.split.compiling import compiled
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.split.fused import FusedNetwork, Prepared

Pullback = Callable[[Tensor], Tensor | None]


class Passes(Protocol):
    """Passes through one module. Weights may change between steps, and only there."""

    def begin(self) -> None:
        """The weights of this step stand."""

    def forward(self, x: Tensor) -> Tensor:
        """The module's output; keeps no graph."""

    def forward_with_pullback(self, x: Tensor, *, wants_input: bool) -> tuple[Tensor, Pullback]:
        """The output, detached, and the function from its gradient to that at ``x`` (None unless wanted).

        Gradients at the weights add up over the step's pullbacks.
        """

    def end(self) -> None:
        """The parameters' ``grad`` is that of all pullbacks since ``begin``."""


class TorchPasses:
    """Through autograd, in the module's own arithmetic; compiled where the engine says so and there are weights."""

    def __init__(self, module: nn.Module, engine: Engine) -> None:
        self._module = module
        self._dtype = engine.activations
        some = any(True for _ in module.parameters())
        self._pass: Callable[..., Tensor] = compiled(module, engine.device) if engine.compiled and some else module

    def begin(self) -> None:
        """Nothing to prepare but a clean slate."""
        self._module.zero_grad(set_to_none=True)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """The module's output; keeps no graph."""
        return self._pass(self._enter(x))

    def _enter(self, x: Tensor) -> Tensor:
        """Channels last, as GPUs want them; first for processors: oneDNN is not safe there (see ``split.fused``)."""
        form = torch.contiguous_format if x.device.type == "cpu" else torch.channels_last
        return x.detach().to(self._dtype).contiguous(memory_format=form)

    def forward_with_pullback(self, x: Tensor, *, wants_input: bool) -> tuple[Tensor, Pullback]:
        """See ``Passes``."""
        x = self._enter(x).requires_grad_(wants_input)
        y = self._pass(x)

        def pullback(gradient: Tensor) -> Tensor | None:
            if y.requires_grad and y is not x:
                y.backward(gradient)
            elif wants_input:
                x.grad = gradient
            return x.grad

        return y.detach(), pullback

    def end(self) -> None:
        """Autograd has left the gradients where they belong."""


class FusedPasses:
    """Through the fused kernels; the module's parameters become views of one flat vector."""

    def __init__(self, module: nn.Module, engine: Engine) -> None:
        assert engine.kernels is not None
        self._network = FusedNetwork(module, engine.kernels, engine.activations, library=True)
        self._parameters = list(module.parameters())
        self._flat = torch.cat([torch.empty(0), *(p.detach().reshape(-1) for p in self._parameters)])[None]
        for parameter, part in self._views(self._flat):
            parameter.data = part
        self._prepared: Prepared | None = None

    def _views(self, flat: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        sizes = [p.numel() for p in self._parameters]
        parts = flat[0].split(sizes) if sizes else ()
        return [(p, part.view_as(p)) for p, part in zip(self._parameters, parts, strict=True)]

    def begin(self) -> None:
        """Standardise all filters, once for the step."""
        self._prepared = self._network.prepare(self._flat)

    def forward(self, x: Tensor) -> Tensor:
        """The module's output; keeps no graph."""
        assert self._prepared is not None
        return self._prepared.forward(x)

    def forward_with_pullback(self, x: Tensor, *, wants_input: bool) -> tuple[Tensor, Pullback]:
        """See ``Passes``."""
        assert self._prepared is not None
        y, back = self._prepared.forward_with_pullback(x)
        return y, lambda gradient: back(gradient, wants_input)

    def end(self) -> None:
        """The gradient at the standardised filters becomes that at the weights."""
        assert self._prepared is not None
        if self._parameters:
            for parameter, part in self._views(self._prepared.gradient()):
                parameter.grad = part
        self._prepared = None


def passes(module: nn.Module, engine: Engine) -> Passes:
    """The passes of this engine."""
    return FusedPasses(module, engine) if engine.backend == "fused" else TorchPasses(module, engine)
