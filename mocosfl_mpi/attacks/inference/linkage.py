"""Candidate confirmation: the image whose random views come closest to what a client sent."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.attacks.attack import Effort, Guess, Kind
from mocosfl_mpi.attacks.view import Sight, View

VIEWS = 40
"""Random views that the adversary makes of each candidate."""
AT_ONCE = 8
"""Candidates whose views are in memory together."""


class Closest:
    """Cosine of smashed data with that of the adversary's own random views of each candidate, the best of them."""

    name: ClassVar[str] = "linkage"
    kind: ClassVar[Kind] = "linkage"
    needs: ClassVar[frozenset[Sight]] = frozenset({"smashed", "weights"})
    source: ClassVar[str] = "own: nearest random view among candidates"

    def run(self, view: View, seed: int, effort: Effort) -> Guess:
        """Scores ``[n, m]`` of each row that was sent with each candidate."""
        assert view.smashed is not None
        assert view.candidates is not None
        assert view.augment is not None
        generator = torch.Generator().manual_seed(seed)
        sent = _unit(view.smashed)
        count = effort.steps(VIEWS)
        scores = []
        for number, part in enumerate(view.candidates.split(AT_ONCE)):
            views = view.augment(part, count, seed + number)
            made = _unit(view.sent(views.flatten(0, 1), generator))
            scores.append((sent @ made.T).unflatten(1, (len(part), count)).amax(dim=2))
        values = torch.cat(scores, dim=1)
        best = values.topk(min(2, values.shape[1]), dim=1).values
        return Guess(values, {"cosine": float(best[:, 0].mean()), "margin": float((best[:, 0] - best[:, -1]).mean())})


def _unit(smashed: Tensor) -> Tensor:
    return F.normalize(smashed.flatten(1).float(), dim=1)
