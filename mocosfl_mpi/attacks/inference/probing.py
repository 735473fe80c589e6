"""Is an image in the feature memory? What a client's own rows come back with, if it plants that image."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mocosfl_mpi.attacks.attack import Effort, Guess, Kind
from mocosfl_mpi.attacks.view import Sight, View


class Returned:
    """The length of the returned gradient, mean over probes.

    A key of the same image in the memory is a negative that is as close as the positive: it takes up to half of the
    probability, and pulls the query the other way. Whether that makes gradients longer depends on how well the encoder
    aligns views. The adversary finds out by its own images, half of which it knows to be in the memory: where theirs
    come back shorter, the shorter ones score.
    """

    name: ClassVar[str] = "memory_probing"
    kind: ClassVar[Kind] = "probing"
    needs: ClassVar[frozenset[Sight]] = frozenset({"received"})
    source: ClassVar[str] = "own: planted near-duplicates"

    def run(self, view: View, seed: int, effort: Effort) -> Guess:  # noqa: ARG002
        """Scores ``[m]`` of the candidates."""
        assert view.received is not None
        assert view.rehearsed is not None
        assert view.rehearsal is not None
        asked, own = _lengths(view.received), _lengths(view.rehearsed)
        longer = float(own[view.rehearsal].mean() - own[~view.rehearsal].mean())
        way = 1.0 if longer >= 0.0 else -1.0
        return Guess(way * asked, {"mean_norm": float(asked.mean()), "longer": longer, "rehearsed": float(len(own))})


def _lengths(gradients: Tensor) -> Tensor:
    """Of each candidate's ``[m, k, c, h, w]``, mean over probes ``[m]``."""
    lengths: Tensor = gradients.flatten(2).norm(dim=2)
    return lengths.mean(dim=1)
