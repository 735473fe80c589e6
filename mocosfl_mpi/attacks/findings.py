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
        """Whether anything was learnt: by some metric that tells, the mean over seeds is beyond the blind floor by more
        than their spread, and than an area's own standard error.

        An attack at the floor, or below it, is saturated: it tells only that this attack learns nothing here.
        """
        if self.reason:
            return "not mounted"
        return "above the floor" if any(map(self.beats_floor, self.told_by)) else "at the floor"

    @property
    def told_by(self) -> tuple[str, ...]:
        """The metrics that tell whether anything was learnt: noise in a picture hides from SSIM what MSE sees."""
        return (self.principal, "mse") if self.values("mse") else (self.principal,)

    def beats_floor(self, metric: str) -> bool:
        """Whether the mean over seeds is beyond the blind floor by more than the spread; True without a floor."""
        floor = self.blind(metric)
        if floor is None:
            return True
        error = self.mean("auc_error") if metric == "auc" and self.values("auc_error") else 0.0
        return METRICS[metric].more * (self.mean(metric) - floor) > max(self.spread(metric), error)

    @property
    def remark(self) -> str:
        """The standing in words, with what is to be known of it."""
        words = [{"at the floor": "at the floor: saturated"}.get(self.standing, self.standing)]
        floor = self.blind("mse")
        if (
            self.standing == "above the floor"
            and self.values("mse")
            and floor is not None
            and self.mean("mse") >= floor
        ):
            words.append("but its MSE is no better than the floor's")
        elif self.standing == "above the floor" and not self.beats_floor(self.principal):
            words.append(f"by its MSE, not its {METRICS[self.principal].title}")
        if len(self.outcomes) == 1 and not self.reason:
            words.append("one seed")
        return ", ".join(words)


def best_of(metric: str, values: Sequence[float]) -> float:
    """The score with which most was learnt."""
    return max(values) if METRICS[metric].more >= 0 else min(values)


def gather(outcomes: Iterable[Outcome]) -> list[Finding]:
    """Seeds together, in the order in which kinds, adversaries and attacks are known."""
    groups: dict[tuple[object, ...], list[Outcome]] = {}
    for one in outcomes:
        shared = (
            one.state,
            one.kind,
            one.adversary,
            one.attack,
            one.adaptive,
            one.trained,
            one.protocol,
            one.client,
            one.images,
            one.effort,
        )
        groups.setdefault(shared, []).append(one)
    kinds, roles = get_args(Kind), list(SEES)
    found = [Finding(tuple(sorted(group, key=lambda one: one.seed))) for group in groups.values()]

    def place(finding: Finding) -> tuple[object, ...]:
        one = finding.first
        return (
            kinds.index(one.kind),
            not one.trained,
            roles.index(cast(Role, one.adversary)),
            one.attack,
            one.adaptive,
        )

    return sorted(found, key=place)


def strongest(findings: Iterable[Finding], metric: str | None = None) -> Finding | None:
    """The one that learnt most of those that were mounted, by ``metric`` (None = that of their kind)."""
    mounted = [
        finding for finding in findings if not finding.reason and (metric or finding.principal) in finding.metrics
    ]
    if not mounted:
        return None
    return max(
        mounted, key=lambda found: METRICS[metric or found.principal].more * found.mean(metric or found.principal)
    )


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


def not_mounted(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """What could not be mounted, and why; attacks and adversaries with one reason together."""
    found: dict[str, dict[str, list[str]]] = {}
    for finding in findings:
        if finding.reason and finding.first.trained:
            found.setdefault(finding.reason, {}).setdefault(finding.first.attack, []).append(finding.first.adversary)
    return [
        ("; ".join(f"{attack} by {', '.join(dict.fromkeys(roles))}" for attack, roles in attacks.items()), reason)
        for reason, attacks in found.items()
    ]


def overview(outcomes: Sequence[Outcome]) -> list[Table | str]:
    """What came of all attacks, one table for each kind, for the terminal."""
    findings = gather(outcomes)
    mounted = [finding for finding in findings if not finding.reason]
    shown: list[Table | str] = []
    for kind in dict.fromkeys(finding.first.kind for finding in mounted):
        own = [finding for finding in mounted if finding.first.kind == kind]
        metrics = [name for name, metric in METRICS.items() if metric.more and metric.brief]
        metrics = [name for name in metrics if any(name in finding.metrics for finding in own)]
        table = Table(title=kind, title_justify="left")
        for title in ("attack", "adversary", "networks"):
            table.add_column(title)
        for name in metrics:
            table.add_column(METRICS[name].title, justify="right")
        table.add_column("floor", justify="right")
        table.add_column("finding")
        for finding in own:
            table.add_row(*_row(finding, metrics))
        shown.append(table)
    return [*shown, *(f"Cannot be mounted: {what}: {reason}" for what, reason in not_mounted(findings))]


def _row(finding: Finding, metrics: Sequence[str]) -> list[str]:
    one = finding.first
    knows = f", {KNOWS[one.adaptive]}" if one.adaptive in KNOWS else ""
    floor, digits = finding.blind(finding.principal), METRICS[finding.principal].digits
    below = "–" if floor is None else f"{METRICS[finding.principal].title} {floor:.{digits}f}"
    return [
        one.attack,
        one.adversary + knows,
        "trained" if one.trained else "untrained",
        *(told(finding.values(name), METRICS[name].digits) for name in metrics),
        below,
        finding.remark,
    ]
