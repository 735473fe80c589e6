"""The one vectorised primitive: many copies of a network whose weights are rows of one flat matrix.

A block of clients holds ``[lanes, P]`` numbers per kind of state (online, momentum, velocity), so that EMA, SGD
and averaging are single operations. How the copies are evaluated is the backend's affair: ``loop`` takes one
lane after the other (the oracle), ``stacked`` all lanes at once through torch, whose passes may be compiled, ``fused``
through kernels of our own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mocosfl_mpi.split.compiling import compiled
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.split.fused import FusedNetwork

Pullback = Callable[[Tensor], Tensor]


class StackedModel:
    """A network as a function of flat weights ``[lanes, P]``. Holds no weights and no state itself."""

    def __init__(self, module: nn.Module, engine: Engine) -> None:
        if any(True for _ in module.buffers()):
            raise ValueError("a stacked network must not hold buffers (running statistics would be shared)")
        self._module = module
        self._dtype = engine.activations
        self._forward: Callable[..., Tensor] = self._loop if engine.backend == "loop" else self._stacked
        if engine.compiled:
            self._forward = compiled(self._forward, engine.device)
        self._fused: FusedNetwork | None = None
        if engine.backend == "fused":
            assert engine.kernels is not None
            self._fused = FusedNetwork(module, engine.kernels, engine.activations, library=False)
        self.names: list[str] = []
        self.spans: list[tuple[int, int]] = []
        self._shapes: list[torch.Size] = []
        start = 0
        for name, parameter in module.named_parameters():
            self.names.append(name)
            self.spans.append((start, start + parameter.numel()))
            self._shapes.append(parameter.shape)
            start += parameter.numel()
        self.parameters = start
        self.filters = filters(module)

    def flat(self, module: nn.Module) -> Tensor:
        """The weights of ``module`` as one vector ``[P]``, a copy."""
        return torch.cat([p.detach().reshape(-1) for p in module.parameters()])

    def module(self, flat: Tensor) -> nn.Module:
        """The network as a module of its own with the weights ``flat`` ``[P]``, copied."""
        module = copy.deepcopy(self._module)
        with torch.no_grad():
            for parameter, (start, end) in zip(module.parameters(), self.spans, strict=True):
                parameter.copy_(flat[start:end].view_as(parameter))
        return module

    def _unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        lanes = flat.shape[0]
        return {
            name: flat[:, start:end].view(lanes, *shape)
            for name, (start, end), shape in zip(self.names, self.spans, self._shapes, strict=True)
        }

    def _one(self, weights: dict[str, Tensor], images: Tensor) -> Tensor:
        return functional_call(self._module, weights, (images,))  # type: ignore[no-any-return]

    def _stacked(self, weights: dict[str, Tensor], images: Tensor) -> Tensor:
        return vmap(self._one)(weights, images)

    def _loop(self, weights: dict[str, Tensor], images: Tensor) -> Tensor:
        lanes = range(images.shape[0])
        return torch.stack([self._one({k: w[lane] for k, w in weights.items()}, images[lane]) for lane in lanes])

    def forward(self, flat: Tensor, images: Tensor) -> Tensor:
        """Outputs ``[lanes, n, …]`` for weights ``[lanes, P]`` and images ``[lanes, n, C, H, W]``; keeps no graph."""
        if self._fused is not None:
            outputs = self._fused.prepare(flat).forward(images.flatten(0, 1))
            return outputs.view(*images.shape[:2], *outputs.shape[1:])
        with torch.no_grad():
            return self._forward(self._unflatten(flat), images.to(self._dtype))

    def forward_with_pullback(self, flat: Tensor, images: Tensor) -> tuple[Tensor, Pullback]:
        """Outputs (detached), and the function from gradients at the outputs to gradients ``[lanes, P]``.

        The graph lives until the pullback is called once or dropped.
        """
        if self._fused is not None:
            return self._fused_with_pullback(self._fused, flat, images)
        weights = {name: weight.detach().requires_grad_() for name, weight in self._unflatten(flat).items()}
        with torch.enable_grad():
            outputs = self._forward(weights, images.to(self._dtype))

        def pullback(gradient: Tensor) -> Tensor:
            gradients = torch.autograd.grad(outputs, list(weights.values()), gradient)
            return torch.cat([g.flatten(1) for g in gradients], dim=1)

        return outputs.detach(), pullback

    @torch.no_grad()
    def sgd(
        self,
        weights: Tensor,
        velocity: Tensor,
        gradient: Tensor,
        rates: Tensor,
        answered: Tensor,
        *,
        momentum: float,
        decay: float,
    ) -> None:
        """SGD as torch has it, in place, of every lane that is ``answered``: v ← μ·v + (g + λ·w), w ← w - rate·v.

        ``weights``, ``velocity``, ``gradient``: ``[lanes, P]``, ``rates [lanes]``, ``answered [lanes]`` (bool); the
        other lanes stay bit for bit. A lane's result depends on nothing but its own numbers.
        """
        if self._fused is not None:
            self._fused.kernels.sgd(weights, velocity, gradient, rates, answered, momentum=momentum, decay=decay)
            return
        silent = ~answered
        before = weights[silent], velocity[silent]
        velocity.mul_(momentum).add_(gradient).add_(weights, alpha=decay)
        weights.sub_(velocity * rates[:, None])
        weights[silent], velocity[silent] = before

    def forward_with_full_pullback(
        self, flat: Tensor, inputs: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
        """The same, with gradients ``[lanes, P]`` at the weights and at the ``inputs`` (not for `fused`)."""
        assert self._fused is None, "the fused backend gives clients no gradient at their inputs"
        weights = {name: weight.detach().requires_grad_() for name, weight in self._unflatten(flat).items()}
        inputs = inputs.detach().to(self._dtype).requires_grad_()
        with torch.enable_grad():
            outputs = self._forward(weights, inputs)

        def pullback(gradient: Tensor) -> tuple[Tensor, Tensor]:
            *found, at_inputs = torch.autograd.grad(outputs, [*weights.values(), inputs], gradient)
            return torch.cat([g.flatten(1) for g in found], dim=1), at_inputs

        return outputs.detach(), pullback

    def _fused_with_pullback(self, network: FusedNetwork, flat: Tensor, images: Tensor) -> tuple[Tensor, Pullback]:
        prepared = network.prepare(flat)
        outputs, back = prepared.forward_with_pullback(images.flatten(0, 1))

        def pullback(gradient: Tensor) -> Tensor:
            back(gradient.flatten(0, 1), False)
            return prepared.gradient()

        return outputs.view(*images.shape[:2], *outputs.shape[1:]), pullback


def filters(module: nn.Module) -> list[tuple[int, int]]:
    """(start, stop) in a network's flat weights of its backbone's weights proper: tensors of two and more dimensions.

    A network that is not whole, and so has no part of that name, has none.
    """
    found, start = [], 0
    for name, parameter in module.named_parameters():
        stop = start + parameter.numel()
        if name.startswith("backbone.") and parameter.ndim > 1:
            found.append((start, stop))
        start = stop
    return found
