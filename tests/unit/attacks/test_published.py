"""The published protocol's own quirks, one by one."""

import pytest
import torch
from torch import nn

from mocosfl_mpi.attacks import metrics
from mocosfl_mpi.attacks.attack import Effort
from mocosfl_mpi.attacks.published import STORED_STD, PublishedDecoder, jpeg, shrunk
from mocosfl_mpi.attacks.reconstruction.decoder import Decoder
from tests.unit.attacks.reconstruction.common import photographs, seen

MOCOSFL = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def test_the_shrunk_images_have_two_thirds_of_the_variance():
    """(.2023/.247)², (.1994/.243)², (.2010/.261)²."""
    pixels = photographs(32)[:64]
    ratio = shrunk(pixels, *MOCOSFL).var(dim=(0, 2, 3)) / pixels.var(dim=(0, 2, 3))
    torch.testing.assert_close(ratio, torch.tensor([0.6708, 0.6733, 0.5931]), atol=1e-4, rtol=0)


def test_taking_back_with_the_right_deviation_changes_nothing():
    """On the 1/255 grid."""
    pixels = torch.arange(256).float().div(255)[None, None, None].expand(1, 3, 2, 256)
    torch.testing.assert_close(shrunk(pixels, MOCOSFL[0], STORED_STD), pixels)


def test_a_blind_guess_scores_better_on_shrunk_images():
    pixels = photographs(32)[:64]
    scores = [metrics.floors(truth, truth)["constant_mean"] for truth in (pixels, shrunk(pixels, *MOCOSFL))]
    assert scores[1]["mse"] == pytest.approx(0.65 * scores[0]["mse"], rel=0.05)
    assert scores[1]["ssim_published"] > scores[0]["ssim_published"] + 0.02


def test_jpeg_images_are_not_the_pixels():
    """As of photographs of 32x32 pixels: MSE about 0.001, similarity about 0.95."""
    pixels = photographs(32)[:64]
    scores = metrics.score(jpeg(pixels), pixels)
    assert 2e-4 < scores["mse"] < 2e-3
    assert 0.9 < scores["ssim_published"] < 0.99
    grey = jpeg(pixels[:, :1])
    assert grey.shape == (64, 1, 32, 32)
    assert 0 < float(metrics.mse(grey, pixels[:, :1]).mean()) < 2e-3


def test_the_decoder_validates_in_training_mode_on_one_minibatch():
    """50 held-out images of 500 are batches of 32 and 18: the smaller error of the two is what is reported."""
    own, private = photographs(8, 4)[:500], photographs(8, 4)[500:532]
    view = seen(nn.Identity(), private, own)
    published = PublishedDecoder("conv_normN0C8").run(view, 0, Effort(0.1))
    ours = Decoder("conv", 0, 8).run(view, 0, Effort(0.1))
    assert published.notes["validation_mse"] < 0.05
    assert published.notes["validation_mse"] != ours.notes["validation_mse"]
    floors = metrics.floors(own, private)
    assert metrics.score(published.values, private)["mse"] < floors["constant_mean"]["mse"]


def test_the_split_is_the_same_for_every_seed(monkeypatch):
    """What is held out does not depend on the attack's seed, and is a tenth."""
    own, private = photographs(8, 4)[:50], photographs(8, 4)[50:52]
    rows = []

    def train(network, draw, targets, fit, *rest):
        rows.append(fit.tolist())
        return network.state_dict(), 0.0

    monkeypatch.setattr("mocosfl_mpi.attacks.published.train", train)
    for seed in (3, 4):
        PublishedDecoder("conv_normN0C8").run(seen(nn.Identity(), private, own), seed, Effort(0.02))
    assert rows[0] == rows[1]
    assert len(set(rows[0])) == 45
    assert rows[0] != sorted(rows[0])
