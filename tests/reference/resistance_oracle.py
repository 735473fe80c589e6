"""The resistance term, slow and obvious: a decoder and torch's own Adam for each client, SSIM by convolutions.

Written from the specification (shared/spec/privacy.md, sections 1.2 and 2.2), as ResSFL states it: λ·max(0, s - τ) is a
term of the client's loss, differentiated by ordinary autograd. From the package come the decoder and its first weights.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl_mpi.config import Defence


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM of images ``[n, C, H, W]``, 11x11 Gaussian of 1.5, zeros around."""
    channels = a.shape[1]
    at = torch.arange(11, dtype=a.dtype) - 5
    line = torch.exp(-(at**2) / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x, window.expand(channels, 1, 11, 11), padding=5, groups=channels)

    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
    return ((2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma * ma + mb * mb + 1e-4) * (va + vb + 9e-4))).mean()


class Opponent:
    """A client's own attacker; ``mean`` and ``std`` are those with which its images were normalised."""

    def __init__(self, decoder: nn.Module, settings: Defence, mean: Tensor, std: Tensor) -> None:
        self.network = copy.deepcopy(decoder).requires_grad_()
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.resistance_lr)
        self.settings, self.mean, self.std = settings, mean, std
        self.batches = 0
        self.scores: list[float] = []

    def term(self, smashed: Tensor, images: Tensor) -> Tensor:
        """Learn from a batch, if it is time; the term of the client's loss."""
        pixels = (images * self.std + self.mean).clamp(0, 1)
        self.network.train()
        if self.batches % self.settings.resistance_every == 0:
            for _ in range(self.settings.resistance_steps):
                self.optimiser.zero_grad()
                (-similarity(self.network(smashed.detach()), pixels)).backward()
                self.optimiser.step()
        self.batches += 1
        self.network.eval()
        score = similarity(self.network(smashed), pixels)
        self.scores.append(float(score.detach()))
        return self.settings.resistance * torch.relu(score - self.settings.resistance_ssim)

    def weights(self) -> Tensor:
        """Weights and running statistics, one after the other."""
        return torch.cat([v.detach().flatten() for v in (*self.network.parameters(), *self.network.buffers())])
