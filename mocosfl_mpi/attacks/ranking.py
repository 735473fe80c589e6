"""How well scores tell those who are in from those who are not, with what so few of them can show."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

FALSE_POSITIVES = {"tpr_at_1e-2": 1e-2, "tpr_at_1e-3": 1e-3}


def separation(scores: Tensor, inside: Tensor) -> dict[str, float]:
    """Area under the ROC curve with its standard error, and true positives at small shares of false ones.

    ``scores`` ``[n]``, larger = rather inside; ``inside`` ``[n]`` bool. ``smallest_fpr``: one false positive among
    those outside; what is said of smaller shares is said of no false positive at all. Standard error: Hanley and
    McNeil, Radiology 1982.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    truth, values = inside.numpy(), scores.double().numpy()
    area = float(roc_auc_score(truth, values))
    wrong, right, _ = roc_curve(truth, values, drop_intermediate=False)
    found = {name: float(right[wrong <= share].max()) for name, share in FALSE_POSITIVES.items()}
    positives, negatives = int(truth.sum()), int((~truth).sum())
    return {
        "auc": area,
        "auc_error": _error(area, positives, negatives),
        **found,
        "smallest_fpr": 1.0 / negatives,
        "positives": float(positives),
        "negatives": float(negatives),
    }


def chance() -> dict[str, float]:
    """What a guesser who sees nothing has."""
    return {"auc": 0.5, **FALSE_POSITIVES}


def _error(area: float, positives: int, negatives: int) -> float:
    first, second = area / (2.0 - area), 2.0 * area**2 / (1.0 + area)
    spread = area * (1.0 - area) + (positives - 1) * (first - area**2) + (negatives - 1) * (second - area**2)
    return math.sqrt(max(spread, 0.0) / (positives * negatives))


def ranks(scores: Tensor, truth: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Place of the true candidate of each row ``[n]``, 1 = first; scores ``[n, m]``. Who is level shares the places.

    No number is no hint: it ranks last.
    """
    scores = scores.nan_to_num(nan=-math.inf)
    own = scores.gather(1, truth[:, None])
    level = (scores == own).sum(dim=1) - 1
    places: np.ndarray[tuple[int], np.dtype[np.float64]] = (
        1.0 + (scores > own).sum(dim=1).double() + level / 2.0
    ).numpy()
    return places
