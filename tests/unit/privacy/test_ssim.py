"""Zero-padded SSIM against its definition in numpy, and its gradient."""

import numpy as np
import pytest
import torch

from mocosfl_mpi.privacy.ssim import ssim


def by_definition(a, b):
    """SSIM of two maps ``[H, W]``, window after window, zeros around."""
    at = np.arange(11) - 5
    window = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    window /= window.sum()
    height, width = a.shape
    a, b = (np.pad(x, 5) for x in (a, b))
    scores = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            x, y = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * x * x).sum() - mx**2, (window * y * y).sum() - my**2
            cov = (window * x * y).sum() - mx * my
            scores[i, j] = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    return scores.mean()


@pytest.mark.parametrize("size", [(16, 16), (8, 20), (5, 5)])
def test_every_window_counts(size):
    generator = np.random.default_rng(0)
    a = generator.random((2, 3, *size))
    b = np.clip(a + 0.2 * generator.standard_normal(a.shape), 0, 1)
    wanted = [np.mean([by_definition(x, y) for x, y in zip(u, v, strict=True)]) for u, v in zip(a, b, strict=True)]
    np.testing.assert_allclose(ssim(torch.tensor(a), torch.tensor(b)), wanted, rtol=1e-10)


def test_equal_images_score_one():
    a = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ssim(a, a), torch.ones(2, dtype=torch.float64))


def test_padding_with_zeros_flatters_constant_images():
    """Black borders agree with black borders: a grey image and a light one are far more alike than inside the map."""
    grey, light = torch.full((1, 1, 32, 32), 0.3).double(), torch.full((1, 1, 32, 32), 0.9).double()
    inside = (2 * 0.3 * 0.9 + 1e-4) / (0.3**2 + 0.9**2 + 1e-4)
    assert ssim(grey, light).item() == pytest.approx(by_definition(grey[0, 0].numpy(), light[0, 0].numpy()))
    assert abs(ssim(grey, light).item() - inside) > 0.01


def test_gradient():
    a = torch.rand(1, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    b = torch.rand(1, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(lambda x: ssim(x, b), a)
