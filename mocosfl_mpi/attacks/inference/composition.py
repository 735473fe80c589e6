"""Class composition: what each row of a client looks like to a classifier, on the mean over its rows."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.attacks.attack import Effort, Guess, Kind
from mocosfl_mpi.attacks.view import Sight, View
from mocosfl_mpi.split.cut import Trunk

MOST_NUMBERS = 2048
"""Maps are averaged over windows until they have at most so many numbers."""
VIEWS = 4
"""Views of each of the adversary's images that the classifier is fitted on, with full effort."""
CHUNK = 250


class Rows:
    """Logistic regression on smashed data of the adversary's labelled images; a client is the mean of its rows."""

    name: ClassVar[str] = "composition"
    kind: ClassVar[Kind] = "composition"
    needs: ClassVar[frozenset[Sight]] = frozenset({"smashed", "weights"})
    source: ClassVar[str] = (
        "own; property inference from smashed data is in Pasquini, Ateniese, Bernaschi: Unleashing the tiger: "
        "inference attacks on split learning. CCS 2021"
    )

    def run(self, view: View, seed: int, effort: Effort) -> Guess:
        """Shares of classes ``[clients, classes]``."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        assert view.smashed is not None
        assert view.senders is not None
        assert view.augment is not None
        assert view.own_raw is not None
        assert view.own_labels is not None
        count = effort.steps(VIEWS)
        generator = torch.Generator().manual_seed(seed)
        views = view.augment(view.own_raw, count, seed).transpose(0, 1).flatten(0, 1)
        features = torch.cat([self._features(view, view.sent(part, generator)) for part in views.split(CHUNK)])
        labels = view.own_labels.repeat(count)
        judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
        judge.fit(features.numpy(), labels.numpy())
        asked = torch.cat([self._features(view, part) for part in view.smashed.split(CHUNK)])
        shares = torch.from_numpy(judge.predict_proba(asked.numpy())).double()
        sums = shares.new_zeros(int(view.senders.max()) + 1, shares.shape[1]).index_add(0, view.senders, shares)
        values = sums.new_zeros(len(sums), view.classes)  # of a class that the adversary has no image of: none
        values[:, torch.from_numpy(judge.classes_)] = sums / torch.bincount(view.senders)[:, None]
        return Guess(values, {"fit": float(judge.score(features.numpy(), labels.numpy()))})

    def _features(self, view: View, smashed: Tensor) -> Tensor:  # noqa: ARG002
        """Smashed data ``[n, c, h, w]`` to ``[n, f]``, averaged over windows."""
        channels, side = smashed.shape[1:3]
        while side > 1 and channels * side**2 > MOST_NUMBERS:
            side //= 2
        return F.adaptive_avg_pool2d(smashed.float(), side).flatten(1)


class RowsBehindTrunk(Rows):
    """The same, on what the main server's own layers make of the smashed data."""

    name: ClassVar[str] = "composition_features"
    needs: ClassVar[frozenset[Sight]] = frozenset({"smashed", "weights", "trunk"})

    def _features(self, view: View, smashed: Tensor) -> Tensor:
        """Pooled features ``[n, f]``."""
        assert isinstance(view.trunk, Trunk)
        with torch.no_grad():
            return view.trunk.features(smashed)
