import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from mocosfl_mpi.data.images import Images
from mocosfl_mpi.evaluation.fine_tuning import fine_tune
from mocosfl_mpi.streams import Streams


def pictures(n, seed, shuffled=False):
    """Random images whose class is the quadrant that is bright."""
    random = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % 4
    pixels = random.integers(0, 120, (n, 1, 8, 8), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 100
    return Images(pixels, random.permutation(labels) if shuffled else labels)


def prepare(pixels):
    return pixels.double() / 255.0 - 0.3


@pytest.fixture
def encoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 8, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(32, 8)).double()


def tuned(encoder, train, test, epochs=15, rate=0.1, seed=1):
    return fine_tune(encoder, train, test, 4, prepare, epochs, rate, Streams(seed))


def test_what_can_be_learnt_is_learnt_by_the_whole_encoder(encoder):
    before = copy.deepcopy(encoder)
    assert tuned(encoder, pictures(200, 0), pictures(80, 1)) == 100.0
    for old, new in zip(before.parameters(), encoder.parameters(), strict=True):
        assert not torch.equal(old, new)


def test_from_shuffled_labels_nothing_is_learnt(encoder):
    accuracy = tuned(encoder, pictures(200, 0, shuffled=True), pictures(800, 1))
    assert 10.0 < accuracy < 40.0


def test_the_first_step_moves_the_head_alone(encoder):
    before = [p.detach().clone() for p in encoder.parameters()]
    tuned(encoder, pictures(64, 0), pictures(8, 1), epochs=1)
    decay = 1.0 - 0.1 * 5e-4  # all that happens to weights without a gradient
    for old, new in zip(before, encoder.parameters(), strict=True):
        assert torch.allclose(decay * old, new, rtol=1e-12)


def test_it_repeats_and_touches_no_global_generator(encoder):
    """One step more than the first: the order in which images come matters."""
    train, test = pictures(130, 0), pictures(200, 1)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    states = []
    for seed in (1, 1, 2):
        own = copy.deepcopy(encoder)
        tuned(own, train, test, epochs=2, seed=seed)
        states.append(torch.cat([p.detach().flatten() for p in own.parameters()]))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_divergence_is_no_accuracy(encoder):
    assert math.isnan(tuned(encoder, pictures(200, 0), pictures(20, 1), rate=1e12))
