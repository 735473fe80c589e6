"""Is an image in the feature memory? What a client's own rows come back with, if it plants that image."""

from __future__ import annotations

from typing import ClassVar

from mocosfl_mpi.attacks.attack import Effort, Guess, Kind
from mocosfl_mpi.attacks.view import Sight, View


class Returned:
    """The length of the returned gradient, mean over probes.

    A key of the same image in the memory is a negative that is as close as the positive: it takes up to half of the
    probability, and pulls the query the other way. Whether that makes gradients longer depends on how well the encoder
    aligns views, so a score far below 0.5 tells as much as one far above; nothing here chooses between them.
    """

    name: ClassVar[str] = "memory_probing"
    kind: ClassVar[Kind] = "probing"
    needs: ClassVar[frozenset[Sight]] = frozenset({"received"})
    source: ClassVar[str] = "own: planted near-duplicates"

    def run(self, view: View, seed: int, effort: Effort) -> Guess:  # noqa: ARG002
        """Scores ``[m]`` of the candidates."""
        assert view.received is not None
        norms = view.received.flatten(2).norm(dim=2)
        return Guess(norms.mean(dim=1), {"mean_norm": float(norms.mean())})
