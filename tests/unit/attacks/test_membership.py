"""Encoders know what they have seen too often, and untrained ones know nothing."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mocosfl_mpi.attacks.attack import Effort, NotApplicable
from mocosfl_mpi.attacks.inference.consistency import similarities
from mocosfl_mpi.attacks.inference.shadow import train
from mocosfl_mpi.attacks.registry import ATTACKS
from mocosfl_mpi.attacks.scenes.membership import Membership
from mocosfl_mpi.data.images import Images
from mocosfl_mpi.split.cut import SplitNetwork, Trunk
from tests.unit.attacks.victims import victim

FIELDS, MEMBERS = 400, 24


def fields(count, seed):
    """Random smooth images of 16 pixels: each unlike all others, unlike clothes."""
    generator = torch.Generator().manual_seed(seed)
    smooth = F.interpolate(torch.rand(count, 3, 5, 5, generator=generator), size=16, mode="bicubic").clamp(0.0, 1.0)
    return Images((smooth * 255).to(torch.uint8).numpy(), np.zeros(count, dtype=np.int64))


def scene_of_fields(seed):
    """Members and others among random images, with weaker views than a run's."""
    found = copy.copy(victim(trained=False))
    data = replace(found.source.data, train=fields(FIELDS, 0), test=fields(200, 1), mean=(0.5,) * 3, std=(0.25,) * 3)
    found.source = replace(found.source, data=data, train=data.train)
    weaker = {"crop_scale_min": 0.3, "jitter_probability": 0.3, "blur_probability": 0.0, "grey_probability": 0.1}
    views = found.config.views.model_copy(update=weaker)
    found.config = found.config.model_copy(update={"views": views})
    order = found.streams.generator("split", seed).permutation(FIELDS)
    members, others = (data.train.take(part) for part in (order[:MEMBERS], order[MEMBERS : 2 * MEMBERS]))
    return Membership(found, members=members, others=others, own=2 * MEMBERS, seed=seed), torch.from_numpy(
        members.pixels
    )


def three_convolutions(seed):
    """A network that is cut behind its first convolution."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        bottom = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU())
        rest = nn.Sequential(nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU())
        head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32))
    return SplitNetwork(bottom, Trunk(rest, head), (3, 16, 16), (32, 8, 8), 32)


def overfitted(steps, seed):
    """A scene with an encoder that has learnt its few members for ``steps``."""
    scene, members = scene_of_fields(seed)
    encoder = train(three_convolutions(seed), scene.view, members, seed, steps, rate=0.3)
    scene.view = replace(scene.view, encoder=encoder, network=three_convolutions)
    return scene


def area(scene, attack="encodermi_t", effort=1.0):
    return scene.score(ATTACKS[attack].run(scene.view, 0, Effort(effort)))["auc"]


def test_an_untrained_encoder_tells_nothing():
    areas = [area(Membership(victim(trained=False), count=100, own=20, seed=seed)) for seed in range(3)]
    assert np.mean(areas) == pytest.approx(0.5, abs=3 * 0.041 / 3**0.5)


def test_an_encoder_that_recognises_its_members_is_found_out():
    scene, members = scene_of_fields(0)
    colours = F.adaptive_avg_pool2d(members.float() / 255.0, 1).flatten(1)

    def recognise(pixels):
        own = F.adaptive_avg_pool2d(pixels, 1).flatten(1)
        known = torch.exp(-(torch.cdist(own, colours) / 0.05).square())
        return torch.cat([known, 0.1 * torch.sin(1e3 * own)], dim=1)  # and what it does not know is a jumble

    plain = replace(scene.view, encoder=recognise, augment=still)
    assert scene.score(ATTACKS["encodermi_t"].run(plain, 0, Effort()))["auc"] > 0.8


def still(raw, count, seed):
    """Views that differ in a little noise alone."""
    generator = torch.Generator().manual_seed(seed)
    many = (raw.float() / 255.0)[:, None].expand(-1, count, *raw.shape[1:])
    shift = 0.01 * torch.randn(len(raw), count, raw.shape[1], 1, 1, generator=generator)
    return many + shift


@pytest.mark.slow
def test_the_longer_it_learnt_the_better_it_tells():
    areas = {steps: np.mean([area(overfitted(steps, seed)) for seed in range(3)]) for steps in (1, 1000)}
    assert areas[1] == pytest.approx(0.5, abs=0.15)
    assert areas[1000] > max(0.6, areas[1] + 0.05)


@pytest.mark.slow
def test_a_classifier_that_has_seen_a_shadow_tells_too():
    areas = [area(overfitted(1000, seed), "encodermi_v", 0.4) for seed in range(2)]
    assert np.mean(areas) > 0.55


def test_a_shadow_is_trained_on_one_half_of_the_adversary_s_own_images():
    scene = overfitted(1, 0)
    guess = ATTACKS["encodermi_v"].run(scene.view, 0, Effort(0.005))
    assert guess.values.shape == scene.truth.shape
    assert torch.isfinite(guess.values).all()
    assert 0.4 < guess.notes["shadow_accuracy"] <= 1.0


def test_a_shadow_begins_with_weights_of_its_own():
    found = victim()
    view = Membership(found, count=3, own=10).view
    one, same, begun = (
        network.trunk.head[0].weight for network in (view.network(1234), view.network(1234), found.fresh())
    )
    assert found.config.seed == 1234
    assert torch.equal(one, same)
    assert not torch.equal(one, begun)


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
    found = victim("epochs=1", "steps_per_epoch=1", "federation.sync_freq=1")
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


def test_where_all_train_alone_members_are_the_client_s_own():
    found = victim("method=standalone")
    scene = Membership(found, client=2, count=1000, own=10)
    mine = {image.tobytes() for image in found.source.train.pixels[found.source.parts[2]]}
    asked = {image.tobytes() for image in scene.view.candidates[scene.truth].numpy()}
    assert asked
    assert asked <= mine
