import torch
from torch import nn

from mocosfl_mpi.attacks import metrics
from mocosfl_mpi.attacks.attack import Effort
from mocosfl_mpi.attacks.reconstruction.optimisation import WhiteBox, total_variation
from tests.unit.attacks.reconstruction.common import client, photographs, seen
from tests.unit.attacks.reconstruction.test_decoder import Constant

FEW = Effort(0.04)
"""200 steps."""


def test_finds_what_was_sent_of_an_undefended_shallow_cut():
    own, private = photographs(16, 4)[:16], photographs(16, 4)[16:32]
    guess = WhiteBox().run(seen(client(1, size=16, width=16), private, own), 0, FEW)
    score, floors = metrics.score(guess.values, private), metrics.floors(own, private)
    assert score["ssim"] > floors["own_mean"]["ssim"] + 0.1
    assert score["mse"] < floors["own_mean"]["mse"]
    assert guess.notes["feature_error"] < 0.02


def test_reads_images_that_are_sent_as_they_are():
    private = photographs(16)[8:16]
    guess = WhiteBox(smoothness=0.0).run(seen(nn.Identity(), private, private), 0, FEW)
    assert metrics.score(guess.values, private)["mse"] < 1e-3


def test_a_small_feature_error_is_no_picture():
    """A client that sends the same of every image has been matched exactly, and nothing is known."""
    own, private = photographs(16)[:64], photographs(16)[64:80]
    guess = WhiteBox().run(seen(Constant(), private, own), 0, FEW)
    assert guess.notes["feature_error"] < 1e-6
    assert metrics.score(guess.values, private)["mse"] > metrics.floors(own, private)["own_mean"]["mse"]


def test_an_adaptive_attacker_knows_what_dropout_takes_away():
    """Half of the numbers are zero: who believes them darkens the picture by half."""

    def guard(smashed, generator):
        return smashed * (torch.rand(smashed.shape, generator=generator) < 0.5)

    private = photographs(16)[:16]
    errors = []
    for adaptive in (True, False):
        view = seen(nn.Identity(), private, private, guard=guard, adaptive=adaptive)
        errors.append(metrics.score(WhiteBox(smoothness=4.0).run(view, 0, FEW).values, private)["mse"])
    assert errors[0] < errors[1]


def test_images_are_attacked_independently():
    private = photographs(16)[:4]
    weights = client(1, size=16)
    both = WhiteBox().run(seen(weights, private, private), 0, Effort(0.002)).values
    alone = WhiteBox().run(seen(weights, private[:1], private), 0, Effort(0.002)).values
    torch.testing.assert_close(both[:1], alone)


def test_total_variation():
    """Columns 0, 1, 0, 1: every difference to the right is 1, none below."""
    stripes = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(1, 1, 4, 4)
    assert total_variation(stripes).tolist() == [1.0]
