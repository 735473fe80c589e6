import numpy as np
import pytest

from mocosfl_mpi.config import Views
from mocosfl_mpi.data._torchvision import torchvision
from mocosfl_mpi.data.view_draws import BLEND_ORDERS, DRAWS, view_parameters

UNIFORM = np.random.default_rng(0).random((20_000, DRAWS))


def test_parameters_have_the_published_ranges_and_frequencies():
    p = view_parameters(Views(), UNIFORM, 32, 32)
    assert len(p) == 20_000
    for chosen, share in ((p.jitter, 0.8), (p.grey, 0.2), (p.blur, 0.5), (p.flip, 0.5)):
        assert chosen.mean() == pytest.approx(share, abs=0.015)
    for values, low, high in ((p.factors, 0.6, 1.4), (p.hue, -0.1, 0.1), (p.radius, 0.1, 2.0)):
        assert low <= values.min() < low + 0.01
        assert high - 0.01 < values.max() <= high
    orders = np.bincount(p.blend_order * 4 + p.hue_slot, minlength=24)
    assert len(BLEND_ORDERS) * 4 == len(orders) == 24
    assert orders.min() > 700  # 833 expected, standard deviation 28
    assert not view_parameters(Views(pipeline="mocov1"), UNIFORM, 32, 32).blur.any()


@pytest.mark.parametrize(("height", "width", "scale"), [(32, 32, 0.08), (28, 28, 0.5), (10, 40, 0.08), (40, 10, 0.9)])
def test_crops_are_distributed_as_torchvisions(height, width, scale):
    import torch

    p = view_parameters(Views(crop_scale_min=scale), UNIFORM, height, width)
    assert (p.top >= 0).all()
    assert (p.left >= 0).all()
    assert (p.top + p.height <= height).all()
    assert (p.left + p.width <= width).all()
    transform = torchvision().transforms.RandomResizedCrop(32, scale=(scale, 1.0))
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array([transform.get_params(image, transform.scale, transform.ratio) for _ in range(4000)])
    ours = np.stack([p.top, p.left, p.height, p.width], axis=1)
    error = theirs.std(axis=0) / np.sqrt(len(theirs))
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 5 * error + 1e-9).all()
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.08, atol=0.05)


def test_the_whole_image_is_kept_at_scale_one():
    p = view_parameters(Views(crop_scale_min=1.0), UNIFORM[:500], 32, 32)
    assert set(p.height) == set(p.width) == {32}  # every other ratio overflows: the central fallback
