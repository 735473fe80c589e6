"""NoPeek: smashed data whose distances say little of the distances between images.

Vepakomma, Singh, Gupta, Raskar: NoPeek: information leakage reduction to share activations in distributed deep
learning. ICDM workshops 2020; the distance correlation is that of Székely, Rizzo, Bakirov: Measuring and testing
dependence by correlation of distances. Annals of Statistics 2007.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mocosfl_mpi.clients.block import Block
from mocosfl_mpi.clients.terms import CutTerm


def distance_correlation(x: Tensor, z: Tensor) -> Tensor:
    """R ``[lanes]`` of the rows of ``x [lanes, n, …]`` and ``z [lanes, n, …]``: dCov / √(dVar x · dVar z), from 0 to 1.

    With a, b the Euclidean distances between rows, both double-centred: dCov² = mean(a·b), dVar² likewise. Not the
    square that some codes call by this name. 0, with no gradient, where all rows are equal.
    """
    a, b = _centred(x), _centred(z)
    covariance, power = (a * b).mean(dim=(1, 2)), (a * a).mean(dim=(1, 2)) * (b * b).mean(dim=(1, 2))
    known = (covariance > 0.0) & (power > 0.0)
    ratio = torch.where(known, covariance, 1.0) / torch.where(known, power, 1.0).sqrt()
    return torch.where(known, ratio.sqrt(), 0.0)


def _centred(rows: Tensor) -> Tensor:
    """Distances ``[lanes, n, n]``, their means over rows and columns taken away."""
    flat = rows.flatten(2)
    found = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    rows_mean, columns_mean = found.mean(dim=2, keepdim=True), found.mean(dim=1, keepdim=True)
    return found - rows_mean - columns_mean + found.mean(dim=(1, 2), keepdim=True)


def flops(rows: int, pixels: int, numbers: int) -> int:
    """FLOPs of the term for one image of a batch of ``rows``: distances of its ``pixels`` and of its ``numbers``.

    A difference, a product and a sum for each number of each pair, and again for smashed data on the way back; what is
    done with the distances themselves is not counted.
    """
    return rows * (3 * pixels + 6 * numbers)


def kept(rows: int, itemsize: int) -> int:
    """Bytes of the distances of a batch, as they are and centred, of images and smashed data."""
    return 4 * rows**2 * itemsize


def workspace(rows: int, pixels: int, numbers: int, itemsize: int) -> int:
    """Bytes in which ranks compute the term of a batch: maps, their gradients from either side, and all distances."""
    return rows * (4 * numbers + pixels) * itemsize + 12 * rows**2 * itemsize


class NoPeek(CutTerm):
    """``weight`` times the distance correlation of a client's batch with its smashed data, before anything else
    protects these.
    """

    def __init__(self, weight: float) -> None:
        self._weight = weight

    def gradient(self, block: Block, images: Tensor, smashed: Tensor) -> Tensor:  # noqa: ARG002
        """The gradient at ``smashed``, client by client; in float32 at least."""
        wide = torch.promote_types(smashed.dtype, torch.float32)
        with torch.enable_grad():
            leaf = smashed.detach().to(wide).requires_grad_()
            found = distance_correlation(images.to(wide), leaf)
            (gradient,) = torch.autograd.grad(self._weight * found.sum(), leaf)
        return gradient
