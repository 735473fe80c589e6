"""What is known of reconstruction on networks with random weights: order of cuts, bottlenecks, defences."""

import pytest
import torch

from mocosfl_mpi.attacks import metrics
from mocosfl_mpi.attacks.attack import Effort
from mocosfl_mpi.attacks.reconstruction.decoder import Decoder
from mocosfl_mpi.attacks.reconstruction.optimisation import WhiteBox
from mocosfl_mpi.attacks.reconstruction.ridge import Ridge
from tests.unit.attacks.reconstruction.common import client, photographs, seen

STAGES = {1: (1, 2, 3, 4, 5), 2: (6, 7), 3: (8, 9)}


def ridge(cut, *, width, seed=0, bottleneck=""):
    """MSE of 64 photographs, with 64 for the adversary."""
    own, private = photographs(32)[:64], photographs(32)[64:128]
    view = seen(client(cut, size=32, width=width, seed=seed, bottleneck=bottleneck), private, own)
    return metrics.score(Ridge().run(view, seed, Effort()).values, private)["mse"]


def test_deeper_stages_are_harder_for_ridge():
    """Of a narrow network, one cut of each stage."""
    errors = [ridge(cut, width=8) for cut in (4, 6, 9)]
    assert errors == sorted(errors)
    assert errors[2] > 1.2 * errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_the_order_of_stages(seed):
    """ResNet-18 of the published width: {1..5} < {6, 7} < {8, 9}. Within a stage there is no order."""
    errors = {stage: [ridge(cut, width=64, seed=seed) for cut in cuts] for stage, cuts in STAGES.items()}
    means = [sum(found) / len(found) for found in errors.values()]
    assert means == sorted(means)
    assert max(errors[1]) < min(errors[2])
    assert 0.02 < means[0] < 0.035
    assert 0.04 < means[1] < 0.055


def test_a_bottleneck_costs_the_attacker():
    assert ridge(4, width=16) < ridge(4, width=16, bottleneck="C4S2")


def noise(scale):
    return lambda z, g, x: z + scale * torch.randn(z.shape, generator=g)


def dropout(rate):
    return lambda z, g, x: z * (torch.rand(z.shape, generator=g) >= rate)


def largest(share):
    def guard(z, g, x):
        rows = z.flatten(1)
        least = rows.abs().topk(int(share * rows.shape[1]), dim=1).values[:, -1:]
        return (rows * (rows.abs() >= least)).view_as(z)

    return guard


def defended(attack, guard, *, adaptive, effort):
    own, private = photographs(16)[:300], photographs(16)[300:332]
    view = seen(client(1, size=16), private, own, guard=guard, adaptive=adaptive)
    return metrics.score(attack.run(view, 0, Effort(effort)).values, private)["mse"]


@pytest.mark.parametrize("guard", [noise(2.0), dropout(0.7), largest(0.1)], ids=["noise", "dropout", "largest"])
def test_an_attacker_who_knows_the_defence_is_better(guard):
    decoder = Decoder("conv", 0, 16)
    assert defended(decoder, guard, adaptive=True, effort=0.06) < defended(decoder, guard, adaptive=False, effort=0.06)


@pytest.mark.parametrize("adaptive", [True, False])
def test_noise_costs_the_attacker(adaptive):
    errors = [defended(Ridge(), noise(scale), adaptive=adaptive, effort=1.0) for scale in (0.0, 0.5, 2.0, 8.0)]
    assert errors == sorted(errors)


def test_behind_a_bottleneck_optimisation_matches_features_and_not_pixels():
    own, private = photographs(16, 4)[:16], photographs(16, 4)[16:32]
    found = {}
    for bottleneck in ("", "C4S2noRELU", "C4S2"):
        view = seen(client(1, size=16, width=16, bottleneck=bottleneck), private, own)
        guess = WhiteBox().run(view, 0, Effort(0.06))
        found[bottleneck] = metrics.score(guess.values, private)["mse"], guess.notes["feature_error"]
    oracle = metrics.floors(own, private)["own_mean"]["mse"]
    assert found[""][0] < 0.5 * oracle
    assert found["C4S2noRELU"][1] < 0.01
    assert min(found["C4S2noRELU"][0], found["C4S2"][0]) >= oracle
