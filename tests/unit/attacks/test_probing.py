"""The scene of the shared memory is sound; what can be learnt from it is for a report."""

from dataclasses import replace

import pytest
import torch

from mocosfl_mpi.attacks.attack import Effort, NotApplicable
from mocosfl_mpi.attacks.ranking import separation
from mocosfl_mpi.attacks.registry import ATTACKS
from mocosfl_mpi.attacks.scenes import probing as scenes
from mocosfl_mpi.attacks.scenes.probing import Probing
from mocosfl_mpi.attacks.steps import keys_of
from tests.unit.attacks.victims import victim

PROBING = ATTACKS["memory_probing"]
TINY = ("contrast.memory_length=8",)


def tiny(**how):
    return Probing(victim(*TINY, trained=False), **how)


def nearest(scene):
    """What only somebody who sees the memory knows: how close the queries come to its nearest key ``[m]``."""
    found = scene.victim
    client = found.client(0)
    rows = scene.view.normalise(scene.planted.flatten(0, 1))
    units = keys_of(found, client.online(rows))  # untrained: online and momentum models are one
    return (units @ scene.memory.T).amax(dim=1).view(len(scene.truth), -1)


def test_the_memory_holds_what_the_truth_says():
    scene = tiny(exact=True, probes=2)
    close = nearest(scene)
    assert len(scene.memory) == 8
    torch.testing.assert_close(close[scene.truth], torch.ones(6, 2), atol=1e-5, rtol=0.0)
    assert close[~scene.truth].max() < close[scene.truth].min()


def test_what_comes_back_depends_on_the_memory():
    exact, noise = tiny(exact=True, probes=2), tiny(exact=True, probes=2, unrelated=True)
    assert torch.equal(exact.planted, noise.planted)
    one, other = exact.view.received.flatten(2), noise.view.received.flatten(2)
    assert ((one - other).norm(dim=2) > 0.1 * other.norm(dim=2)).all()


def test_a_memory_of_noise_tells_nothing():
    scenes = [Probing(victim(trained=False), probes=1, unrelated=True, count=60, seed=seed) for seed in range(4)]
    areas = [scene.score(PROBING.run(scene.view, 0, Effort()))["auc"] for scene in scenes]
    assert sum(areas) / 4 == pytest.approx(0.5, abs=3 * 0.053 / 2)


def test_nobody_plants_for_what_it_owns_itself():
    scene = tiny(count=4, probes=2)
    own = {image.tobytes() for image in victim(*TINY).source.train.pixels[victim(*TINY).source.parts[0]]}
    asked = [image.tobytes() for image in scene.view.candidates.numpy()]
    assert not own & set(asked)
    assert scene.truth.tolist() == [True] * 4 + [False] * 4
    assert torch.isfinite(scene.view.received).all()
    assert scene.view.received.shape[:2] == (8, 2)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (("method=fl_moco",), "no feature memory that clients share"),
        (("method=sfl_v2",), "no feature memory that clients share"),
        (("contrast.share_features=false",), "a feature memory of its own"),
        (("client.frozen=true",), "no gradient comes back"),
    ],
    ids=str,
)
def test_where_it_cannot_be_mounted(settings, reason):
    with pytest.raises(NotApplicable, match=reason):
        Probing(victim(*settings, trained=False))


@pytest.mark.parametrize("way", [1.0, -1.0])
def test_its_own_images_tell_the_adversary_which_way_the_memory_works(way):
    generator = torch.Generator().manual_seed(0)
    inside = torch.arange(60) < 30
    lengths = 3.0 + way * inside + 0.2 * torch.randn(60, generator=generator)
    gradients = lengths[:, None, None, None, None].expand(60, 2, 1, 1, 1)
    view = replace(
        tiny(count=4, probes=2).view, received=gradients, rehearsed=gradients[20:40], rehearsal=inside[20:40]
    )
    assert separation(PROBING.run(view, 0, Effort()).values, inside)["auc"] > 0.95


def test_the_rehearsal_is_of_the_adversary_s_own_images_and_they_are_in_the_memory(monkeypatch):
    planted, true = [], scenes.Probing._received

    def received(scene, probes, memory):
        planted.append(probes)
        return true(scene, probes, memory)

    monkeypatch.setattr(scenes.Probing, "_received", received)
    scene = tiny(count=4, probes=2)
    own, _ = sorted(planted, key=len)
    assert len(own) == len(scene.view.rehearsal) == len(scene.view.rehearsed) == 4
    assert scene.view.rehearsal.tolist() == [True, True, False, False]
    assert not torch.equal(scene.memory, tiny(count=4, probes=2, client=1).memory)


def test_what_others_have_sent_into_the_memory_was_defended(monkeypatch):
    largest, true = [], scenes.keys_of

    def keys_of(found, smashed):
        largest.append(float(smashed.flatten(1).norm(dim=1).max()))
        return true(found, smashed)

    monkeypatch.setattr(scenes, "keys_of", keys_of)
    Probing(victim(*TINY, "defence.clip=0.5", trained=False), count=4, probes=1)
    assert max(largest) < 0.5001
