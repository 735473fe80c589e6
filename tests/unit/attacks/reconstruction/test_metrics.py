import pytest
import torch

from mocosfl_mpi.attacks import metrics
from tests.unit.attacks.reconstruction.common import photographs


def test_published_ssim_is_another_scale():
    """Zero padding lifts what a grey image scores."""
    truth = photographs(32)[:16]
    scores = metrics.score(metrics.own_mean(truth), truth)
    assert scores["ssim_published"] > scores["ssim"] + 0.05
    assert metrics.score(truth, truth)["ssim_published"] == pytest.approx(1.0)


def test_psnr_of_the_mean_is_not_the_mean_of_psnr():
    """Errors 0.01 and 0.0001: 20 and 40 dB, mean 30; of the mean error 0.00505 it is 22.97."""
    truth = torch.full((2, 1, 12, 12), 0.5)
    scores = metrics.score(truth + torch.tensor([0.1, 0.01])[:, None, None, None], truth)
    assert scores["psnr"] == pytest.approx(30.0, abs=1e-3)
    assert scores["psnr_of_mean_mse"] == pytest.approx(22.967, abs=1e-2)
    assert scores["mse"] == pytest.approx(0.00505, abs=1e-6)


@pytest.mark.parametrize("size", [2, 7, 10])
@pytest.mark.filterwarnings("error")
def test_small_images_have_a_score(size):
    truth = torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(0))
    assert metrics.score(truth, truth)["ssim"] == pytest.approx(1.0)
    assert metrics.score(1 - truth, truth)["ssim"] < 0.9


def test_floors_know_what_they_may_know():
    own, truth = torch.full((4, 3, 12, 12), 0.2), photographs(16)[:8]
    floors = metrics.floors(own.expand(4, 3, 12, 12)[:, :, :1, :1].expand(4, 3, 16, 16), truth)
    assert floors["constant_mean"]["mse"] == pytest.approx(float((truth - 0.2).square().mean()), rel=1e-5)
    assert floors["own_mean"]["mse"] == pytest.approx(float(truth.var(dim=(2, 3), correction=0).mean()), rel=1e-4)
