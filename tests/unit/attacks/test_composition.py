"""What a client sends tells which classes it has; noise hides it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mocosfl_mpi.attacks.attack import Effort, Guess, NotApplicable
from mocosfl_mpi.attacks.jobs import Orders, plan
from mocosfl_mpi.attacks.registry import ATTACKS
from mocosfl_mpi.attacks.scenes.composition import Composition
from mocosfl_mpi.attacks.stage import scene_of
from mocosfl_mpi.attacks.view import unguarded
from tests.unit.attacks.victims import victim

SETTINGS = ("partition.kind=classes", "partition.classes_per_client=2", "data.train_images=600", "data.test_images=800")
HALF = Effort(0.5)


@pytest.fixture(scope="module")
def scene():
    return Composition(victim(*SETTINGS), "server", clients=12, images=40, own=400)


def test_the_two_classes_of_a_client_are_named(scene):
    floors = scene.floors()
    assert floors["chance"]["top2"] == 0.2
    found = scene.score(ATTACKS["composition"].run(scene.view, 0, HALF))
    assert found["top2"] > 0.6
    assert found["distance"] < floors["mean_client"]["distance"]


def test_behind_the_trunk_too(scene):
    assert scene.score(ATTACKS["composition_features"].run(scene.view, 0, HALF))["top2"] > 0.3


def test_noise_takes_it_away(scene):
    generator = torch.Generator().manual_seed(0)
    noisy = scene.view.smashed + 50.0 * torch.randn(scene.view.smashed.shape, generator=generator)
    found = scene.score(ATTACKS["composition"].run(replace(scene.view, smashed=noisy), 0, HALF))
    assert found["top2"] < 0.5


def test_the_truth_scores_best_and_other_clients_truth_does_not(scene):
    assert scene.score(Guess(scene.truth, {})) == {"top2": 1.0, "distance": 0.0}
    assert torch.equal(scene.truth.sum(dim=1), torch.ones(12, dtype=torch.float64))
    assert scene.score(Guess(scene.truth.roll(1, dims=0), {}))["top2"] < 0.6


def test_rows_stand_with_their_senders(scene):
    assert len(scene.view.senders) == len(scene.view.smashed)
    assert scene.view.senders.unique().tolist() == list(range(12))


def test_whole_networks_send_no_rows():
    with pytest.raises(NotApplicable, match="fl_byol"):
        Composition(victim("method=fl_byol"), "server")


def test_a_blind_guess_is_the_classes_that_the_adversary_has_most_of():
    scene = Composition(victim(*SETTINGS), "server", clients=4, images=2, own=40)
    common = scene.truth[0].topk(2).indices
    scene.view = replace(scene.view, own_labels=common.repeat_interleave(torch.tensor([3, 2])))
    prior = torch.zeros_like(scene.truth)
    prior[:, common[0]], prior[:, common[1]] = 0.6, 0.4
    floors = scene.floors()
    assert floors["class_prior"] == scene.score(Guess(prior, {}))
    assert floors["class_prior"]["top2"] > floors["chance"]["top2"]


@pytest.mark.parametrize("missing", [0, 9])
def test_a_class_that_the_adversary_has_no_image_of_is_never_named(scene, missing):
    there = scene.view.own_labels != missing
    view = replace(scene.view, own_raw=scene.view.own_raw[there], own_labels=scene.view.own_labels[there])
    guess = ATTACKS["composition"].run(view, 0, Effort(0.1))
    assert guess.values.shape == scene.truth.shape
    assert not guess.values[:, missing].any()
    assert scene.score(guess)["distance"] < 1.0


def test_the_client_that_is_named_is_among_those_who_are_asked_about():
    found = victim(*SETTINGS)
    job = plan(Orders(("composition",), seeds=1, client=7, images=2), ATTACKS, defended=False)[0]
    scene = scene_of(ATTACKS["composition"], found, job, unguarded)
    labels = found.source.train.labels[found.source.parts[7]]
    own = torch.from_numpy(np.bincount(labels, minlength=10) / len(labels))
    alone = Composition(found, "server", client=7, clients=1, images=2, own=40)
    assert torch.equal(alone.truth, own[None])
    assert scene.client == 7
    assert any(torch.equal(row, own) for row in scene.truth)
