"""Membership by consistency: an encoder gives views of an image that it has seen more similar features."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.attacks.attack import Effort, Guess, Kind, NotApplicable
from mocosfl_mpi.attacks.inference.shadow import train
from mocosfl_mpi.attacks.view import Sight, View

VIEWS = 10
"""Views of each image, as published."""
AT_ONCE = 50
SHADOW_STEPS = 2000
SOURCE = "Liu, Jia, Qu, Gong: EncoderMI: membership inference against pre-trained encoders. CCS 2021"


def similarities(
    encoder: Callable[[Tensor], Tensor], augment: Callable[[Tensor, int, int], Tensor], raw: Tensor, seed: int
) -> Tensor:
    """Cosines of all pairs of ``VIEWS`` views' features, largest first ``[n, pairs]``; raw uint8 ``[n, C, H, W]``."""
    rows, columns = torch.triu_indices(VIEWS, VIEWS, offset=1)
    found = []
    for number, part in enumerate(raw.split(AT_ONCE)):
        views = augment(part, VIEWS, seed + number)
        unit = F.normalize(encoder(views.flatten(0, 1)), dim=1).unflatten(0, (len(part), VIEWS))
        found.append((unit @ unit.transpose(1, 2))[:, rows, columns])
    return torch.cat(found).sort(dim=1, descending=True).values


class Threshold:
    """EncoderMI-T: the mean similarity. It needs no shadow where all that is asked for is an order."""

    needs: ClassVar[frozenset[Sight]] = frozenset({"encoder"})
    source: ClassVar[str] = f"{SOURCE}, threshold-based"

    def __init__(self, kind: Kind = "membership", name: str = "encodermi_t") -> None:
        self.kind = kind
        self.name = name

    def run(self, view: View, seed: int, effort: Effort) -> Guess:  # noqa: ARG002
        """Scores ``[m]`` of the candidates."""
        assert view.encoder is not None
        assert view.augment is not None
        assert view.candidates is not None
        values = similarities(view.encoder, view.augment, view.candidates, seed).mean(dim=1)
        return Guess(values, {"mean_similarity": float(values.mean())})


class Vector:
    """EncoderMI-V: a classifier of the ranked similarities, fitted on an encoder that the adversary trained itself.

    The shadow has the victim's architecture and fresh weights, and learns (SimCLR) from one half of the adversary's own
    images; the other half are its non-members.
    """

    name: ClassVar[str] = "encodermi_v"
    kind: ClassVar[Kind] = "membership"
    needs: ClassVar[frozenset[Sight]] = frozenset({"encoder"})
    source: ClassVar[str] = f"{SOURCE}, vector-based"

    def run(self, view: View, seed: int, effort: Effort) -> Guess:
        """Scores ``[m]`` of the candidates."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        assert view.encoder is not None
        assert view.augment is not None
        assert view.candidates is not None
        assert view.own_raw is not None
        if view.network is None:
            raise NotApplicable("its shadow encoder learns without labels, and this one learnt from them")
        order = torch.randperm(len(view.own_raw), generator=torch.Generator().manual_seed(seed))
        inside, outside = (view.own_raw[half] for half in order.chunk(2))
        shadow = train(view.network(seed), view, inside, seed, effort.steps(SHADOW_STEPS))
        known = [similarities(shadow, view.augment, half, seed + 1) for half in (inside, outside)]
        truth = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))])
        judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        judge.fit(torch.cat(known).numpy(), truth.numpy())
        asked = similarities(view.encoder, view.augment, view.candidates, seed)
        fitted = float(judge.score(torch.cat(known).numpy(), truth.numpy()))
        return Guess(torch.from_numpy(judge.decision_function(asked.numpy())), {"shadow_accuracy": fitted})
