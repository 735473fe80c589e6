"""The figures of a glance in words, the same on a terminal, in lines and on a page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mocosfl_mpi.methods import METHODS
from mocosfl_mpi.record.figures import number
from mocosfl_mpi.speaker import clock
from mocosfl_mpi.watch.glance import COMPLETE, STATES, Content, Glance, Series


@dataclass(frozen=True)
class Fact:
    """One figure of a run."""

    name: str
    curve: Series
    value: str
    meaning: str


_NONE = np.empty(0)
_NUMBER = re.compile(r"\d+(\.\d+)?")
_NAMED = 3
"""So many runs are named one by one."""


def facts(content: Content) -> list[Fact]:
    """What a person wants to see of one run, in order."""
    summary = content.summary
    method = METHODS.get(summary["method"])
    labels = method is not None and method.supervised
    loss = "cross-entropy" if labels else "contrastive"
    loss += f", mean of the last epoch; of the first {number(summary['loss_first_epoch'], 3)}"
    found = [
        Fact("loss", content.loss, number(latest(content.loss, summary["loss"]), 3), loss),
        Fact("kNN", content.knn, f"{number(knn(content), 1)} %", _reference(summary)),
        Fact(
            "client divergence", content.divergence, number(summary["divergence_online_mean"], 3),
            "online models from their mean before the last averaging (L2, summed over layers)",
        ),
    ]  # fmt: skip
    if method is None or method.momentum:
        distance = number(summary["online_momentum_distance"], 4)
        meaning = "client's two models, relative, after the last averaging; small is good"
        found.append(Fact("online–momentum distance", content.distance, distance, meaning))
    found += [
        Fact("feature spread", _NONE, number(summary["feature_std"], 2), "1 = all directions, near 0 = collapsed"),
        Fact("idle share", _NONE, idle(content), f"of the last epoch in which ranks waited, mean{_worst(content)}"),
    ]
    return found


def latest(curve: Series, value: float | None) -> float | None:
    """The value, or before it is known the curve's last."""
    known = curve[np.isfinite(curve)]
    return value if value is not None or not len(known) else float(known[-1])


def knn(content: Content) -> float | None:
    """The final kNN accuracy in %, or the newest during the run."""
    final, newest = content.summary["knn_top1"], content.summary["last_evaluation"] or {}
    return newest.get("knn_top1") if final is None else final


def _reference(summary: dict[str, Any]) -> str:
    newest = summary["last_evaluation"] or {}
    when = "at the end" if summary["knn_top1"] is not None else f"after {newest.get('epoch', 0)} epochs"
    beside = [
        f"{name} {number(summary[key], 1)}"
        for name, key in (("untrained", "knn_top1_untrained"), ("raw pixels", "knn_top1_pixels"))
        if summary[key] is not None
    ]
    return f"test accuracy {when}{'; ' if beside else ''}{', '.join(beside)}"


def idle(content: Content) -> str:
    """Mean over the ranks."""
    return f"{100 * float(np.mean(content.idle)):.0f} %" if content.idle else "–"


def _worst(content: Content) -> str:
    if len(content.idle) < 2:
        return ""
    worst = int(np.argmax(content.idle))
    return f"; rank {worst}: {100 * content.idle[worst]:.0f} %"


def times(glance: Glance) -> str:
    """What has passed and what is left."""
    if glance.content is None:
        return ""
    words = [f"{clock(glance.content.seconds)} computed"] if glance.content.seconds else []
    words += [f"about {clock(glance.left)} left"] if glance.left is not None else []
    return ", ".join(words)


def counts(glances: Sequence[Glance]) -> str:
    """How many runs there are in each state."""
    found = Counter(glance.state for glance in glances)
    return ", ".join(f"{found[state]} {state}" for state in STATES if found[state])


def remarks(glances: Sequence[Glance]) -> list[tuple[str, str, str]]:
    """Kind, text and, where there are several runs, of which; what differs in numbers only is said once, of the first.

    Kinds are `Unreadable`, `Warning` and `Note`.
    """
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for glance in glances:
        notes = glance.content.notes if glance.content else []
        unread = [glance.message] if glance.message else []
        for kind, texts in (("Unreadable", unread), ("Warning", glance.warnings), ("Note", notes)):
            for text in texts:
                alike = text if kind == "Unreadable" else _NUMBER.sub("#", text)
                found.setdefault((kind, alike), []).append((glance.label, text))
    return [
        (kind, of[0][1], _of([label for label, _ in of], len(glances), same=len({text for _, text in of}) == 1))
        for (kind, _), of in found.items()
    ]


def _of(labels: Sequence[str], runs: int, *, same: bool) -> str:
    if runs == 1:
        return ""
    if same and len(labels) == runs:
        return f"all {runs} runs"
    if same and len(labels) <= _NAMED:
        return ", ".join(labels)
    rest = len(labels) - 1
    return f"{labels[0]}, and {'the same' if same else 'alike'} of {rest} more" if rest else labels[0]


def over(glances: Sequence[Glance]) -> bool:
    """Whether every run is complete."""
    return bool(glances) and all(glance.state == COMPLETE for glance in glances)


def line(glance: Glance) -> str:
    """All of a run in one line of text."""
    content = glance.content
    if content is None:
        return f"{glance.label}: {glance.state}, {STATES[glance.state]}"
    summary = content.summary
    words = [
        glance.state,
        glance.progress,
        f"loss {number(latest(content.loss, summary['loss']), 3)}",
        f"kNN {number(knn(content), 1)} %",
        f"divergence {number(summary['divergence_online_mean'], 3)}",
        f"distance {number(summary['online_momentum_distance'], 4)}",
        f"idle {idle(content)}",
        *([text] if (text := times(glance)) else []),
    ]
    return f"{glance.label}: {'  '.join(words)}"
