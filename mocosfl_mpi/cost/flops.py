"""FLOPs of one network segment on the device that would compute it.

A multiplication and an addition are 2 FLOPs, so MACs = FLOPs / 2. Counted from operators are convolutions and matrix
products only (:class:`torch.utils.flop_counter.FlopCounterMode`); normalisation, activations and weight
standardisation are not. Element-wise costs that grow with the parameters, or with what is compressed, are added in
closed form: EMA and SGD here, mixing and compressed momentum in ``server``, samples at the cut by their codecs.

The published calculator (spec 8.1) counts 1 per MAC and takes a backward pass for one forward pass; compare its
figures with :attr:`SegmentCost.macs`, not with FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mocosfl_mpi.codecs import codec
from mocosfl_mpi.config import Config
from mocosfl_mpi.cost.shapes import Skeleton
from mocosfl_mpi.methods import MIXING
from mocosfl_mpi.record.schema import FURTHER_WORK, WORK

Counts = npt.NDArray[np.int64]

EMA_FLOPS_PER_PARAMETER = 3
"""C' ← C' + (1-τ)·(C - C'): subtract, multiply, add."""
OPTIMISER_FLOPS_PER_PARAMETER = 6
"""SGD: g ← g + λ·w, v ← μ·v + g, w ← w - η·v: a multiplication and an addition each."""

LEARNING = ("backward", "optimiser")
"""Kinds of work of a client that has got its gradient."""

_ROWS = 2
"""Rows of the measurement; BatchNorm refuses to train on a single one. FLOPs are linear in rows."""


@dataclass(frozen=True)
class SegmentCost:
    """FLOPs per image of one network segment."""

    forward: int
    """One forward pass."""
    backward_weights: int
    """Gradients of the weights."""
    backward_input: int
    """Gradients of activations: those inside, and the segment's input where it is asked for."""
    parameters: int
    """Trainable scalars."""
    defence: int = 0
    """Terms at the cut, in steps in which the client learns."""
    attacker: int = 0
    """The client's own attacker, in steps in which that learns."""
    attacker_step: int = 0
    """The attacker's optimiser: not per image, but per such step."""

    def defended(self, *, image: int = 0, attacker: int = 0, attacker_step: int = 0) -> SegmentCost:
        """With a term at the cut."""
        return self + SegmentCost(0, 0, 0, 0, image, attacker, attacker_step)

    def __add__(self, other: SegmentCost) -> SegmentCost:
        """Two segments on one device."""
        return SegmentCost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def backward(self) -> int:
        """FLOPs per image of one backward pass."""
        return self.backward_weights + self.backward_input

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image of one forward pass: the papers' "FLOPs"."""
        return self.forward // 2


class Costs(NamedTuple):
    """One segment, by whether it sends a gradient down."""

    answering: SegmentCost
    """The gradient at the segment's input is wanted, as the server's is while clients learn."""
    last: SegmentCost
    """It is not, as with a client, whose input is an image."""


def measure(module: nn.Module, input_shape: tuple[int, ...]) -> Costs:
    """Count the FLOPs per image of ``module`` for inputs of ``input_shape`` (without the batch dimension).

    Nothing is computed and the module is not changed.
    """
    skeleton = Skeleton(module)
    rows = torch.empty(_ROWS, *input_shape, dtype=skeleton.dtype, device="meta", requires_grad=True)
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        out = skeleton.bind(learns=True)(rows)
    forward = int(counter.get_total_flops())
    learning = [p for p in skeleton.parameters.values() if p.requires_grad]
    everything, inputs_only, unasked = (_backward(out, wanted) for wanted in ([*learning, rows], [rows], learning))
    weights = everything - inputs_only
    return Costs(
        *(
            SegmentCost(
                forward=forward // _ROWS,
                backward_weights=weights // _ROWS,
                backward_input=(asked - weights) // _ROWS,
                parameters=skeleton.trainable,
            )
            for asked in (everything, unasked)
        )
    )


NOTHING = Costs(SegmentCost(0, 0, 0, 0), SegmentCost(0, 0, 0, 0))
"""Of a server that is not there."""


def _convolution_backward(
    upstream: Sequence[int], images: Sequence[int], weight: Sequence[int], *settings: Any, **_named: Any
) -> int:
    """FLOPs of a convolution's gradients from shapes: each of the two takes as many as the forward pass.

    torch's own count of the filters' gradient is too large by the number of groups.
    """
    transposed, wanted = settings[4], settings[7]
    applied = images if transposed else upstream  # a filter is applied once for each of these pixels
    each = 2 * upstream[0] * math.prod(applied[2:]) * math.prod(weight)
    return each * (int(wanted[0]) + int(wanted[1]))


_CORRECTED: dict[Any, Any] = {torch.ops.aten.convolution_backward: _convolution_backward}


def _backward(out: Tensor, wanted: Sequence[Tensor]) -> int:
    """FLOPs of the gradients at ``wanted``: autograd computes no others on the way."""
    if not wanted or not out.requires_grad:
        return 0
    with FlopCounterMode(display=False, custom_mapping=_CORRECTED) as counter:
        torch.autograd.grad(out, wanted, torch.empty_like(out), retain_graph=True, allow_unused=True)
    return int(counter.get_total_flops())


def per_image(cost: SegmentCost, frozen: bool, momentum: bool = True) -> dict[str, int]:
    """FLOPs per image by kind. Query and key pass through networks of the same shape; a frozen one never learns.

    Without a ``momentum`` model there are no keys.
    """
    key, backward = cost.forward if momentum else 0, 0 if frozen else cost.backward
    return dict(zip(WORK, (cost.forward, key, backward, 0, 0), strict=True))


def per_step(cost: SegmentCost, frozen: bool, momentum: bool = True) -> dict[str, int]:
    """FLOPs per training step by kind that do not depend on the number of images: EMA and SGD."""
    learning = 0 if frozen else cost.parameters
    ema = EMA_FLOPS_PER_PARAMETER * learning if momentum else 0
    return dict(zip(WORK, (0, 0, 0, ema, OPTIMISER_FLOPS_PER_PARAMETER * learning), strict=True))


def by_client(
    costs: Sequence[SegmentCost],
    *,
    steps: Counts,
    learnt: Counts,
    rows: Counts,
    frozen: bool,
    momentum: bool,
    kinds: Counts,
) -> Counts:
    """FLOPs ``[clients, work]`` of ``steps [clients]`` with ``rows`` each; in ``learnt`` of them came a gradient.

    ``kinds [clients]``: whose segment costs which of ``costs``.
    """
    image, step = (
        np.array([list(of(cost, frozen, momentum).values()) for cost in costs])[kinds] for of in (per_image, per_step)
    )
    times = np.stack([learnt if work in LEARNING else steps for work in WORK], axis=1)
    found: Counts = times * (rows[:, None] * image + step)
    return found


def kinds_of_work(config: Config) -> tuple[str, ...]:
    """Kinds of a client's work, in the order of the record: those of all runs, then what this one has beside them."""
    asked = {
        "alignment": config.aligned in MIXING or config.federation.momentum_compression != "none",
        "codec": (config.communication.smashed, config.communication.gradient) != ("none", "none"),
        "defence": config.learns_defence,
    }
    return *WORK, *(kind for kind in FURTHER_WORK if asked[kind])


def defence_work(cost: SegmentCost, *, learnt: Counts, attacked: Counts, rows: Counts) -> Counts:
    """FLOPs ``[clients]`` of terms at the cut in ``learnt`` steps with ``rows`` each.

    ``attacked``: of those the steps in which the client's attacker learnt.
    """
    return learnt * rows * cost.defence + attacked * (rows * cost.attacker + cost.attacker_step)


def codec_work(config: Config, floats: int) -> dict[str, int]:
    """FLOPs of a client, by message, to quantise one sample's ``floats`` numbers or to have them again."""
    settings = config.communication
    up = codec(settings.smashed, settings.topk).work.quantise(floats)
    down = codec(settings.gradient, settings.topk).work.restore(floats)
    found = {"query_up": up, "key_up": up, "gradient_down": down}
    return {message: flops for message, flops in found.items() if flops}


def totals(cost: SegmentCost, *, steps: int, rows: int, frozen: bool, momentum: bool = True) -> dict[str, int]:
    """FLOPs by kind of ``steps`` training steps with ``rows`` rows per encoder each."""
    image, step = per_image(cost, frozen, momentum), per_step(cost, frozen, momentum)
    return {kind: steps * (rows * image[kind] + step[kind]) for kind in WORK}
