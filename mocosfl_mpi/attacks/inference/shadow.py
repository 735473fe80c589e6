"""An encoder that an adversary trains itself, to see what a trained encoder does to members."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mocosfl_mpi.attacks.view import View
from mocosfl_mpi.objectives.local import Outputs, nt_xent
from mocosfl_mpi.split.cut import SplitNetwork, WholeNetwork

BATCH = 64
RATE, MOMENTUM, DECAY, TEMPERATURE = 0.06, 0.9, 5e-4, 0.1
CHUNK = 250


def train(
    network: SplitNetwork, view: View, raw: Tensor, seed: int, steps: int, rate: float = RATE
) -> Callable[[Tensor], Tensor]:
    """SimCLR on ``raw`` images uint8 ``[n, C, H, W]`` with SGD at a falling ``rate``.

    Gives the function from pixels to features ``[m, f]``, without graph.
    """
    assert view.augment is not None
    bottom, trunk = network.bottom.train(), network.trunk
    whole = bottom if isinstance(bottom, WholeNetwork) else None

    def features(pixels: Tensor) -> Tensor:
        images = view.normalise(pixels)
        if whole is not None:
            return whole.features(images)
        assert trunk is not None
        return trunk.features(bottom(images))

    head = whole.head if whole is not None else trunk.head if trunk is not None else None
    assert head is not None
    weights = [*bottom.parameters(), *(trunk.parameters() if trunk is not None else ())]
    optimiser = torch.optim.SGD(weights, lr=rate, momentum=MOMENTUM, weight_decay=DECAY)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1.0 - step / steps)
        batch = raw[torch.randperm(len(raw), generator=generator)[:BATCH]]
        first, second = view.augment(batch, 2, seed * 1_000_003 + step).unbind(1)
        rows = head(features(torch.cat([first, second])))
        loss, _ = nt_xent(Outputs(rows[None], None, None, TEMPERATURE))
        optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimiser.step()
    for part in (bottom, trunk):
        if part is not None:
            part.eval().requires_grad_(False)

    def encode(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([features(part) for part in pixels.split(CHUNK)])

    return encode
