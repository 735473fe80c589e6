"""What an attack is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from mocosfl_mpi.attacks.view import SEES, Role, Sight, View

Kind = Literal[
    "reconstruction", "linkage", "membership", "target_membership", "source_membership", "composition", "labels",
    "probing", "inversion", "property",
]  # fmt: skip


@dataclass(frozen=True)
class Effort:
    """How much an attack may spend: its own published settings times this, at least one step."""

    scale: float = 1.0

    def steps(self, published: int) -> int:
        """Optimisation steps (or epochs) of a published number."""
        return max(1, round(self.scale * published))


class NotApplicable(Exception):  # noqa: N818 - a result: nothing has gone wrong
    """An attack means nothing in this run, or its adversary is not given what it needs; the message says why.

    Raised where a scene is set. It is as good a result as a score, and must be reported as one.
    """


@dataclass(frozen=True, eq=False)
class Guess:
    """What an attack says. ``values``: pixels ``[n, C, H, W]``, or scores whose shape the scene asks for."""

    values: Tensor
    notes: dict[str, float]
    """Numbers of the attack's own: training error, feature error, what it chose."""


class Attack(Protocol):
    """One attack. It is given a view, and never the truth."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def kind(self) -> Kind:
        """What it learns."""

    @property
    def needs(self) -> frozenset[Sight]:
        """What its adversary must see."""

    @property
    def source(self) -> str:
        """The paper that it is from, or that it is our own."""

    def run(self, view: View, seed: int, effort: Effort) -> Guess:
        """Attack. All randomness comes from ``seed``."""


def adversaries(attack: Attack) -> list[Role]:
    """Who can mount an attack."""
    return [role for role, sees in SEES.items() if attack.needs <= sees]
