"""How close reconstructions are to the images, and what a guesser who sees nothing would score."""

from __future__ import annotations

import torch
from torch import Tensor

from mocosfl_mpi.privacy import ssim as zero_padded


def mse(guess: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error of each image ``[n]``; pixels in [0, 1]."""
    return (guess - truth).square().flatten(1).mean(dim=1)


def psnr(guess: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB ``[n]``; 100 for an exact copy."""
    return -10.0 * mse(guess, truth).clamp(min=1e-10).log10()


def ssim(guess: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each image ``[n]``, without padding (pytorch-msssim; Wang et al. 2004).

    Images of less than 11 pixels a side have the largest odd window that fits.
    """
    from pytorch_msssim import ssim as library

    window = min(11, (min(truth.shape[2:]) - 1) // 2 * 2 + 1)
    return library(guess, truth, data_range=1.0, size_average=False, win_size=window)  # type: ignore[no-any-return]


def constant_mean(own: Tensor, count: int) -> Tensor:
    """F0: the mean colour of the adversary's own images, for every image: what needs no attack at all."""
    return own.mean(dim=(0, 2, 3))[None, :, None, None].expand(count, -1, *own.shape[2:])


def own_mean(truth: Tensor) -> Tensor:
    """F1: each image's own mean colour: an oracle that knows no structure."""
    return truth.mean(dim=(2, 3), keepdim=True).expand_as(truth)


def floors(own: Tensor, truth: Tensor) -> dict[str, dict[str, float]]:
    """Constant mean colour (sees nothing), and each image's own mean colour (an oracle without structure)."""
    return {
        "constant_mean": score(constant_mean(own, len(truth)), truth),
        "own_mean": score(own_mean(truth), truth),
    }


@torch.no_grad()
def score(guess: Tensor, truth: Tensor) -> dict[str, float]:
    """Means over images of MSE, PSNR and SSIM, and what a mean hides.

    ``psnr_of_mean_mse`` is never above ``psnr``, the mean of the images' own; ``mse_worst_decile`` is what the tenth of
    the images that is rebuilt best has at most; ``ssim_published`` is on the papers' scale, zero-padded.
    """
    guess = guess.clamp(0.0, 1.0)
    errors = mse(guess, truth)
    return {
        "mse": float(errors.mean()),
        "mse_worst_decile": float(errors.quantile(0.1)),
        "psnr": float(psnr(guess, truth).mean()),
        "psnr_of_mean_mse": float(-10.0 * errors.mean().clamp(min=1e-10).log10()),
        "ssim": float(ssim(guess, truth).mean()),
        "ssim_published": float(zero_padded.ssim(guess, truth).mean()),
    }
