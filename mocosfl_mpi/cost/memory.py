"""Memory of one simulated client device, in bytes.

Counted are tensors as torch's autograd makes them: no allocator rounding, no workspace inside a kernel, no Python.
Momentum update and SGD step are taken to work in place.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mocosfl_mpi.cost.shapes import Skeleton


@dataclass(frozen=True)
class ClientMemory:
    """Bytes of one client by kind; the fields are ``MEMORY``."""

    weights: int
    """Online model: parameters and buffers."""
    momentum_weights: int
    """Momentum model, as large (0 where the method has none), and what its compressed alignment needs: the last common
    one and a residual."""
    velocity: int
    """SGD momentum buffers; 0 for a frozen client."""
    gradients: int
    """Gradients of all parameters; 0 for a frozen client."""
    input: int
    """All views, as many rows each."""
    activations: int
    """What autograd saves in the online forward for the backward, without parameters and input; 0 if frozen."""
    peak: int
    """Most bytes alive at once during a training step, weights, momentum weights and velocity included."""


def measure(
    module: nn.Module,
    input_shape: tuple[int, ...],
    rows: int,
    frozen: bool,
    momentum: bool = True,
    beside: int = 0,
    views: int = 2,
) -> ClientMemory:
    """Memory of a client whose segment is ``module``, for ``rows`` rows of ``input_shape`` (no batch dim) per view.

    ``beside``: bytes that it keeps beside its models for their alignment. ``views``: 2, or 1 where labels tell what an
    image is.

    The step that is followed: all views are there; key forward without graph, if there is a ``momentum`` model, its
    output sent and freed with its view; online forward; the gradient at the cut arrives, as large as the output, which
    is kept; backward. A frozen client builds no graph and receives no gradient. Nothing is computed and the module is
    not changed.

    Raises
    ------
    ValueError
        ``rows`` is not positive.
    """
    if rows < 1:
        raise ValueError(f"rows = {rows}: a client computes at least one row")
    skeleton = Skeleton(module)
    tensors = [*skeleton.parameters.values(), *skeleton.buffers.values()]
    weights = _unique_bytes(tensors)
    learning = 0 if frozen else _unique_bytes(p for p in skeleton.parameters.values() if p.requires_grad)
    view = torch.empty(rows, *input_shape, dtype=skeleton.dtype, device="meta")
    return ClientMemory(
        weights=weights,
        momentum_weights=momentum * weights + beside,
        velocity=learning,
        gradients=learning,
        input=views * _bytes(view),
        activations=0 if frozen else _saved_bytes(skeleton.bind(learns=True), view, tensors),
        peak=(1 + momentum) * weights + beside + learning + _live_peak(skeleton, view.shape, frozen, momentum, views),
    )


def both_ends(first: ClientMemory, last: ClientMemory) -> ClientMemory:
    """Memory of a client with a segment on either side of the server's.

    ``last`` computes while the activations of ``first`` wait; its own gradients wait while ``first`` goes back.
    """
    waiting = first.weights + first.velocity + first.input + first.activations
    return ClientMemory(
        weights=first.weights + last.weights,
        momentum_weights=first.momentum_weights + last.momentum_weights,
        velocity=first.velocity + last.velocity,
        gradients=first.gradients + last.gradients,
        input=first.input,
        activations=first.activations + last.input,
        peak=max(waiting + last.peak, first.peak + last.weights + last.velocity + last.gradients),
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def _identity(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _unique_bytes(tensors: Iterable[Tensor]) -> int:
    return sum({_identity(tensor): _bytes(tensor) for tensor in tensors}.values())


def _saved_bytes(segment: Callable[[Tensor], Tensor], view: Tensor, others: Sequence[Tensor]) -> int:
    """Bytes of unique storages that autograd saves in one forward, without those of ``view`` and ``others``."""
    saved: list[Tensor] = []  # kept until the end: a freed storage's identity could be given to the next one

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
        out = segment(view)
    excluded = {_identity(tensor) for tensor in (view, *others)}
    total = _unique_bytes(tensor for tensor in saved if _identity(tensor) not in excluded)
    del out
    return total


class _LiveBytes(TorchDispatchMode):
    """Bytes of storages made inside the mode: alive now, and the most so far."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._seen = {_identity(tensor) for tensor in known}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._track(tensor)
        return out

    def _track(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = _identity(tensor)
        if key in self._seen:
            return
        self._seen.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, key, storage.nbytes()).atexit = False

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def _live_peak(skeleton: Skeleton, shape: Sequence[int], frozen: bool, momentum: bool, views: int) -> int:
    """Most bytes alive during one client step beside the weights, momentum weights and velocity."""
    # detach() gives the momentum model the online model's storages, which are known and count nothing here.
    online, slow = skeleton.bind(learns=not frozen), skeleton.bind(learns=False)
    with _LiveBytes([*skeleton.parameters.values(), *skeleton.buffers.values()]) as bytes_:
        query = torch.empty(shape, dtype=skeleton.dtype, device="meta")
        key = torch.empty(shape if views > 1 else 0, dtype=skeleton.dtype, device="meta")
        if momentum:
            with torch.no_grad():
                slow(key)
        del key
        with torch.set_grad_enabled(not frozen):
            smashed = online(query)
        if smashed.requires_grad:
            smashed.backward(torch.empty_like(smashed))
        peak: int = bytes_.peak
    for parameter in skeleton.parameters.values():
        parameter.grad = None
    return peak
