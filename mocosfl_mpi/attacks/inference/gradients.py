"""Labels from the gradients of rows: how long they are, and where they point."""

from __future__ import annotations

from typing import ClassVar

from torch.nn import functional as F

from mocosfl_mpi.attacks.attack import Effort, Guess, Kind
from mocosfl_mpi.attacks.view import Sight, View

SOURCE = (
    "Li, Sun, Yang, Gao, Zhang, Smith, Wang: Label leakage and protection in two-party split learning. ICLR 2022 "
    "(arXiv 2102.08504)"
)


class Norm:
    """Rows of a rare class are classified worse, and so have longer gradients."""

    name: ClassVar[str] = "gradient_norm"
    kind: ClassVar[Kind] = "labels"
    needs: ClassVar[frozenset[Sight]] = frozenset({"answers"})
    source: ClassVar[str] = f"{SOURCE}, section 3.2, norm attack"

    def run(self, view: View, seed: int, effort: Effort) -> Guess:  # noqa: ARG002
        """Scores ``[n]`` of the rows."""
        assert view.answers is not None
        norms = view.answers.flatten(1).norm(dim=1)
        return Guess(norms, {"mean_norm": float(norms.mean()), "spread": float(norms.std())})


class Direction:
    """Rows of one class have gradients that point alike: the mean cosine with a few that are known."""

    name: ClassVar[str] = "gradient_direction"
    kind: ClassVar[Kind] = "labels"
    needs: ClassVar[frozenset[Sight]] = frozenset({"answers"})
    source: ClassVar[str] = f"{SOURCE}, section 3.2, direction attack, with known rows of the class as the hint"

    def run(self, view: View, seed: int, effort: Effort) -> Guess:  # noqa: ARG002
        """Scores ``[n]`` of the rows."""
        assert view.answers is not None
        assert view.hints is not None
        unit = F.normalize(view.answers.flatten(1), dim=1)
        cosines = unit @ unit[view.hints].T
        return Guess(cosines.mean(dim=1), {"hints": float(len(view.hints))})
