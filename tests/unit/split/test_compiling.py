"""``compute.compile``: what torch compiles is the same function, with the same gradients, once for each shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mocosfl_mpi import devices
from mocosfl_mpi.config import Compute, Model
from mocosfl_mpi.errors import BadInput, RunFailed
from mocosfl_mpi.server.passes import TorchPasses
from mocosfl_mpi.split import compiling, cut
from mocosfl_mpi.split.engine import CPU, Engine, choose
from mocosfl_mpi.split.stacked import StackedModel
from mocosfl_mpi.streams import Streams

PLAIN, COMPILED = (Engine("fp64", "stacked", compiled=compiled) for compiled in (False, True))


@pytest.fixture(scope="module", autouse=True)
def able():
    if problem := compiling.problem(CPU):
        pytest.skip(f"torch cannot compile here: {problem}")


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(**values):
    return cut.build(Model(**({"width": 4, "cut_layer": 1} | values)), 1, 8, Streams(0), torch.float64)


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


def test_lanes_are_those_of_the_uncompiled_backend():
    bottom = network().bottom
    plain, compiled = (StackedModel(bottom, engine) for engine in (PLAIN, COMPILED))
    flat = plain.flat(bottom) + 0.1 * numbers(3, plain.parameters)
    images = numbers(3, 2, 1, 8, 8, seed=1)
    close(compiled.forward(flat, images), plain.forward(flat, images))
    (found, back), (wanted, right) = (m.forward_with_pullback(flat, images) for m in (compiled, plain))
    assert not found.requires_grad
    close(found, wanted)
    gradient = numbers(*wanted.shape, seed=2)
    close(back(gradient), right(gradient))


def test_a_shape_is_compiled_once():
    """However many others come between, and for each function apart."""
    twice, thrice = (compiling.compiled(lambda x, n=n: n * x, CPU) for n in (2.0, 3.0))
    counts = [graphs()]
    for function, rows in ((twice, 1), (twice, 2), (thrice, 1), (twice, 1), (twice, 2), (thrice, 1)):
        assert float(function(torch.ones(rows)).sum()) == rows * (2.0 if function is twice else 3.0)
        counts.append(graphs())
    assert [count - counts[0] for count in counts[1:]] == [1, 2, 3, 3, 3, 3]


@pytest.mark.parametrize("wants_input", [True, False])
def test_the_servers_passes_are_those_of_the_uncompiled(wants_input):
    """Its weights change in place between steps: what is compiled sees the new ones."""
    built = network(cut_layer=8)
    backbone = built.trunk.backbone
    plain, compiled = (TorchPasses(backbone, engine) for engine in (PLAIN, COMPILED))
    x = numbers(3, *built.smashed_shape)
    for step in range(2):
        results = []
        for passes in (plain, compiled):
            passes.begin()
            first = passes.forward(x)
            y, back = passes.forward_with_pullback(x, wants_input=wants_input)
            at_input = back(numbers(*y.shape, seed=step))
            passes.end()
            results.append([first, y, [p.grad.clone() for p in backbone.parameters()], at_input])
        assert (results[1][3] is not None) == wants_input
        close(results[1], results[0])
        with torch.no_grad():
            for parameter in backbone.parameters():
                parameter.add_(0.1)


def test_an_empty_backbone_passes_rows_on():
    passes = TorchPasses(nn.Sequential(), COMPILED)
    x = numbers(2, 3)
    y, back = passes.forward_with_pullback(x, wants_input=True)
    assert torch.equal(y, x)
    assert torch.equal(back(2.0 * x), 2.0 * x)


def test_it_is_for_the_stacked_backend():
    built = network()
    found = choose(Compute(precision="fp32", compile=True), None, built)
    assert found == Engine("fp32", "stacked", compiled=True)
    assert not choose(Compute(precision="fp32"), None, built).compiled


def test_what_cannot_be_compiled_is_said_in_a_line():
    def unheard(x):
        torch._dynamo.graph_break()
        return x

    with pytest.raises(RunFailed, match=r"cannot compile this network: .*; begin again .* without compute.compile"):
        compiling.compiled(unheard, CPU)(torch.ones(1))


class Ranks:
    """What two ranks say of themselves, seen by rank 0."""

    host_name = "a"

    def __init__(self, other):
        self._other = other

    def gather_json(self, own):
        return [own, ["b", self._other]]

    def root_decides(self, work):
        return work()


def test_a_rank_that_cannot_compile_is_named():
    assert devices.common(Compute(compile=True), Ranks("")) is None
    with pytest.raises(BadInput, match=r"rank 1 on b: no g\+\+; install .* leave compute.compile out"):
        devices.common(Compute(compile=True), Ranks("no g++"))
