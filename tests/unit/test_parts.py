"""Ranks agree on how they compute before they compute anything."""

import pytest

from mocosfl_mpi import parts
from mocosfl_mpi.config import parse
from mocosfl_mpi.native import NoKernelsError
from mocosfl_mpi.parts import common_kernels


class Fake:
    """Rank 0 of two, whose neighbour answers ``other``."""

    def __init__(self, other):
        self.other = other

    def gather_json(self, mine):
        return [mine, self.other or mine]

    def broadcast_json(self, value):
        return value


class Kernels:
    convolves = frozenset()


def config(**compute):
    return parse({"compute": compute}, "test")


def test_alike(monkeypatch):
    kernels = Kernels()
    monkeypatch.setattr(parts, "load", lambda: kernels)
    assert common_kernels(config(), Fake(None)) == (kernels, "")


@pytest.mark.parametrize(
    ("other", "reason"), [(["none", "no C++ compiler found"], "no C++ compiler found"), (["bfloat16", ""], "differ")]
)
def test_one_rank_without_them_is_enough(monkeypatch, other, reason):
    monkeypatch.setattr(parts, "load", Kernels)
    kernels, notice = common_kernels(config(), Fake(other))
    assert kernels is None
    assert reason in notice


def test_own_failure(monkeypatch):
    def fail():
        raise NoKernelsError("the compiler failed")

    monkeypatch.setattr(parts, "load", fail)
    kernels, notice = common_kernels(config(), Fake(["bfloat16", ""]))
    assert kernels is None
    assert "the compiler failed" in notice


def test_not_even_tried_where_torch_is_asked_for(monkeypatch):
    monkeypatch.setattr(parts, "load", lambda: pytest.fail("loaded"))
    assert common_kernels(config(backend="loop", precision="fp64"), Fake(None)) == (None, "")
