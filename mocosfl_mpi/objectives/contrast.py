"""InfoNCE with a momentum encoder and a feature memory, in the three published forms of symmetry."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.config import Config


def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> tuple[Tensor, int]:
    """Sum over rows of InfoNCE (MocoSFL eq. 1), and how many rows rank their positive first.

    ``queries``, ``keys``: unit vectors ``[n, d]``; ``negatives``: cosines ``[n, K]`` with the feature memory.
    -log( exp(q·k/T) / (exp(q·k/T) + Σ_m exp(q·m/T)) ), the positive at index 0 of K+1 logits.
    """
    positive = (queries * keys).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, negatives], dim=1) / temperature
    target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    loss = F.cross_entropy(logits, target, reduction="sum")
    return loss, int((logits.detach().argmax(dim=1) == 0).sum())


@dataclass(frozen=True)
class Symmetry:
    """Who plays query and key.

    both_roles : each client feeds both views to both of its encoders (MonAcoSFL's fixed symmetric loss): 2B rows,
        one mean, gradients for both views, all keys from momentum encoders.
    server_swap : the server adds the loss with smashed query and key data exchanged (MocoSFL as published): a sum,
        the server alone learns from the second term, and half of the keys come from online client encoders.
    terms : losses that are added up; the mean over ``both_roles`` rows times 2 is the sum of the two directions.
    """

    both_roles: bool = False
    server_swap: bool = False
    terms: int = 1

    def assign(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Views ``[n, B, …]`` to ``(query, key)`` images, ``[n, B, …]`` or ``[n, 2B, …]``."""
        if not self.both_roles:
            return first, second
        return torch.cat([first, second], dim=1), torch.cat([second, first], dim=1)


SYMMETRIES = {
    "off": Symmetry(),
    "published": Symmetry(server_swap=True, terms=2),
    "both_views": Symmetry(both_roles=True),
}


def symmetry(config: Config) -> Symmetry:
    """Who plays what in this experiment. Clients with the whole network can play both roles as published: l12 + l21.

    With labels there is one view, and nothing to be swapped.
    """
    if config.supervised:
        return SYMMETRIES["off"]
    if config.whole_network and config.contrast.symmetric == "published":
        return Symmetry(both_roles=True, terms=2)
    return SYMMETRIES[config.contrast.symmetric]
