"""One judgement from those of several models: the mean of every figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mocosfl_mpi.evaluation.judge import Monitor, Verdict


def mean_monitor(looks: Sequence[Monitor]) -> Monitor:
    """The mean of each figure; of a single one its own."""
    return Monitor(**_means([vars(look) for look in looks]))


def mean_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    """The mean of each figure, further ones included; of a single one its own."""
    return Verdict(
        **_means([{name: value for name, value in vars(verdict).items() if name != "further"} for verdict in verdicts]),
        further=_means([verdict.further for verdict in verdicts]),
    )


def _means(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By name; figures may be numbers or lists of numbers, or None where the method has no such figure."""
    series = {name: [figures[name] for figures in found] for name in found[0]}
    return {name: None if values[0] is None else np.mean(values, axis=0) for name, values in series.items()}
