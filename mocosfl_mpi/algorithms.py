"""The published methods, one record each: the table of contents of the field.

A method is a row of small pieces; the training loop knows none of them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mocosfl_mpi.config import Config, Federation
from mocosfl_mpi.server.alignments import (
    MOMENTUM,
    ONLINE,
    ONLINE_AND_MOMENTUM,
    STRATEGIES,
    Alignment,
    Averaged,
    Cleared,
    Compressed,
    Part,
    scope,
)
from mocosfl_mpi.server.compression import Int8, TopK


@dataclass(frozen=True)
class Algorithm:
    """The pieces of one method, and the paper that defines it."""

    title: str
    paper: str
    alignment: tuple[Part, ...]


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

VELOCITIES: dict[str, tuple[Part, ...]] = {
    "kept": (),
    "reset": (Cleared("velocity"),),
    "averaged": (Averaged("velocity"),),
}
"""What `client.velocity_at_sync` adds to an alignment."""

MOMENTA: dict[str, Callable[[Federation], Part]] = {
    "none": lambda f: Averaged("momentum", f.momentum_every),
    "int8": lambda f: Compressed("momentum", Int8(), f.momentum_every),
    "topk": lambda f: Compressed("momentum", TopK(f.momentum_topk), f.momentum_every),
}
"""How momentum models are aligned where they are, by `federation.momentum_compression`."""


def alignment(config: Config, names: Sequence[str], spans: Sequence[tuple[int, int]]) -> Alignment:
    """What is aligned: the method's row or what replaces it, on a client with parameter tensors of these spans.

    Raises
    ------
    BadInput
        `federation.aligned_layers` names a layer that clients do not have.
    """
    federation = config.federation
    row = ALGORITHMS[config.method].alignment if federation.alignment == "method" else STRATEGIES[federation.alignment]
    momentum = MOMENTA[federation.momentum_compression](federation)
    parts = (*(momentum if part == MOMENTUM else part for part in row), *VELOCITIES[config.client.velocity_at_sync])
    return Alignment(parts, scope(federation.aligned_layers, names, spans), config.client.frozen)
