"""What clients of a run under attack do to smashed data before they leave: its defences, then its compression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mocosfl_mpi.attacks.victim import Victim
from mocosfl_mpi.attacks.view import Guard
from mocosfl_mpi.clients.block import Block
from mocosfl_mpi.codecs import Full, codec, of_samples
from mocosfl_mpi.privacy import resistance
from mocosfl_mpi.privacy.transforms import guard

Slope = Callable[[Tensor, Tensor], Tensor]
"""(smashed data, normalised images) to the derivative of how well the client's own decoder draws these."""


def guard_of(victim: Victim, client: int) -> Guard | None:
    """The guard of ``client``; None where nothing is done.

    Adversarial noise goes against the client's own decoder, and an adversary that knows the defence is given that
    decoder too: the strongest that there can be. Gradients pass straight through, as though nothing had been changed.
    """
    config = victim.config
    pieces, coding = guard(config), codec(config.communication.smashed, config.communication.topk)
    if not pieces and isinstance(coding, Full):
        return None
    slope = _slope(victim, client) if config.defence.adversarial else None

    @torch.no_grad()
    def sent(smashed: Tensor, generator: torch.Generator, images: Tensor) -> Tensor:
        draw = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        found = pieces.apply(smashed, draw, slope(smashed, images) if slope else None)
        return of_samples(coding, found)

    def straight_through(smashed: Tensor, generator: torch.Generator, images: Tensor) -> Tensor:
        return smashed + (sent(smashed.detach(), generator, images.detach()) - smashed).detach()

    return straight_through


def _slope(victim: Victim, client: int) -> Slope:
    """That of the decoder that ``client`` had in the end; of a fresh one in the untrained control."""
    config, data = victim.config, victim.source.data
    opponent = resistance.attacker(config, victim.network, victim.streams, torch.float32)
    scale = resistance.Images(torch.tensor(data.mean), torch.tensor(data.std))
    term = resistance.Resistance(config.defence, opponent, scale)
    state = victim.opponent(client)
    kept = {resistance.STATE: (term.initial[resistance.STATE] if state is None else state)[None]}
    block = Block(np.array([client]), kept, victim.model, config.client)

    def found(smashed: Tensor, images: Tensor) -> Tensor:
        return term.slope(block, images[None], smashed[None])[0]

    # The slope is an autograd derivative, and its caller may be without gradients.
    return torch.enable_grad()(found)
