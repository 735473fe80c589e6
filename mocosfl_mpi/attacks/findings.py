"""What came of attacks, seeds together: means and spreads beside the scores of guessers who see nothing."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from rich.table import Table

from mocosfl_mpi.attacks.attack import Kind
from mocosfl_mpi.attacks.jobs import ADAPTIVE, NAIVE
from mocosfl_mpi.attacks.view import SEES, Role
from mocosfl_mpi.record.attack_schema import FLOORS, METRICS, PRINCIPAL
from mocosfl_mpi.record.attacks import Outcome

Standing = Literal["not mounted", "at the floor", "above the floor"]
KNOWS = {ADAPTIVE: "adaptive", NAIVE: "naive"}
"""What the adversary knows of the defence, where there is one."""


@dataclass(frozen=True)
class Finding:
    """One attack by one adversary on one state of the networks, with several seeds."""

    outcomes: tuple[Outcome, ...]

    @property
    def first(self) -> Outcome:
        """What all of them have in common."""
        return self.outcomes[0]

    @property
    def reason(self) -> str:
        """Why it cannot be mounted; empty where any of the seeds could."""
        return "" if any(not outcome.reason for outcome in self.outcomes) else self.first.reason

    @property
    def metrics(self) -> list[str]:
        """The metrics that apply, in the order of the table."""
        return [name for name in METRICS if any(name in outcome.scores for outcome in self.outcomes)]

    def values(self, metric: str) -> list[float]:
        """One per seed."""
        return [outcome.scores[metric] for outcome in self.outcomes if metric in outcome.scores]

    def mean(self, metric: str) -> float:
        """Over seeds."""
        return statistics.fmean(self.values(metric))

    def spread(self, metric: str) -> float:
        """Standard deviation over seeds (n - 1); 0 for one."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else 0.0

    def floor(self, name: str, metric: str) -> float | None:
        """What a guesser who sees nothing scores, mean over seeds; None where there is no such guesser."""
        values = [outcome.floors[name][metric] for outcome in self.outcomes if metric in outcome.floors.get(name, {})]
        return statistics.fmean(values) if values else None

    def floors(self, metric: str) -> dict[str, float]:
        """All floors of a metric, by name."""
        found = {name: self.floor(name, metric) for name in FLOORS}
        return {name: value for name, value in found.items() if value is not None}

    def blind(self, metric: str) -> float | None:
        """The best score of those who see nothing and are told nothing."""
        values = [value for name, value in self.floors(metric).items() if FLOORS[name].blind]
        return best_of(metric, values) if values else None

    @property
    def principal(self) -> str:
        """The metric by which attacks of this kind are compared."""
        return PRINCIPAL[self.first.kind]

    @property
    def standing(self) -> Standing:
        """Whether anything was learnt: the mean over seeds is beyond the blind floor by more than the spread.

        An attack at the floor, or below it, is saturated: it tells only that this attack learns nothing here.
        """
        if self.reason:
            return "not mounted"
        floor = self.blind(self.principal)
        if floor is None:
            return "above the floor"
        gain = METRICS[self.principal].more * (self.mean(self.principal) - floor)
        return "above the floor" if gain > self.spread(self.principal) else "at the floor"


def best_of(metric: str, values: Sequence[float]) -> float:
    """The score with which most was learnt."""
    return max(values) if METRICS[metric].more >= 0 else min(values)


def gather(outcomes: Iterable[Outcome]) -> list[Finding]:
    """Seeds together, in the order in which kinds, adversaries and attacks are known."""
    groups: dict[tuple[object, ...], list[Outcome]] = {}
    for one in outcomes:
        shared = (one.kind, one.adversary, one.attack, one.adaptive, one.trained, one.protocol, one.client, one.images, one.effort)
        groups.setdefault(shared, []).append(one)
    kinds, roles = get_args(Kind), list(SEES)
    found = [Finding(tuple(sorted(group, key=lambda one: one.seed))) for group in groups.values()]

    def place(finding: Finding) -> tuple[object, ...]:
        one = finding.first
        return (kinds.index(one.kind), not one.trained, roles.index(cast(Role, one.adversary)), one.attack, one.adaptive)

    return sorted(found, key=place)


def strongest(findings: Iterable[Finding], metric: str | None = None) -> Finding | None:
    """The one that learnt most of those that were mounted, by ``metric`` (None = that of their kind)."""
    mounted = [finding for finding in findings if not finding.reason and (metric or finding.principal) in finding.metrics]
    if not mounted:
        return None
    return max(mounted, key=lambda found: METRICS[metric or found.principal].more * found.mean(metric or found.principal))


def clipped_at_floor(finding: Finding, metric: str) -> float:
    """The mean over seeds, but never worse than the blind floor: whoever attacks can say that instead."""
    floor = finding.blind(metric)
    return finding.mean(metric) if floor is None else best_of(metric, [finding.mean(metric), floor])


def told(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation over seeds."""
    if not values:
        return "–"
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def overview(outcomes: Sequence[Outcome]) -> list[Table]:
    """What came of all attacks, one table for each kind, for the terminal."""
    tables = []
    findings = gather(outcomes)
    for kind in dict.fromkeys(finding.first.kind for finding in findings):
        own = [finding for finding in findings if finding.first.kind == kind]
        metrics = [name for name in METRICS if METRICS[name].more and any(name in finding.metrics for finding in own)]
        table = Table(title=kind, title_justify="left")
        for title in ("attack", "adversary", "networks"):
            table.add_column(title)
        for name in metrics:
            table.add_column(METRICS[name].title, justify="right")
        table.add_column("floor", justify="right")
        table.add_column("finding")
        for finding in own:
            table.add_row(*_row(finding, metrics))
        tables.append(table)
    return tables


def _row(finding: Finding, metrics: Sequence[str]) -> list[str]:
    one = finding.first
    knows = f", {KNOWS[one.adaptive]}" if one.adaptive in KNOWS else ""
    head = [one.attack, one.adversary + knows, "trained" if one.trained else "untrained"]
    if finding.reason:
        return [*head, *("–" for _ in metrics), "–", f"cannot be mounted: {finding.reason}"]
    floor = finding.blind(finding.principal)
    digits = METRICS[finding.principal].digits
    below = "–" if floor is None else f"{METRICS[finding.principal].title} {floor:.{digits}f}"
    return [*head, *(told(finding.values(name), METRICS[name].digits) for name in metrics), below, finding.standing]
