"""Gradients of rows tell labels to who must not have them; elsewhere the answer is a reason."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mocosfl_mpi.attacks.attack import Effort, NotApplicable
from mocosfl_mpi.attacks.jobs import Orders, plan
from mocosfl_mpi.attacks.ranking import separation
from mocosfl_mpi.attacks.registry import ATTACKS
from mocosfl_mpi.attacks.scenes import labels as scenes
from mocosfl_mpi.attacks.scenes.labels import Labels
from mocosfl_mpi.attacks.stage import scene_of
from mocosfl_mpi.attacks.view import View, unguarded
from tests.unit.attacks.victims import victim

NORM, DIRECTION = ATTACKS["gradient_norm"], ATTACKS["gradient_direction"]


def unbalanced(classes=2, share=0.1, steps=300):
    """Gradients at the cut of 400 rows, a tenth positive, after some learning; which rows are."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    inside = torch.rand(400, generator=generator) < share
    rows = torch.randn(400, 20, generator=generator) + 0.7 * inside[:, None]
    trunk = nn.Linear(20, classes)
    optimiser = torch.optim.SGD(trunk.parameters(), lr=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(trunk(rows), inside.long()).backward()
        optimiser.step()
    smashed = rows.clone().requires_grad_()
    (gradients,) = torch.autograd.grad(F.cross_entropy(trunk(smashed), inside.long(), reduction="sum"), smashed)
    return gradients, inside


def test_a_rare_class_has_long_gradients_that_point_one_way():
    gradients, inside = unbalanced()
    view = View("wire", (0.0,), (1.0,), (1, 2, 2), torch.zeros(1), answers=gradients, hints=inside.nonzero()[:3, 0])
    norm = separation(NORM.run(view, 0, Effort()).values, inside)["auc"]
    direction = separation(DIRECTION.run(view, 0, Effort()).values, inside)["auc"]
    assert norm > 0.75
    assert direction > 0.99
    shuffled = inside[torch.randperm(400, generator=torch.Generator().manual_seed(1))]
    assert separation(NORM.run(view, 0, Effort()).values, shuffled)["auc"] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("settings", "role"),
    [
        (("method=split_u_shaped", "epochs=4"), "main_server"),
        (("method=split_u_shaped", "epochs=4"), "wire"),
        (("method=split_vertical", "client.count=4", "client.sampling_ratio=1.0"), "client"),
        (("method=sfl_v2",), "wire"),
        (("method=split_vanilla",), "wire"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_directions_tell_a_class_of_ten(settings, role):
    scene = Labels(victim(*settings), role, count=240)
    guess = DIRECTION.run(scene.view, 0, Effort())
    found = scene.score(guess)
    assert found["auc"] > 0.75
    assert found["positives"] + found["negatives"] == 240 - len(scene.view.hints)
    assert 0.0 <= scene.score(NORM.run(scene.view, 0, Effort()))["auc"] <= 1.0
    blind = replace(
        scene.view, answers=torch.randn(scene.view.answers.shape, generator=torch.Generator().manual_seed(0))
    )
    assert scene.score(DIRECTION.run(blind, 0, Effort()))["auc"] == pytest.approx(0.5, abs=0.25)


@pytest.mark.parametrize(
    ("settings", "role", "reason"),
    [
        (("method=mocosfl",), "main_server", "no labels: mocosfl learns without"),
        (("method=fl_byol",), "fed_server", "no labels"),
        (("method=fedavg",), "fed_server", "no gradient of a single row travels in fedavg"),
        (("method=sfl_v2",), "main_server", "is given the labels"),
        (("method=sfl_v2",), "client", "gets gradients of its own images alone"),
        (("method=split_u_shaped", "epochs=4"), "fed_server", "sees no gradient of a single row"),
    ],
    ids=str,
)
def test_where_there_is_nothing_to_infer_the_reason_is_the_result(settings, role, reason):
    with pytest.raises(NotApplicable, match=reason):
        Labels(victim(*settings), role)


def test_who_holds_the_labels_infers_none():
    held = ("method=split_vertical", "client.count=2", "client.sampling_ratio=1.0", "client.holds_labels=true")
    with pytest.raises(NotApplicable, match="holds the labels"):
        Labels(victim(*held), "client", client=0)
    assert Labels(victim(*held), "client", client=1).view.answers is not None


def seen_by_the_server(monkeypatch, *settings, client=0, count=200):
    """Smashed rows and labels that the server of a run with ``settings`` got in the scene."""
    got = []
    true = scenes.at_cut

    def at_cut(found, smashed, labels):
        got.append((smashed, labels))
        return true(found, smashed, labels)

    monkeypatch.setattr(scenes, "at_cut", at_cut)
    scene = Labels(victim(*settings), "wire", client, count=count)
    return scene, *got[0]


def test_what_is_learnt_from_is_defended_and_comes_back_compressed(monkeypatch):
    scene, smashed, _ = seen_by_the_server(monkeypatch, "method=sfl_v2", "defence.clip=0.5")
    assert smashed.flatten(1).norm(dim=1).max() < 0.5001
    assert len(scene.view.answers) == 200
    _, bare, _ = seen_by_the_server(monkeypatch, "method=sfl_v2")
    assert bare.flatten(1).norm(dim=1).min() > 0.5001


def test_the_rows_are_first_of_all_those_of_the_client(monkeypatch):
    found = victim("method=sfl_v2")
    mine = found.source.parts[3]
    job = plan(Orders(("gradient_norm",), seeds=1, client=3), ATTACKS, defended=False)[0]
    assert scene_of(ATTACKS["gradient_norm"], found, job, unguarded).client == 3
    _, _, labels = seen_by_the_server(monkeypatch, "method=sfl_v2", client=3, count=len(mine) + 200)
    assert sorted(labels[: len(mine)].tolist()) == sorted(found.source.train.labels[mine].tolist())
