"""The scene of the shared memory is sound; what can be learnt from it is for a report."""

import pytest
import torch

from mocosfl_mpi.attacks.attack import Effort, NotApplicable
from mocosfl_mpi.attacks.registry import ATTACKS
from mocosfl_mpi.attacks.scenes.probing import Probing
from tests.unit.attacks.victims import victim

PROBING = ATTACKS["memory_probing"]
TINY = ("contrast.memory_length=8",)


def area(**how):
    scene = Probing(victim(*TINY, trained=False), probes=2, **how)
    return scene.score(PROBING.run(scene.view, 0, Effort()))["auc"], scene


def test_the_very_view_in_a_memory_of_few_keys_is_noticed():
    areas = [area(exact=True, seed=seed)[0] for seed in range(4)]
    assert sum(areas) / 4 > 0.5


def test_a_memory_of_noise_tells_nothing():
    scenes = [Probing(victim(trained=False), probes=1, unrelated=True, count=60, seed=seed) for seed in range(4)]
    areas = [scene.score(PROBING.run(scene.view, 0, Effort()))["auc"] for scene in scenes]
    assert sum(areas) / 4 == pytest.approx(0.5, abs=3 * 0.053 / 2)


def test_nobody_plants_for_what_it_owns_itself():
    _, scene = area(count=4)
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
