"""A network segment as shapes only: run it without computing or storing anything."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Skeleton:
    """Shapes of ``module``'s parameters and buffers on torch's meta device; the module itself stays untouched.

    An operator on meta tensors makes the same outputs and saves the same tensors as on a CPU, but holds no
    numbers: a network of any size is measured in milliseconds.
    """

    def __init__(self, module: nn.Module) -> None:
        self.parameters = {name: _meta(p).requires_grad_(p.requires_grad) for name, p in module.named_parameters()}
        self.buffers = {name: _meta(b) for name, b in module.named_buffers()}
        self.dtype = next((p.dtype for p in self.parameters.values()), torch.float32)
        self._module = module

    def bind(self, *, learns: bool) -> Callable[[Tensor], Tensor]:
        """The segment as a function; its parameters ask for a gradient where the module's do and it ``learns``."""
        state = {name: p if learns else p.detach() for name, p in self.parameters.items()}

        def segment(rows: Tensor) -> Tensor:
            out: Tensor = functional_call(self._module, {**state, **self.buffers}, (rows,))
            return out

        return segment

    @property
    def trainable(self) -> int:
        """Scalars in parameters that learn."""
        return sum(p.numel() for p in self.parameters.values() if p.requires_grad)


def _meta(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta", requires_grad=False)
