import pytest
import torch
from torch import nn

from mocosfl_mpi.attacks import metrics
from mocosfl_mpi.attacks.attack import Effort
from mocosfl_mpi.attacks.reconstruction.decoder import MACS_PER_PIXEL, Decoder, equal_width
from mocosfl_mpi.cost.flops import measure
from mocosfl_mpi.privacy.decoders import decoder
from tests.unit.attacks.reconstruction.common import photographs, seen

SMALL = Decoder("conv", 0, 8)


class Constant(nn.Module):
    """A client that sends the same of every image."""

    def forward(self, images):
        return torch.ones(len(images), 2, 8, 8) + 0.0 * images.mean()  # a graph, for who wants a gradient


def test_reads_images_that_are_sent_as_they_are():
    own, private = photographs(8, 4)[:400], photographs(8, 4)[400:464]
    guess = SMALL.run(seen(nn.Identity(), private, own), 0, Effort(0.5))
    floors = metrics.floors(own, private)
    assert metrics.score(guess.values, private)["mse"] < floors["own_mean"]["mse"]
    assert guess.notes["validation_mse"] < floors["own_mean"]["mse"]


def test_stays_at_the_floor_where_nothing_is_sent():
    own, private = photographs(8, 4)[:200], photographs(8, 4)[200:264]
    floors = metrics.floors(own, private)
    errors = [
        metrics.score(SMALL.run(seen(Constant(), private, own), seed, Effort(0.1)).values, private)["mse"]
        for seed in range(2)
    ]
    assert min(errors) > 0.98 * floors["constant_mean"]["mse"]


def test_a_seed_is_a_result():
    own, private = photographs(8, 4)[:64], photographs(8, 4)[64:72]
    view = seen(nn.Identity(), private, own, guard=lambda z, g, x: z + torch.randn(z.shape, generator=g))
    first, again, other = (SMALL.run(view, seed, Effort(0.02)).values for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_published_numbers_are_scaled_by_the_effort():
    """Fifty epochs, of which a fiftieth is one: two batches of 45 images."""
    own, private = photographs(8, 4)[:50], photographs(8, 4)[50:52]
    drawn = []

    def guard(smashed, generator, images):
        drawn.append(len(smashed))
        return smashed

    view = seen(nn.Identity(), private, own, guard=guard)
    drawn.clear()
    SMALL.run(view, 0, Effort(0.02))
    assert drawn == [5, 32, 13, 5]  # validated, fitted, validated


@pytest.mark.parametrize("shape", [(64, 32, 32), (128, 16, 16), (512, 4, 4)])
def test_equal_cost_at_every_cut(shape):
    width = equal_width("res", 1, shape, (3, 32, 32))
    macs = measure(decoder(f"res_normN1C{width}", shape, (3, 32, 32)), shape).last.macs
    assert macs == pytest.approx(MACS_PER_PIXEL * 32 * 32, rel=0.2)
