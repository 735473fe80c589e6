import pytest
import torch

from mocosfl_mpi.attacks import metrics
from tests.unit.attacks.reconstruction.common import photographs

FLOORS = {"constant_mean": {"mse": 0.06}, "own_mean": {"mse": 0.04}}


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


@pytest.mark.parametrize(
    ("errors", "standing"),
    [
        ([0.061, 0.062], "at the floor"),
        ([0.0595], "colour"),
        ([0.0591, 0.0599, 0.0580], "colour"),
        ([0.0592, 0.0599, 0.0560], "at the floor"),  # the mean is below, and by less than the seeds differ
        ([0.041, 0.041], "colour"),
        ([0.030, 0.031], "structure"),
    ],
)
def test_standing(errors, standing):
    assert metrics.standing(errors, FLOORS) == standing


def test_best_of_attacks_is_never_worse_than_saying_nothing():
    assert metrics.best({"ridge": [0.03, 0.05], "decoder": [0.039, 0.039]}, 0.06) == ("decoder", 0.039)
    assert metrics.best({"ridge": [0.08], "decoder": [0.07]}, 0.06) == ("constant_mean", 0.06)


def test_floors_know_what_they_may_know():
    own, truth = torch.full((4, 3, 12, 12), 0.2), photographs(16)[:8]
    floors = metrics.floors(own.expand(4, 3, 12, 12)[:, :, :1, :1].expand(4, 3, 16, 16), truth)
    assert floors["constant_mean"]["mse"] == pytest.approx(float((truth - 0.2).square().mean()), rel=1e-5)
    assert floors["own_mean"]["mse"] == pytest.approx(float(truth.var(dim=(2, 3), correction=0).mean()), rel=1e-4)
