"""Defences of a run in a line: what is a guarantee is called one, and nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest

from mocosfl_mpi.record.protected import protection, words

CLIPPED = {"clip": 2.0, "noise": "gaussian", "noise_scale": 8.0}


class Fake(dict):
    """A run with these defences and this ε."""

    def __init__(self, defence, epsilon=np.nan):
        super().__init__({"privacy/sends": np.int64(40), "privacy/epsilon": np.float64(epsilon)})
        self.attrs = {"config": {"defence": defence} if defence else {}}
        self.names = set(self)


def test_a_guarantee_is_said_with_what_it_is_of():
    found = protection(Fake(CLIPPED | {"delta": 1e-6}, 12.345678))
    assert found == {"defences": CLIPPED | {"delta": 1e-6}, "sends": 40, "epsilon": 12.345678, "delta": 1e-6}
    assert words(found) == (
        "clip 2, noise gaussian, noise_scale 8; ε = 12.35 at δ = 1e-06 for the exchange of one image, of its smashed "
        "data alone, sent up to 40 times"
    )
    assert protection(Fake(CLIPPED, 3.0))["delta"] == 1e-5


@pytest.mark.parametrize(
    ("defence", "verdict"),
    [
        (CLIPPED, "no ε is known: see the notes"),
        ({"noise": "gaussian", "noise_scale": 8.0}, "additive noise, no guarantee"),
        ({"clip": 1.0, "noise": "laplace", "noise_scale": 8.0}, "additive noise, no guarantee"),
        ({"dropout": 0.5}, "no guarantee"),
        ({"clip": 1.0, "delta": "many"}, "no guarantee"),
    ],
)
def test_anything_else_is_none(defence, verdict):
    assert words(protection(Fake(defence))).rpartition("; ")[2] == verdict


def test_runs_without_defences_have_nothing_to_say():
    assert protection(Fake({})) is None
    assert protection(SimpleNamespace(attrs={"config": {"defence": 3}}, names=set())) is None
