"""A client rejects a first part that passes its images on, and takes one that does not."""

import pytest
import torch
from torch import nn

from mocosfl_mpi.attacks.acceptance import acceptance
from mocosfl_mpi.attacks.scenes import pixels_of
from mocosfl_mpi.config import Data
from mocosfl_mpi.data.sources import load
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.streams import Streams


@pytest.fixture(scope="module")
def data():
    return load(Data(train_images=100, test_images=10), None, Streams(0))


@pytest.fixture(scope="module")
def own(data):
    return pixels_of(data.train, 16)


class Leaky(nn.Module):
    """As small at the cut as a bottleneck should be, and the image all the same: four neighbours side by side."""

    def forward(self, images):
        return nn.functional.pixel_unshuffle(images, 2)


class Poor(nn.Module):
    """Of each image a number that has little to do with it, in the same shape."""

    def forward(self, images):
        numbers = torch.sin(1e3 * images.mean(dim=(1, 2, 3)))
        return numbers[:, None, None, None].expand(-1, 4, 8, 8)


def test_a_leaky_one_is_rejected(data, own):
    verdict = acceptance(Leaky(), own, data.mean, data.std)
    assert not verdict.accepted
    assert verdict.share < 0.01
    assert verdict.ssim > 0.99
    assert verdict.reason.startswith("a linear decoder gets 100 % of the variance")


class Loud(Leaky):
    """The same, with a channel beside it that is loud and says nothing."""

    def forward(self, images):
        found = super().forward(images)
        return torch.cat([found, torch.full_like(found[:, :1], 1e4)], dim=1)


def test_a_loud_channel_hides_nothing(data, own):
    verdict = acceptance(Loud(), own, data.mean, data.std)
    assert not verdict.accepted
    assert verdict.share < 0.01


def test_one_that_says_little_is_taken(data, own):
    verdict = acceptance(Poor(), own, data.mean, data.std)
    assert verdict.accepted
    assert verdict.mse > 0.8 * verdict.floor


def test_the_threshold_decides(data, own):
    half = Leaky()
    blurred = nn.Sequential(nn.AvgPool2d(8), half)
    share = acceptance(blurred, own, data.mean, data.std).share
    assert 0.05 < share < 0.95
    assert acceptance(blurred, own, data.mean, data.std, threshold=0.9 * share).accepted
    assert not acceptance(blurred, own, data.mean, data.std, threshold=min(1.0, 1.1 * share)).accepted


def test_what_the_client_adds_counts(data, own):
    def hide(smashed, generator, images):
        return smashed + 100.0 * torch.randn(smashed.shape, generator=generator)

    assert acceptance(Leaky(), own, data.mean, data.std, guard=hide).accepted


def test_too_few_images_and_a_threshold_that_means_nothing(data, own):
    with pytest.raises(BadInput, match="at least 20"):
        acceptance(Leaky(), own[:19], data.mean, data.std)
    with pytest.raises(BadInput, match=r"threshold = 1\.5"):
        acceptance(Leaky(), own, data.mean, data.std, threshold=1.5)
