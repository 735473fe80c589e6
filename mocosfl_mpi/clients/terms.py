"""Terms at the cut: gradients that a client adds to the one that comes back from the server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from mocosfl_mpi.clients.block import Block


class CutTerm(ABC):
    """A term of a client's own objective that is a function of its images and smashed data: a defence, for example.

    It is computed on the client, in the steps in which a gradient arrives, before the client's SGD step. A client whose
    gradient was lost does nothing: what the term did to its states is undone. What a term keeps for each client are
    states of that client (``initial``), private and in ``block.state``, which the population parks, moves between
    ranks, hashes and saves as it does the client's velocity. A term itself must hold nothing that training changes.
    """

    @property
    def initial(self) -> Mapping[str, Tensor]:
        """What every client begins with ``[width]``, by state, in the type of the weights; names are the term's own."""
        return {}

    @property
    def recorded(self) -> tuple[str, ...]:
        """Series ``[epoch, member]`` of the record (``record.schema``) that ``readings`` fills."""
        return ()

    def begin_epoch(self, block: Block) -> None:
        """The clients of ``block`` enter an epoch's pool; their states may be changed in place."""
        del block

    @abstractmethod
    def gradient(self, block: Block, images: Tensor, smashed: Tensor) -> Tensor:
        """The gradient ``[lanes, rows, C, h, w]`` of the mean over each client's own rows, at its smashed data.

        ``images [lanes, rows, C, H, W]``: query views as the client has them, normalised; ``smashed``: what the
        client's online model made of them, detached. States of the block may be changed in place, lane by lane.
        """

    def readings(self, block: Block) -> dict[str, Tensor]:
        """At the end of an epoch: ``[lanes]`` for each name in ``recorded``."""
        del block
        return {}


def widths(terms: Sequence[CutTerm]) -> dict[str, int]:
    """Numbers in each state of a client that ``terms`` keep."""
    return {state: len(value) for term in terms for state, value in term.initial.items()}
