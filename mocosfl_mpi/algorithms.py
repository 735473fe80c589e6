"""The published methods, one record each: the table of contents of the field.

A method is a row of small pieces; the training loop knows none of them by name.
"""

from __future__ import annotations

from dataclasses import dataclass

from mocosfl_mpi.server.alignments import ONLINE, ONLINE_AND_MOMENTUM, Alignment


@dataclass(frozen=True)
class Algorithm:
    """The pieces of one method, and the paper that defines it."""

    title: str
    paper: str
    alignment: Alignment


ALGORITHMS = {
    "mocosfl": Algorithm(
        "MocoSFL",
        "Li, Lyu, Iso, Chakrabarti, Spranger: MocoSFL: enabling cross-client collaborative self-supervised "
        "learning. ICLR 2023",
        ONLINE,
    ),
    "monacosfl": Algorithm(
        "MonAcoSFL",
        "Przewięźlikowski, Osial, Zieliński, Śmieja: A deep cut into split federated self-supervised learning. "
        "ECML PKDD 2024",
        ONLINE_AND_MOMENTUM,
    ),
}
