"""What a reader should know before quoting a number of a run, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mocosfl_mpi.methods import METHODS

COLLAPSED = 0.2
"""Below this feature standard deviation (1 = spread out) the features point almost in one direction."""


def cautions(summary: Mapping[str, Any]) -> list[str]:
    """Warnings derived from a summary: unfinished, collapsed, no better than an untrained network or pixels."""
    found = []
    if not summary["completed"]:
        found.append(
            f"The run has not reached its end ({summary['epochs']} of {summary['epochs_planned']} epochs are in the "
            f"file): it still goes on, failed or was stopped. Final results are missing."
        )
    evaluation = summary["last_evaluation"] or {}
    labels = (method := METHODS.get(summary["method"])) is not None and method.supervised
    std = evaluation.get("feature_std")
    std = summary["feature_std"] if std is None else std
    if std is not None and std < COLLAPSED and not labels:  # a classifier's logits may well point to a few classes
        found.append(
            f"The features have collapsed: their spread is {std:.2f} (1 = all directions, 0 = one). Accuracies say "
            f"little then; a lower learning rate or a longer feature memory may help."
        )
    for judge, name in (("kNN", "knn_top1"), ("linear probe", "linear_top1")):
        trained, untrained, pixels = (summary[name + suffix] for suffix in ("", "_untrained", "_pixels"))
        if trained is None:
            continue
        if untrained is not None and trained <= untrained:
            found.append(f"By the {judge}, training has not improved the encoder: {trained:.1f} % ≤ {untrained:.1f} %.")
        if pixels is not None and trained < pixels:
            found.append(
                f"By the {judge}, the trained encoder ({trained:.1f} %) is below raw pixels without any network "
                f"({pixels:.1f} %)."
            )
    return found
