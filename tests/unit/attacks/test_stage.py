"""Jobs on their stage: what comes of them is recorded, and what means nothing in a run says why."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from mocosfl_mpi.attacks.attack import Effort
from mocosfl_mpi.attacks.jobs import ADAPTIVE, NAIVE, Orders, plan
from mocosfl_mpi.attacks.registry import ATTACKS
from mocosfl_mpi.attacks.scenes import Reconstruction
from mocosfl_mpi.attacks.stage import Stage
from mocosfl_mpi.record.attack_schema import FLOORS, METRICS, PRINCIPAL
from tests.unit.attacks.victims import victim


def jobs(*names: str, defended: bool = False, **changes: object) -> list:
    return plan(Orders(names, seeds=1, effort=0.02, images=8, **changes), ATTACKS, defended=defended)


@pytest.mark.parametrize("name", ["ridge", "linkage", "composition", "encodermi_t", "memory_probing"])
def test_what_scenes_return_has_its_place_in_the_record(name):
    stage = Stage(victim())
    (job,) = jobs(name, control=False)
    state = torch.random.get_rng_state()
    found = stage.perform(job)
    torch.random.set_rng_state(state)
    assert not found.get("reason")
    outcome = stage.outcome(job, found, "")
    assert PRINCIPAL[outcome.kind] in outcome.scores.keys() <= METRICS.keys()
    assert outcome.floors.keys() <= FLOORS.keys()
    assert any(FLOORS[floor].blind for floor in outcome.floors)
    assert all(values.keys() <= METRICS.keys() for values in outcome.floors.values())
    assert (found["picture"] is not None) == (outcome.kind == "reconstruction")


def test_the_control_is_another_victim_with_the_same_scene():
    stage = Stage(victim())
    trained, control = jobs("ridge")
    assert (trained.trained, control.trained) == (True, False)
    assert stage.control.source is stage.victim.source
    assert stage.perform(trained)["floors"] == stage.perform(control)["floors"]
    assert stage.perform(trained)["scores"] != stage.perform(control)["scores"]
    assert stage.victim.trained


@pytest.mark.parametrize(
    ("settings", "name", "reason"),
    [
        ((), "gradient_norm", "no labels"),
        (("method=fl_moco",), "ridge", "no smashed data travel"),
        (("method=split_vertical",), "ridge", "a piece of the images"),
        (("method=fl_moco",), "fsha", "get no gradient from a main server"),
        ((), "encodermi_t_target", "began with no expert"),
    ],
)
def test_what_means_nothing_in_a_run_says_why(settings, name, reason):
    stage = Stage(victim(*settings, *(("client.count=4",) if "vertical" in str(settings) else ())))
    found = stage.perform(jobs(name)[0])
    assert reason in found["reason"]
    assert "scores" not in found


def test_coded_smashed_data_are_a_defence_that_one_may_know():
    stage = Stage(victim("communication.smashed=topk", "communication.topk=0.1"))
    assert stage.defended
    naive, adaptive = jobs("ridge", defended=True, control=False)
    assert (naive.adaptive, adaptive.adaptive) == (NAIVE, ADAPTIVE)
    error = {job.adaptive: stage.perform(job)["scores"]["mse"] for job in (naive, adaptive)}
    bare = Stage(victim()).perform(dataclasses.replace(naive, adaptive=-1))["scores"]["mse"]
    assert bare < error[ADAPTIVE] < error[NAIVE]


def test_a_decoder_s_cost_is_recorded_and_equal_where_it_is_made_equal():
    stage = Stage(victim())
    costs = {}
    for name in ("ridge", "decoder_conv_n0c16", "linkage"):
        job = jobs(name, control=False)[0]
        costs[name] = stage.outcome(job, stage.perform(job), "").macs
    assert math.isnan(costs["linkage"]), "it has no decoder"
    assert costs["ridge"] > 0
    assert costs["decoder_conv_n0c16"] > 0
    equal = []
    for cut in (1, 5, 7):
        scene = Reconstruction(victim(f"model.cut_layer={cut}", trained=False), "server", count=2, own=20)
        notes = ATTACKS["decoder_res_n1_equal_macs"].run(scene.view, 0, Effort(0.02)).notes
        equal.append(notes["macs"])
    assert max(equal) < 1.3 * min(equal)


def test_a_disk_that_refuses_is_a_failure_and_no_reason(monkeypatch):
    def run(*_):
        raise OSError("no space left on device")

    job = jobs("ridge", control=False)[0]
    monkeypatch.setattr(ATTACKS["ridge"], "run", run, raising=True)
    with pytest.raises(OSError, match="no space left"):
        Stage(victim()).perform(job)
