"""The distance correlation and its gradient against plain numpy, a pair at a time."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from mocosfl_mpi.privacy.nopeek import NoPeek, distance_correlation, flops, kept


def slow(x, z):
    """Székely, Rizzo, Bakirov 2007, definitions 4 and 5."""
    n = len(x)

    def centred(rows):
        d = np.zeros((n, n))
        for k in range(n):
            for m in range(n):
                d[k, m] = np.sqrt(np.sum((rows[k] - rows[m]) ** 2))
        c = np.zeros((n, n))
        for k in range(n):
            for m in range(n):
                c[k, m] = d[k, m] - d[k].mean() - d[:, m].mean() + d.mean()
        return c

    a, b = centred(x), centred(z)
    covariance, a_variance, b_variance = (np.sqrt(np.sum(u * v) / n**2) for u, v in ((a, b), (a, a), (b, b)))
    return covariance / np.sqrt(a_variance * b_variance)


def batch(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n", [3, 4, 17])
def test_distance_correlation_is_numpys(n):
    x, z = batch(2, n, 1, 4, 4), batch(2, n, 3, 2, 2, seed=1)
    z[1] += x[1, :, :, :2, :2]
    found = distance_correlation(x, z)
    for lane in range(2):
        wanted = slow(x[lane].flatten(1).numpy(), z[lane].flatten(1).numpy())
        assert found[lane].item() == pytest.approx(wanted, abs=1e-12)
    assert 0 < found[0] < 1


def test_known_values():
    x = batch(1, 8, 3)
    rotation, _ = torch.linalg.qr(batch(3, 3, seed=2))
    assert distance_correlation(x, 2.5 * x @ rotation + 1.0).item() == pytest.approx(1.0, abs=1e-12)
    assert distance_correlation(x[:, :2], batch(1, 2, 5)).item() == pytest.approx(1.0, abs=1e-12), "always, of two"
    assert distance_correlation(x, torch.ones(1, 8, 4, dtype=torch.float64)).item() == 0.0


def test_small_batches_overstate_it():
    """Of independent rows: the bias of which the documentation warns."""
    found = [distance_correlation(batch(40, n, 6, seed=n), batch(40, n, 6, seed=99)).mean() for n in (3, 6, 12, 48)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.85
    assert found[-1] < 0.6


def test_its_gradient_is_the_derivative():
    x = batch(2, 5, 3)
    z = batch(2, 5, 4, seed=1).requires_grad_()
    assert gradcheck(lambda z: distance_correlation(x, z), z)


def test_equal_rows_have_no_gradient_and_no_nan():
    x, z = batch(1, 4, 3), torch.ones(1, 4, 2, dtype=torch.float64)
    found = NoPeek(1.0).gradient(SimpleNamespace(), x, z)
    assert not found.any()
    z[0, 0] = 2.0  # three equal ones, and another
    assert NoPeek(1.0).gradient(SimpleNamespace(), x, z).isfinite().all()


def test_the_term_is_weighted_and_each_client_has_its_own():
    x, z = batch(3, 5, 1, 4, 4), batch(3, 5, 2, 2, 2, seed=1)
    found = NoPeek(2.0).gradient(SimpleNamespace(), x, z)
    assert torch.allclose(found, 2 * NoPeek(1.0).gradient(SimpleNamespace(), x, z))
    for lane in range(3):
        own = NoPeek(2.0).gradient(SimpleNamespace(), x[lane : lane + 1], z[lane : lane + 1])
        assert torch.allclose(found[lane], own[0], rtol=0, atol=1e-15)
    step = z - 1e-3 * found
    assert (distance_correlation(x, step) < distance_correlation(x, z)).all()
    half = NoPeek(2.0).gradient(SimpleNamespace(), x, z.bfloat16())
    assert half.dtype == torch.float32


def test_costs_by_hand():
    assert flops(4, 10, 5) == 4 * (30 + 30)
    assert kept(4, 8) == 4 * 16 * 8
