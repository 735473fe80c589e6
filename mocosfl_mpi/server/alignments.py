"""What the fed server makes equal across clients at a synchronisation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Alignment:
    """The states that are averaged over the pool and loaded into every client."""

    states: tuple[str, ...]


ONLINE = Alignment(("online",))
"""MocoSFL (Li et al., ICLR 2023): the online models; momentum models keep drifting apart."""

ONLINE_AND_MOMENTUM = Alignment(("online", "momentum"))
"""MonAcoSFL (Przewięźlikowski et al., ECML PKDD 2024): C ← mean C_i and C' ← mean C'_i."""
