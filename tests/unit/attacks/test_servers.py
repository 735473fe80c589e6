"""Scenes of a server that attacks, on a small run's networks before their first step."""

import numpy as np
import pytest
import torch

from mocosfl_mpi.attacks.attack import Effort
from mocosfl_mpi.attacks.published import COUNT, OWN, PublishedDecoder, PublishedProtocol, jpeg
from mocosfl_mpi.attacks.reconstruction.hijacking import Hijacking
from mocosfl_mpi.attacks.reconstruction.unsplit import UnSplit
from mocosfl_mpi.attacks.scenes import Reconstruction, pixels_of
from mocosfl_mpi.attacks.steered import Steered
from mocosfl_mpi.attacks.victim import Victim
from mocosfl_mpi.config import apply_settings, parse
from mocosfl_mpi.presets import load
from mocosfl_mpi.simulation import Conduct, Simulation

SETTINGS = (
    "views.size=16", "evaluation.every=0", "evaluation.linear_probe=false", "compute.precision=fp32",
    "compute.backend=stacked",
)  # fmt: skip


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    config = parse(apply_settings(load("smoke")[1], SETTINGS), "test")
    Simulation.begin(config, Conduct("smoke", out, quiet=True)).run()
    return Victim(out, None, trained=False)


def test_a_stranger_has_other_weights_than_the_victim_began_with(victim):
    """An attacker whose seed is the run's would otherwise hold the client's weights without having seen them."""
    mine = victim.architecture(victim.config.seed).state_dict()
    theirs = victim.client(0).online.state_dict()
    assert mine.keys() == theirs.keys()
    assert not any(torch.equal(mine[name], theirs[name]) for name in mine if theirs[name].unique().numel() > 1)
    assert torch.equal(victim.architecture(3).state_dict()["stem.conv.weight"], victim.architecture(3).stem.conv.weight)


def test_a_steering_server_sees_smashed_data_and_nothing_else_of_the_client(victim):
    scene = Steered(victim, count=8, own=20, batch=4)
    assert scene.view.weights is None
    assert scene.view.smashed is None
    assert len(scene.truth) == 8
    assert scene.view.steering.send().shape[0] == 4
    assert scene.view.steering.look().shape[0] == 8
    seen = Reconstruction(victim, "server", count=8, own=20)
    torch.testing.assert_close(scene.view.steering.look(), seen.view.smashed)
    assert torch.equal(scene.truth, seen.truth)
    assert torch.equal(scene.view.own, seen.view.own)


def test_who_is_frozen_in_the_run_is_frozen_in_the_scene(victim):
    scenes = [Steered(victim, count=8, own=20, batch=4, frozen=frozen) for frozen in (None, True)]
    guesses = [Hijacking(4, "conv_normN0C4").run(scene.view, 0, Effort(3e-4)).values for scene in scenes]
    assert [scene.view.steering.frozen for scene in scenes] == [False, True]
    assert not torch.equal(*guesses)
    assert scenes[0].score(type("G", (), {"values": guesses[0]}))["mse"] > 0


def test_unsplit_sees_architecture_alone(victim):
    scene = Reconstruction(victim, "main_server", count=4, own=20)
    assert scene.view.weights is None
    assert UnSplit().run(scene.view, 0, Effort(0.001)).values.shape == scene.truth.shape


def test_the_published_protocol(victim):
    scene = PublishedProtocol(victim)
    assert len(scene.view.own) == min(OWN, len(victim.source.train))
    assert len(scene.truth) == len(scene.view.smashed) == min(COUNT, len(victim.source.data.test))
    shown = pixels_of(victim.source.data.test.take(np.arange(len(scene.truth))), victim.size)
    assert torch.equal(scene.truth, jpeg(shown))
    guess = PublishedDecoder("conv_normN0C4").run(scene.view, 0, Effort(0.02))
    assert guess.values.shape == scene.truth.shape
    floors = scene.floors()
    assert floors["own_mean"]["mse"] < floors["constant_mean"]["mse"]
    assert 0 < scene.score(guess)["mse"] < 1
