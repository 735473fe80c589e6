"""How close reconstructions are to the images, and what a guesser who sees nothing would score."""

from __future__ import annotations

import torch
from torch import Tensor


def mse(guess: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error of each image ``[n]``; pixels in [0, 1]."""
    return (guess - truth).square().flatten(1).mean(dim=1)


def psnr(guess: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB ``[n]``; 100 for an exact copy."""
    return -10.0 * mse(guess, truth).clamp(min=1e-10).log10()


def ssim(guess: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each image ``[n]``, without padding (pytorch-msssim; Wang et al. 2004)."""
    from pytorch_msssim import ssim as library

    return library(guess, truth, data_range=1.0, size_average=False)  # type: ignore[no-any-return]


def constant_mean(own: Tensor, count: int) -> Tensor:
    """F0: the mean colour of the adversary's own images, for every image: what needs no attack at all."""
    return own.mean(dim=(0, 2, 3))[None, :, None, None].expand(count, -1, *own.shape[2:])


def own_mean(truth: Tensor) -> Tensor:
    """F1: each image's own mean colour: an oracle that knows no structure."""
    return truth.mean(dim=(2, 3), keepdim=True).expand_as(truth)


@torch.no_grad()
def score(guess: Tensor, truth: Tensor) -> dict[str, float]:
    """Means over images of MSE, PSNR and SSIM."""
    guess = guess.clamp(0.0, 1.0)
    return {
        "mse": float(mse(guess, truth).mean()),
        "psnr": float(psnr(guess, truth).mean()),
        "ssim": float(ssim(guess, truth).mean()),
    }
