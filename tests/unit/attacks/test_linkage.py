"""Who sends a view of an image sends the image's name."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mocosfl_mpi.attacks.attack import Effort, NotApplicable
from mocosfl_mpi.attacks.registry import ATTACKS
from mocosfl_mpi.attacks.scenes.linkage import Linkage
from tests.unit.attacks.victims import victim

LINKAGE = ATTACKS["linkage"]


@pytest.fixture(scope="module")
def scene():
    return Linkage(victim(), "server", client=3, candidates=64, own=20)


def test_views_are_linked_and_an_image_that_is_sent_as_it_is_more_so(scene):
    chance = scene.floors()["chance"]
    assert chance == {"top1": 1 / 64, "top10": 10 / 64, "mrr": pytest.approx(sum(1 / n for n in range(1, 65)) / 64)}
    linked = scene.score(LINKAGE.run(scene.view, 0, Effort(0.5)))
    assert linked["top1"] > 15 * chance["top1"]
    assert linked["top1"] <= linked["top10"]
    assert scene.floors()["raw_pixels"]["top1"] > 15 * chance["top1"]
    plain = Linkage(victim(), "server", client=3, candidates=64, own=20, augmented=False)
    assert plain.score(LINKAGE.run(plain.view, 0, Effort(0.5)))["top10"] >= linked["top10"] - 0.1


def test_nothing_is_linked_when_what_was_sent_says_nothing(scene):
    noise = torch.randn(scene.view.smashed.shape, generator=torch.Generator().manual_seed(0))
    guess = LINKAGE.run(replace(scene.view, smashed=noise), 0, Effort(0.2))
    assert scene.score(guess)["mrr"] < 3 * scene.floors()["chance"]["mrr"]


def test_the_client_s_images_are_among_the_candidates_in_places_that_tell_nothing(scene):
    own = victim().source.train.pixels[victim().source.parts[3]]
    assert len(scene.truth) == len(own)
    there = scene.view.candidates[scene.truth].numpy()
    assert {image.tobytes() for image in there} == {image.tobytes() for image in own}
    assert scene.truth.tolist() != list(range(len(own)))


def test_a_guard_is_on_what_is_sent(scene):
    def silent(smashed, generator, images):
        return torch.zeros_like(smashed)

    mute = Linkage(victim(), "server", client=3, candidates=64, own=20, guard=silent)
    assert not mute.view.smashed.any()
    guess = LINKAGE.run(mute.view, 0, Effort(0.1))
    assert np.isclose(mute.score(guess)["top1"], 0.0), "who is level with everybody is not first"


def test_the_same_seed_gives_the_same_scores(scene):
    again = Linkage(victim(), "server", client=3, candidates=64, own=20)
    first, second = (LINKAGE.run(s.view, 5, Effort(0.1)).values for s in (scene, again))
    assert torch.equal(first, second)
    other = Linkage(victim(), "server", client=3, candidates=64, own=20, seed=1)
    assert not torch.equal(other.view.smashed, scene.view.smashed)


def test_whole_networks_send_nothing_to_be_linked():
    with pytest.raises(NotApplicable, match="fl_moco send no smashed data"):
        Linkage(victim("method=fl_moco"), "server")
