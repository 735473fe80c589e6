"""What an adversary learns, in one plain sentence."""

from __future__ import annotations

from collections.abc import Sequence

from mocosfl_mpi.attacks.findings import Finding, strongest
from mocosfl_mpi.attacks.view import TITLES, Role
from mocosfl_mpi.record.attack_schema import METRICS

QUESTIONS: dict[str, tuple[str, str]] = {
    "reconstruction": ("rebuild a client's images", "what a client's images look like"),
    "inversion": ("rebuild a client's images from the change of its weights", "images from the change of weights"),
    "linkage": ("tell which of its candidate images a client has sent", "which candidate image was sent"),
    "membership": ("tell whether an image was trained on", "whether an image was trained on"),
    "target_membership": (
        "tell whether an image was among the expert's few target images",
        "whether an image was among the expert's target images",
    ),
    "source_membership": (
        "tell whether an image was among the expert's auxiliary ones",
        "whether an image was among the expert's auxiliary ones",
    ),
    "composition": ("tell which classes a client has", "which classes a client has"),
    "labels": ("tell the labels of a client's images", "the labels of a client's images"),
    "probing": ("tell whether others have images like its own", "whether others have images like its own"),
    "property": ("tell a property of a client's images", "a property of a client's images"),
}
"""By kind of attack: what an adversary can do, and what it is about."""
_GRADES = ((0.65, "nearly as they are"), (0.35, "well enough to be recognised"), (0.10, "roughly"), (0.0, "barely"))
"""Of reconstructions, by the share of the way from the floor's SSIM to 1: words of our own."""


def sentence(role: Role, findings: Sequence[Finding]) -> str:
    """What ``role`` can and cannot do with the attacks that were tried; ``findings`` are those it can mount."""
    can, not_learnt = [], []
    for kind in dict.fromkeys(finding.first.kind for finding in findings):
        best = strongest(finding for finding in findings if finding.first.kind == kind)
        if best is None:
            continue
        if best.standing == "above the floor":
            can.append(f"can {QUESTIONS[kind][0]} {_how_well(best)}")
        else:
            not_learnt.append(QUESTIONS[kind][1])
    subject = TITLES[role][0].upper() + TITLES[role][1:]
    if not can and not not_learnt:
        return f"{subject} sees nothing that any of the attacks tried could use."
    said = "; ".join(can) if can else "learnt nothing beyond a guess with these attacks"
    if can and not_learnt:
        said += f"; it learnt nothing beyond a guess about {_listed(not_learnt)}"
    return f"{subject} {said}."


def _how_well(finding: Finding) -> str:
    metric = finding.principal
    value, floor, shown = finding.mean(metric), finding.blind(metric), METRICS[metric]
    against = f"{shown.title} {value:.{shown.digits}f}" + (
        "" if floor is None else f", where one who sees nothing has {floor:.{shown.digits}f}"
    )
    if metric == "ssim" and not finding.beats_floor(metric):
        error, guess, shown = finding.mean("mse"), finding.blind("mse"), METRICS["mse"]
        return f"behind noise (MSE {error:.{shown.digits}f}, where one who sees nothing has {guess:.{shown.digits}f})"
    if metric == "ssim":
        gained = (value - (floor or 0.0)) / (1.0 - (floor or 0.0))
        return f"{next(words for least, words in _GRADES if gained >= least)} ({against})"
    return f"({against})"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
