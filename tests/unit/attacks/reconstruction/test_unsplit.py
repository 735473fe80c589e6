import torch
from torch import nn

from mocosfl_mpi.attacks import metrics
from mocosfl_mpi.attacks.attack import Effort
from mocosfl_mpi.attacks.reconstruction.unsplit import UnSplit
from mocosfl_mpi.split.layers import seeded
from tests.unit.attacks.reconstruction.common import photographs, seen


def layers(seed):
    """A convolution and its ReLU."""
    with seeded(seed):
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())


def attacked(smashed_of, private, effort):
    view = seen(smashed_of, private, private, architecture=layers)
    return UnSplit().run(view, 5, effort).values


def test_finds_structure_without_weights():
    private = photographs(16)[:8]
    weights = layers(1).requires_grad_(False)
    found, floors = metrics.score(attacked(weights, private, Effort(0.01)), private), metrics.floors(private, private)
    assert found["ssim"] > floors["own_mean"]["ssim"] + 0.03
    assert found["mse"] < floors["constant_mean"]["mse"]


def test_finds_nothing_where_nothing_is_sent():
    class Silent(nn.Module):
        def forward(self, images):
            return torch.full((len(images), 8, 16, 16), 0.3)

    private = photographs(16)[:8]
    found = metrics.score(attacked(Silent(), private, Effort(0.002)), private)
    floors = metrics.floors(private, private)
    assert found["mse"] > 0.95 * floors["constant_mean"]["mse"]
    assert found["ssim"] < floors["own_mean"]["ssim"] + 0.05


def test_uses_no_weights_and_no_images_of_its_own():
    assert UnSplit.needs == {"smashed", "architecture"}
