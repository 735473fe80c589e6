"""Attacker-aware training: a client draws its own images from its smashed data, and learns to make that hard.

Li, Rakin, Chen, He, Fan, Chakrabarti: ResSFL. CVPR 2022; as MocoSFL's TAResSFL has it (Li et al., ICLR 2023, eq. 5).
Each client trains a simulated attacker G, a decoder, on its own smashed data z and images x on the scale 0 to 1:

    maximise  s = mean over the batch of SSIM(G(z), x)      by Adam, G in training mode
    add       λ·∂s/∂z  to the gradient at z  where s > τ    G in evaluation mode, after its step

s is the batch's mean, so that the hinge is the batch's too. Two deviations from the published code: images are brought
back to the scale 0 to 1 with the statistics by which they were normalised, each source its own (there: the target's for
all); and the attacker's learning rate is constant (there: x0.2 after 30, 60 and 80 % of the epochs).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mocosfl_mpi.clients.block import Block
from mocosfl_mpi.clients.terms import CutTerm
from mocosfl_mpi.config import Config, Defence
from mocosfl_mpi.cost import memory
from mocosfl_mpi.cost.flops import SegmentCost, measure
from mocosfl_mpi.privacy.decoders import decoder, norm_for
from mocosfl_mpi.privacy.ssim import ssim
from mocosfl_mpi.split.cut import SplitNetwork
from mocosfl_mpi.split.layers import initialise, seeded
from mocosfl_mpi.streams import Streams

STATE = "attacker"
"""The client's state: weights, both Adam moments, running statistics, then the ``_COUNTS``."""
SSIM_SERIES = "resistance/ssim"
BETAS, EPSILON = (0.9, 0.999), 1e-8
ADAM_FLOPS_PER_PARAMETER = 12
"""m ← β·m + (1-β)·g: 3; v ← β·v + (1-β)·g²: 4; w ← w - η·m/(√v + ε): 5, bias corrections in η and ε."""
_COUNTS = 4
"""Batches, Adam steps, and of this epoch the sum of s and the number of its terms."""


class Opponent(nn.Module):
    """An attacker and its score, as one network: smashed data ``[n, C, h, w]`` to SSIM ``[n]``, for measuring."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, smashed: Tensor) -> Tensor:
        """Of images that are black: what is measured does not depend on them."""
        drawn = self.network(smashed)
        return ssim(drawn, torch.zeros_like(drawn))


def attacker(config: Config, network: SplitNetwork, streams: Streams, dtype: torch.dtype) -> nn.Sequential:
    """The simulated attacker with which every client begins: Xavier weights, zero biases, a stream of its own.

    Raises
    ------
    BadInput
        The decoder cannot draw images of this size from smashed data of this shape.
    """
    with seeded(streams.torch_seed("attacker")):
        norm = norm_for(config.rows_per_client)
        found = decoder(config.defence.resistance_decoder, network.smashed_shape, network.input_shape, norm)
        initialise(found)
    return found.to(dtype)


@dataclass(frozen=True)
class Images:
    """How images were normalised: ``mean`` and ``std``, ``[C]``, or ``[rows, C]`` where a batch's images differ."""

    mean: Tensor
    std: Tensor

    def restore(self, images: Tensor) -> Tensor:
        """Images ``[lanes, rows, C, H, W]`` on the scale 0 to 1."""
        mean, std = (scale.to(images)[..., None, None] for scale in (self.mean, self.std))
        return (images * std + mean).clamp(0.0, 1.0)


