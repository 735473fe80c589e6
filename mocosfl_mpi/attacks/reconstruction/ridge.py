"""A decoder in closed form: ridge regression from a window of smashed data to the pixels below it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.attacks.attack import Effort, Guess, Kind
from mocosfl_mpi.attacks.view import Sight, View

PENALTIES = tuple(10.0**power for power in range(-8, 5))
"""Ridge penalties, times the mean squared feature; the best on the held-out images is taken."""
MOST_FEATURES = 1200
"""Larger windows are tried only as long as they have so few numbers."""
HELD_OUT = 0.2


class Ridge:
    """Local linear decoder: each window of ``z`` to the block of pixels at its centre."""

    name: ClassVar[str] = "ridge"
    kind: ClassVar[Kind] = "reconstruction"
    needs: ClassVar[frozenset[Sight]] = frozenset({"smashed", "weights"})
    source: ClassVar[str] = "own: linear least squares in closed form, the cheapest attacker there is"

    def run(self, view: View, seed: int, effort: Effort) -> Guess:  # noqa: ARG002
        """Pixels of the images whose smashed data the view has."""
        assert view.smashed is not None
        generator = torch.Generator().manual_seed(seed)
        sent = torch.cat([view.sent(part, generator) for part in view.own.split(256)])
        channels, height = sent.shape[1], sent.shape[2]
        block = view.image_shape[1] // height
        window = next((w for w in (5, 3) if channels * w * w <= MOST_FEATURES and w <= height), 1)
        order = torch.randperm(len(sent), generator=generator)
        held = max(1, round(HELD_OUT * len(order)))
        fit, check = order[held:], order[:held]
        shift, spread = _scales(sent[fit])
        features, targets = _windows((sent - shift) / spread, window), _blocks(view.own, block)
        gram, cross = _normal(features[fit].flatten(0, 1), targets[fit].flatten(0, 1))
        scale = gram.diagonal()[:-1].mean().clamp(min=1e-6)  # of a client that sends the same for everything: 0
        best = None
        for penalty in PENALTIES:
            weights = _solve(gram, cross, penalty * scale)
            error = float((_apply(features[check], weights) - targets[check]).square().mean())
            if best is None or error < best[0]:
                best = error, penalty, weights
        assert best is not None
        guess = _apply(_windows((view.smashed - shift) / spread, window), best[2])
        macs = float(features.shape[1] * best[2].numel())  # every window meets all weights once
        return Guess(
            _unblock(guess, block, view.image_shape), {"validation_mse": best[0], "penalty": best[1], "macs": macs}
        )


def _scales(smashed: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel ``[c, 1, 1]``: a loud or constant one must not drown the others."""
    wide = smashed.double()
    spread = wide.std(dim=(0, 2, 3))
    spread = spread.clamp(min=max(1e-12, 1e-6 * float(spread.max())))
    return wide.mean(dim=(0, 2, 3))[:, None, None], spread[:, None, None]


def _windows(smashed: Tensor, window: int) -> Tensor:
    """Smashed data ``[n, c, h, w]`` to ``[n, h·w, c·window² + 1]``, a constant last."""
    found = F.unfold(smashed, window, padding=window // 2).transpose(1, 2).double()
    return torch.cat([found, found.new_ones(*found.shape[:2], 1)], dim=2)


def _blocks(pixels: Tensor, block: int) -> Tensor:
    """Pixels ``[n, C, H, W]`` to ``[n, blocks, C·block²]``."""
    return F.unfold(pixels, block, stride=block).transpose(1, 2).double()


def _unblock(blocks: Tensor, block: int, shape: tuple[int, int, int]) -> Tensor:
    return F.fold(blocks.transpose(1, 2).float(), shape[1:], block, stride=block).clamp(0.0, 1.0)


def _normal(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return features.T @ features, features.T @ targets


def _solve(gram: Tensor, cross: Tensor, penalty: Tensor) -> Tensor:
    """The constant is not penalised."""
    ridge = penalty.expand(len(gram)).clone()
    ridge[-1] = 0.0
    solution: Tensor = torch.linalg.solve(gram + torch.diag(ridge), cross)
    return solution


def _apply(features: Tensor, weights: Tensor) -> Tensor:
    return features @ weights
