"""What to ask of a batch system for a planned run."""

from __future__ import annotations

import math

from mocosfl_mpi.plan.estimate import Plan
from mocosfl_mpi.slurm import Figure

MEMORY_MARGIN = 1.25
"""On the planned memory: plans were within 10 % of the peak (`benchmarks/plan.py`); a job over its limit is killed."""
TIME_MARGIN, STARTING = 1.5, 600.0
"""On the planned seconds, and seconds for the start: plans were up to a third off."""
LONGEST = 24 * 3600.0
"""Seconds of one allocation: a longer run continues in the next."""


def node_memory(plan: Plan, nodes: int) -> int:
    """Bytes on the fullest of ``nodes``, ranks dealt in equal parts and in order; shared pages once per node."""
    each = -(-plan.layout.ranks // nodes)
    starts = range(0, plan.layout.ranks, each)
    return max(
        sum(plan.resident[start : start + each]) - sum(part.shared for part in plan.parts[start + 1 : start + each])
        for start in starts
    )


def requests(plan: Plan, nodes: int) -> tuple[Figure, Figure]:
    """Memory of a node and time of an allocation, with where they come from."""
    memory, seconds = node_memory(plan, nodes), plan.seconds
    asked = math.ceil(MEMORY_MARGIN * memory / 2**30)
    limit = min(LONGEST, TIME_MARGIN * seconds + STARTING)
    return (
        Figure(f"{asked}G", f"plan: {memory / 2**30:.1f} GiB on the fullest node, and a quarter"),
        Figure(
            _clock(60 * math.ceil(limit / 60)),
            f"plan: {_clock(seconds)} for the run, half as much again and 10 minutes"
            + ("; it takes several allocations" if limit == LONGEST else ""),
        ),
    )


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