class Resistance(CutTerm):
    """The term at the cut. ``looped``: one client after the other instead of all lanes at once.

    So are decoders with BatchNorm always: `vmap` does not carry their running statistics out.
    """

    recorded = (SSIM_SERIES,)

    def __init__(self, settings: Defence, network: nn.Module, images: Images, *, looped: bool = False) -> None:
        self._settings = settings
        self._images = images
        self._learning = network.train().requires_grad_(False)
        self._fixed = copy.deepcopy(network).eval()
        self._looped = looped or any(True for _ in network.buffers())
        self._layout = [*network.named_parameters(), *network.named_buffers()]
        self._weights = sum(p.numel() for p in network.parameters())
        kept = torch.cat([value.detach().reshape(-1) for _, value in self._layout])
        weights, statistics = kept[: self._weights], kept[self._weights :]
        moments = torch.zeros_like(weights).repeat(2)
        self._initial = torch.cat([weights, moments, statistics, torch.zeros(_COUNTS, dtype=kept.dtype)])
        sizes = [self._weights, self._weights, self._weights, len(statistics), *[1] * _COUNTS]
        self._parts = [slice(*span) for span in pairwise(accumulate(sizes, initial=0))]

    @property
    def initial(self) -> Mapping[str, Tensor]:
        """A fresh attacker, alike for all clients."""
        return {STATE: self._initial}

    def begin_epoch(self, block: Block) -> None:
        """Forget the scores of the epoch before."""
        block.state[STATE][:, self._parts[-2].start :] = 0.0

    def readings(self, block: Block) -> dict[str, Tensor]:
        """The mean of s over the epoch's steps; NaN where there was none."""
        total, count = (block.state[STATE][:, part][:, 0] for part in self._parts[-2:])
        return {SSIM_SERIES: total / count}

    def gradient(self, block: Block, images: Tensor, smashed: Tensor) -> Tensor:
        """The attacker's steps where they are due, then the gradient of the hinge ``[lanes, rows, C, h, w]``."""
        weights, first, second, statistics, batches, steps, total, count = (
            block.state[STATE][:, part] for part in self._parts
        )
        smashed = smashed.to(weights.dtype).contiguous()  # channels first: vmap's GroupNorm knows no other order
        images = self._images.restore(images.to(weights.dtype)).contiguous()
        due = batches % self._settings.resistance_every == 0
        if due.any():
            for _ in range(self._settings.resistance_steps):
                seen = statistics.clone()
                slope = self._slope(weights, seen, smashed, images)
                moments = first.lerp(slope, 1 - BETAS[0]), second.lerp(slope * slope, 1 - BETAS[1])
                done = steps + 1
                rate = self._settings.resistance_lr / (1 - BETAS[0] ** done)
                deviation = (moments[1] / (1 - BETAS[1] ** done)).sqrt() + EPSILON
                after = (weights + rate * moments[0] / deviation, *moments, seen, done)
                for own, new in zip((weights, first, second, statistics, steps), after, strict=True):
                    own.copy_(torch.where(due, new, own))
        batches += 1
        score, slope = self._exposed(weights, statistics, smashed, images)
        total += score[:, None]
        count += 1
        above = score > self._settings.resistance_ssim
        return slope * (self._settings.resistance * above)[:, None, None, None, None]

    def slope(self, block: Block, images: Tensor, smashed: Tensor) -> Tensor:
        """∂s/∂z ``[lanes, rows, C, h, w]`` of the attacker as it stands, in evaluation mode; nothing changes."""
        weights, statistics = (block.state[STATE][:, self._parts[place]] for place in (0, 3))
        images = self._images.restore(images.to(weights.dtype)).contiguous()
        return self._exposed(weights, statistics, smashed.to(weights.dtype).contiguous(), images)[1]

    def _slope(self, weights: Tensor, statistics: Tensor, smashed: Tensor, images: Tensor) -> Tensor:
        """∂s/∂w ``[lanes, W]`` of every lane; running ``statistics [lanes, …]`` are updated in place."""
        with torch.enable_grad():
            weights = weights.detach().requires_grad_()
            score = self._scores(self._learning, weights, statistics, smashed, images)
            return torch.autograd.grad(score.sum(), weights)[0]

    def _exposed(self, weights: Tensor, statistics: Tensor, smashed: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """S ``[lanes]`` with the attacker as it stands, and ∂s/∂z ``[lanes, rows, C, h, w]``."""
        with torch.enable_grad():
            smashed = smashed.detach().requires_grad_()
            score = self._scores(self._fixed, weights.detach(), statistics, smashed, images)
            return score.detach(), torch.autograd.grad(score.sum(), smashed)[0]

    def _scores(
        self, network: nn.Module, weights: Tensor, statistics: Tensor, smashed: Tensor, images: Tensor
    ) -> Tensor:
        def score(values: dict[str, Tensor], z: Tensor, x: Tensor) -> Tensor:
            return ssim(functional_call(network, values, (z,)), x).mean()

        values = dict(self._named(weights, statistics))
        if not self._looped:
            return vmap(score)(values, smashed, images)
        lanes = range(len(smashed))
        return torch.stack([score({k: v[i] for k, v in values.items()}, smashed[i], images[i]) for i in lanes])

    def _named(self, weights: Tensor, statistics: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Weights and running statistics ``[lanes, *shape]`` by their names in the network: views."""
        begin = {True: 0, False: 0}
        for name, like in self._layout:
            learns = isinstance(like, nn.Parameter)
            row, start = weights if learns else statistics, begin[learns]
            begin[learns] = start + like.numel()
            yield name, row[:, start : begin[learns]].unflatten(1, like.shape)


def width(network: nn.Module) -> int:
    """Numbers in a client's state: weights and two moments, running statistics, counts."""
    kept = sum(b.numel() for b in network.buffers())
    return 3 * sum(p.numel() for p in network.parameters()) + kept + _COUNTS


def added(config: Config, network: SplitNetwork, cost: SegmentCost) -> SegmentCost:
    """The FLOPs of a client, with those of its simulated attacker.

    The hinge is counted as if it were always open, and the score with the attacker: its filters are products.
    """
    opponent = Opponent(attacker(config, network, Streams(config.seed), torch.float32))
    costs, times = measure(opponent, network.smashed_shape), config.defence.resistance_steps
    return cost.defended(
        image=costs.answering.forward + costs.answering.backward_input,
        attacker=times * (costs.last.forward + costs.last.backward),
        attacker_step=times * ADAM_FLOPS_PER_PARAMETER * costs.last.parameters,
    )


def slope_flops(config: Config, network: SplitNetwork) -> int:
    """FLOPs of the attacker's score of one image and its derivative at the smashed data."""
    opponent = Opponent(attacker(config, network, Streams(config.seed), torch.float32))
    cost = measure(opponent, network.smashed_shape).answering
    return cost.forward + cost.backward_input


def device_memory(config: Config, network: SplitNetwork, batches: int = 1) -> int:
    """Bytes that the attacker takes on a client's device: weights, two moments, and the peak of its own step.

    ``batches``: of so many times the images, as rich clients have them.
    """
    dtype = next(network.first.parameters()).dtype
    opponent = Opponent(attacker(config, network, Streams(config.seed), dtype))
    rows = batches * config.rows_per_client
    found = memory.measure(opponent, network.smashed_shape, rows, frozen=False, momentum=False, views=1)
    return found.peak + found.velocity
