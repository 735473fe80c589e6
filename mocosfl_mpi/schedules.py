"""Learning-rate schedules as functions of the step count: no state to save, none to restore."""

from __future__ import annotations

import math

MILESTONES = (6, 8)  # tenths of the total


def learning_rate(schedule: str, initial: float, step: int, total: int, decay: float) -> float:
    """Learning rate after ``step`` of ``total`` schedule steps.

    ``cosine``: initial·(1+cos(π·step/total))/2; beyond ``total`` it rises again, which is how the published
    client schedule, stepped per batch with T_max in epochs, comes to oscillate. ``multi_step``: times ``decay``
    at 60 % and at 80 %. ``constant``: ``initial``.
    """
    if schedule == "cosine":
        return initial * (1.0 + math.cos(math.pi * step / total)) / 2.0
    if schedule == "multi_step":
        return initial * decay ** sum(10 * step >= tenths * total for tenths in MILESTONES)
    return initial
