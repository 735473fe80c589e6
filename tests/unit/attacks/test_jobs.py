"""Plans: which jobs orders ask for, and what is refused before anything is read."""

from __future__ import annotations

import dataclasses

import pytest

from mocosfl_mpi.attacks.jobs import ADAPTIVE, COSTLY, NAIVE, UNDEFENDED, Orders, check, plan, represents, weakest
from mocosfl_mpi.attacks.registry import ATTACKS
from mocosfl_mpi.attacks.view import SEES
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.attack_schema import PRINCIPAL


def test_attacks_times_seeds_times_control_times_what_is_known_of_the_defence():
    orders = Orders(attacks=("ridge", "linkage"), adversaries=("server",), seeds=2)
    jobs = plan(orders, ATTACKS, defended=True)
    assert len(jobs) == len(set(jobs)) == 2 * 2 * 2 * 2
    assert {job.adaptive for job in jobs} == {NAIVE, ADAPTIVE}
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)  # cut short, it has whole seeds
    encoders = dataclasses.replace(orders, attacks=("encodermi_t",), adversaries=("weakest",))
    found = {job.adaptive for job in plan(encoders, ATTACKS, defended=True)}
    assert found == {UNDEFENDED}, "an encoder is attacked, and no smashed data"
    bare = plan(dataclasses.replace(orders, control=False), ATTACKS, defended=False)
    assert len(bare) == 4
    assert {(job.adaptive, job.trained) for job in bare} == {(UNDEFENDED, True)}


def test_each_attack_once_by_the_weakest_or_by_everybody_who_can():
    for adversaries, wanted in (("weakest", {"server"}), ("all", {"server", "malicious_server"})):
        jobs = plan(Orders(("ridge",), (adversaries,), seeds=1), ATTACKS, defended=False)
        assert {job.adversary for job in jobs} == wanted
    assert weakest(ATTACKS["encodermi_t"]) == "encoder_holder"
    assert represents(ATTACKS["ridge"], "server", "malicious_server")
    assert not represents(ATTACKS["ridge"], "server", "wire")
    assert not represents(ATTACKS["gradient_norm"], "wire", "server")  # what labels are worth depends on who looks


def test_every_attack_has_somebody_a_metric_and_the_standard_ones_exist():
    assert set(ATTACKS) >= COSTLY
    for name, attack in ATTACKS.items():
        assert name == attack.name
        assert any(attack.needs <= sees for sees in SEES.values())
        assert attack.kind in PRINCIPAL
    standard = {job.attack for job in plan(Orders(("standard",), seeds=1), ATTACKS, defended=False)}
    assert standard == set(ATTACKS) - COSTLY


def test_the_published_protocol_measures_its_own_attack_and_knows_of_no_defence():
    jobs = plan(Orders(("standard",), seeds=1, protocol="published"), ATTACKS, defended=True)
    assert {(job.attack, job.adaptive) for job in jobs} == {("decoder_published", NAIVE)}
    with pytest.raises(BadInput, match="linkage is measured by ours"):
        check(Orders(("linkage",), protocol="published"), ATTACKS)


def test_a_key_is_of_everything_that_decides():
    (job,) = plan(Orders(("ridge",), seeds=1, control=False), ATTACKS, defended=False)
    keys = {job.key("a"), job.key("b")}
    for change in ({"seed": 1}, {"effort": 2.0}, {"images": 3}, {"client": 1}, {"trained": False}, {"adaptive": 0}):
        keys.add(dataclasses.replace(job, **change).key("a"))
    assert len(keys) == 8
    assert job.key("a") == dataclasses.replace(job).key("a")


WRONG = [
    ({"attacks": ("rigde",)}, "did you mean 'ridge'"),
    ({"attacks": ()}, "names none"),
    ({"adversaries": ("servr",)}, "did you mean 'server'"),
    (
        {"attacks": ("ridge",), "adversaries": ("wire",)},
        "does not see weights and cannot mount ridge; these can: server",
    ),
    ({"attacks": ("all",), "adversaries": ("fed_server", "nobody")}, "no adversary 'nobody'"),
    ({"attacks": ("ridge", "linkage"), "adversaries": ("wire",)}, "none of these attacks"),
    ({"seeds": 0}, "--seeds 0"),
    ({"effort": 0.0}, "--effort 0.0"),
    ({"effort": float("nan")}, "--effort nan"),
    ({"images": 0}, "--images 0"),
]


@pytest.mark.parametrize(("orders", "message"), WRONG, ids=[message for _, message in WRONG])
def test_refusals(orders, message):
    with pytest.raises(BadInput, match=message):
        check(Orders(**{"attacks": ("ridge",), **orders}), ATTACKS)
