"""What clients of a run under attack do to smashed data before they leave: its defences, then its compression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mocosfl_mpi.attacks.victim import Victim
from mocosfl_mpi.attacks.view import Guard
from mocosfl_mpi.clients.block import Block
from mocosfl_mpi.clients.shield import Pull
from mocosfl_mpi.codecs import Full, codec, of_samples
from mocosfl_mpi.privacy import resistance
from mocosfl_mpi.privacy.nopeek import NoPeek
from mocosfl_mpi.privacy.transforms import guard

Slope = Callable[[Tensor, Tensor], Tensor]
"""(smashed data, normalised images) to the derivative of how well the client's own decoder draws these."""
Sending = Callable[[Tensor, torch.Generator, Tensor], tuple[Tensor, Pull]]
"""As a guard; beside what is sent, the way back for the gradient that comes down: what the client makes of it."""


def guard_of(victim: Victim, client: int) -> Guard | None:
    """The guard of ``client``; None where nothing is done.

    Adversarial noise goes against the client's own decoder, and an adversary that knows the defence is given that
    decoder too: the strongest that there can be. Gradients pass straight through, as though nothing had been changed.
    """
    send = sending(victim, client)
    if send is None:
        return None

    def straight_through(smashed: Tensor, generator: torch.Generator, images: Tensor) -> Tensor:
        return smashed + (send(smashed.detach(), generator, images.detach())[0] - smashed).detach()

    return straight_through


def sending(victim: Victim, client: int) -> Sending | None:
    """What ``client`` sends, and the way back of training through its defences; None where nothing is done."""
    config = victim.config
    pieces, coding = guard(config), codec(config.communication.smashed, config.communication.topk)
    if not pieces and isinstance(coding, Full):
        return None
    slope = _slope(victim, client) if config.defence.adversarial else None

    @torch.no_grad()
    def send(smashed: Tensor, generator: torch.Generator, images: Tensor) -> tuple[Tensor, Pull]:
        draw = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        against = slope(smashed, images)[None] if slope else None
        found, pull = pieces.send(smashed[None], [draw], against)
        return of_samples(coding, found[0]), lambda gradient: pull(gradient[None])[0]

    return send


def answered(victim: Victim, gradients: Tensor) -> Tensor:
    """Gradients at the cut ``[n, …]`` as they come down: compressed, where the run compresses them."""
    settings = victim.config.communication
    return of_samples(codec(settings.gradient, settings.topk), gradients)


def added(victim: Victim, client: int, smashed: Tensor, images: Tensor) -> Tensor:
    """What the terms at the cut of ``client`` add to the gradient of a mean over its rows ``[n, c, h, w]``."""
    config, found = victim.config, torch.zeros_like(smashed)
    if config.defence.nopeek and not config.client.frozen:
        block = Block(np.array([client]), {}, victim.model, config.client)
        found = found + NoPeek(config.defence.nopeek).gradient(block, images[None], smashed[None])[0]
    if config.resists:
        term, block = _opposing(victim, client)
        found = found + term.gradient(block, images[None], smashed[None])[0]
    return found


def _opposing(victim: Victim, client: int) -> tuple[resistance.Resistance, Block]:
    """The decoder that ``client`` had against itself in the end, and its state; a fresh one in the control."""
    config, data = victim.config, victim.source.data
    opponent = resistance.attacker(config, victim.network, victim.streams, torch.float32)
    scale = resistance.Images(torch.tensor(data.mean), torch.tensor(data.std))
    term = resistance.Resistance(config.defence, opponent, scale)
    state = victim.opponent(client)
    kept = {resistance.STATE: (term.initial[resistance.STATE] if state is None else state).clone()[None]}
    return term, Block(np.array([client]), kept, victim.model, config.client)


def _slope(victim: Victim, client: int) -> Slope:
    """That of the decoder that ``client`` had in the end; of a fresh one in the untrained control."""
    term, block = _opposing(victim, client)

    def found(smashed: Tensor, images: Tensor) -> Tensor:
        return term.slope(block, images[None], smashed[None])[0]

    # The slope is an autograd derivative, and its caller may be without gradients.
    return torch.enable_grad()(found)
