"""Gradient inversion: views whose gradient is the one that was seen."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.attacks.attack import Effort, Guess, Kind
from mocosfl_mpi.attacks.view import Gradients, Sight, View


class DLG:
    """Deep leakage from gradients: L-BFGS on the squared distance of gradients.

    Made for networks that can be differentiated twice; behind ReLUs it seldom gets far. It begins afresh where it
    diverges.
    """

    name: ClassVar[str] = "dlg"
    kind: ClassVar[Kind] = "inversion"
    needs: ClassVar[frozenset[Sight]] = frozenset({"update"})
    source: ClassVar[str] = "Zhu, Liu, Han: Deep leakage from gradients. NeurIPS 2019"
    iterations: ClassVar[int] = 300
    """As published; each of at most 20 evaluations."""
    restarts: ClassVar[int] = 3

    def run(self, view: View, seed: int, effort: Effort) -> Guess:
        """Pixels of the views ``[u, C, H, W]``."""
        assert view.simulate is not None
        assert view.update is not None
        simulate, update = view.simulate, view.update
        best, left = float("inf"), torch.empty(0)
        for restart in range(self.restarts):
            free = _noise(view, seed + restart)
            optimiser = torch.optim.LBFGS([free])

            def closure(free: Tensor = free, optimiser: torch.optim.LBFGS = optimiser) -> Tensor:
                optimiser.zero_grad()
                distance = _distance(simulate(_pixels(view, free)), update)
                (free.grad,) = torch.autograd.grad(distance, free)
                return distance.detach()

            reached = float("inf")
            for _ in range(effort.steps(self.iterations)):
                reached = float(optimiser.step(closure))
                if not reached < float("inf"):
                    break
                if reached < best:
                    best, left = reached, free.detach().clone()
            if best < 1e-6 * _size(update):
                break
        if not len(left):
            left = _noise(view, seed).detach()
        return Guess(_pixels(view, left).clamp(0.0, 1.0), {"gradient_error": best / _size(update)})


class InvertingGradients:
    """Signed Adam on one minus the cosine of gradients, with total variation; pixels stay in their box."""

    name: ClassVar[str] = "inverting_gradients"
    kind: ClassVar[Kind] = "inversion"
    needs: ClassVar[frozenset[Sight]] = frozenset({"update"})
    source: ClassVar[str] = (
        "Geiping, Bauermeister, Dröge, Moeller: Inverting gradients - how easy is it to break privacy in federated "
        "learning? NeurIPS 2020"
    )
    iterations: ClassVar[int] = 4800
    """As published for CIFAR-10."""
    rate: ClassVar[float] = 0.1
    variation: ClassVar[float] = 1e-2
    """Weight of the total variation, of those published (1e-4 to 1e-1) one in the middle."""

    def run(self, view: View, seed: int, effort: Effort) -> Guess:
        """Pixels of the views ``[u, C, H, W]``."""
        assert view.simulate is not None
        assert view.update is not None
        free = _noise(view, seed)
        lower, upper = view.normalise(torch.zeros_like(free)), view.normalise(torch.ones_like(free))
        steps = effort.steps(self.iterations)
        optimiser = torch.optim.Adam([free], lr=self.rate)
        milestones = sorted({max(1, round(steps * share)) for share in (3 / 8, 5 / 8, 7 / 8)})
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=0.1)
        best, left = float("inf"), free.detach().clone()
        for _ in range(steps):
            matched = 1.0 - _cosine(view.simulate(_pixels(view, free)), view.update)
            aim = matched + self.variation * _variation(free)
            (slope,) = torch.autograd.grad(aim, free)
            if float(aim.detach()) < best:
                best, left = float(aim.detach()), free.detach().clone()
            free.grad = slope.sign()
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                free.clamp_(lower, upper)
        reached = float(_cosine(view.simulate(_pixels(view, left)), view.update).detach())
        return Guess(_pixels(view, left), {"gradient_error": 1.0 - reached})


def _noise(view: View, seed: int) -> Tensor:
    """Normal noise in place of the normalised views."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(view.unknowns, *view.image_shape, generator=generator).requires_grad_()


def _pixels(view: View, normalised: Tensor) -> Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (view.mean, view.std))
    return normalised * std + mean


def _size(gradients: Gradients) -> float:
    return float(sum(part.square().sum() for part in gradients))


def _distance(found: Gradients, seen: Gradients) -> Tensor:
    return torch.stack([(a - b).square().sum() for a, b in zip(found, seen, strict=True)]).sum()


def _cosine(found: Gradients, seen: Gradients) -> Tensor:
    flat, true = (torch.cat([part.flatten() for part in parts]) for parts in (found, seen))
    return F.cosine_similarity(flat, true, dim=0)


def _variation(images: Tensor) -> Tensor:
    """Anisotropic total variation, mean over pixels."""
    tall, wide = images.diff(dim=-2).abs().mean(), images.diff(dim=-1).abs().mean()
    return tall + wide
