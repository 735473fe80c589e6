"""Encoders know what they have seen too often, and untrained ones know nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mocosfl_mpi.attacks.attack import Effort, NotApplicable
from mocosfl_mpi.attacks.inference.consistency import similarities
from mocosfl_mpi.attacks.inference.shadow import train
from mocosfl_mpi.attacks.registry import ATTACKS
from mocosfl_mpi.attacks.scenes.membership import Membership
from tests.unit.attacks.victims import victim


def overfitted(steps, seed=0):
    """A scene of 32 members and as many others, its encoder trained for ``steps`` on the members."""
    found = victim()
    order = found.streams.generator("split", seed).permutation(len(found.source.train))
    members, others = (found.source.train.take(part) for part in (order[:32], order[32:64]))
    scene = Membership(found, members=members, others=others, own=64)
    encoder = train(found.fresh(seed + 1), scene.view, torch.from_numpy(members.pixels), seed, steps)
    scene.view = replace(scene.view, encoder=encoder)
    return scene


def area(scene, attack="encodermi_t", effort=1.0):
    return scene.score(ATTACKS[attack].run(scene.view, 0, Effort(effort)))["auc"]


def test_an_untrained_encoder_tells_nothing():
    areas = [area(Membership(victim(trained=False), count=100, own=20, seed=seed)) for seed in range(3)]
    assert np.mean(areas) == pytest.approx(0.5, abs=3 * 0.041 / 3**0.5)


def test_an_overfitted_encoder_tells_its_members():
    before, after = overfitted(1), overfitted(250)
    assert after.score(ATTACKS["encodermi_t"].run(after.view, 0, Effort()))["auc"] > 0.6
    assert area(after) > area(before)


@pytest.mark.slow
def test_the_longer_it_learnt_the_better_it_tells():
    areas = {steps: np.mean([area(overfitted(steps, seed)) for seed in range(3)]) for steps in (1, 250, 1000)}
    assert areas[1] == pytest.approx(0.5, abs=0.12)
    assert areas[1] < areas[250] < areas[1000]
    assert areas[1000] > 0.7


def test_a_classifier_that_has_seen_a_shadow():
    scene = overfitted(250)
    guess = ATTACKS["encodermi_v"].run(scene.view, 0, Effort(0.1))
    assert guess.notes["shadow_accuracy"] > 0.5
    assert scene.score(guess)["auc"] > 0.55


def test_who_is_a_member_can_be_said():
    found = victim()
    subset = found.source.train.take(np.arange(10))
    scene = Membership(found, members=subset, own=20)
    assert (len(scene.truth), int(scene.truth.sum())) == (20, 10)
    asked = scene.view.candidates[scene.truth].numpy()
    assert {image.tobytes() for image in asked} == {image.tobytes() for image in subset.pixels}
    own = {image.tobytes() for image in scene.view.own_raw.numpy()}
    assert not own & {image.tobytes() for image in scene.view.candidates[~scene.truth].numpy()}


def test_members_are_those_that_were_drawn():
    found = victim("epochs=1", "steps_per_epoch=1")
    scene = Membership(found, count=1000, own=10)
    drawn = found.source.train.pixels[found.exposures > 0]
    assert {i.tobytes() for i in scene.view.candidates[scene.truth].numpy()} <= {i.tobytes() for i in drawn}
    assert int(scene.truth.sum()) == len(drawn) < len(found.source.train)


def test_similarities_are_cosines_of_all_pairs():
    def first_pixels(pixels):
        return pixels.flatten(1)[:, :5]

    scene = Membership(victim(), count=3, own=10)
    found = similarities(
        first_pixels, lambda raw, count, seed: victim().augment(raw, count, 0), scene.view.candidates, 1
    )
    views = victim().augment(scene.view.candidates, 10, 0)[2].flatten(1)[:, :5]
    cosines = torch.cosine_similarity(views[:, None], views[None], dim=2)[~torch.eye(10, dtype=torch.bool)]
    torch.testing.assert_close(found[2], cosines.sort(descending=True).values[::2], atol=1e-6, rtol=1e-5)


def test_a_shadow_cannot_stand_for_an_encoder_that_learnt_from_labels():
    scene = Membership(victim("method=sfl_v2"), count=10, own=20)
    assert 0.0 <= area(scene) <= 1.0
    with pytest.raises(NotApplicable, match="learns without labels"):
        ATTACKS["encodermi_v"].run(scene.view, 0, Effort(0.01))


def test_whole_networks_have_an_encoder_too():
    assert 0.0 <= area(Membership(victim("method=fl_byol"), count=10, own=20)) <= 1.0
