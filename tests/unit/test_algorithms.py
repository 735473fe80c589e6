"""The table of methods: complete, documented, and what configuration knows of it."""

from typing import get_args

import pytest

from mocosfl_mpi.algorithms import ALGORITHMS
from mocosfl_mpi.config import Method
from mocosfl_mpi.methods import METHODS, MIXING
from mocosfl_mpi.server.alignments import STRATEGIES
from mocosfl_mpi.server.main_server import MainServer
from mocosfl_mpi.server.mixing import MIXTURES
from tests.unit.test_architecture import ROOT


def test_every_method_has_its_row():
    assert list(ALGORITHMS) == list(METHODS) == list(get_args(Method))


@pytest.mark.parametrize("name", METHODS)
def test_the_configuration_knows_the_pieces(name):
    facts, pieces = METHODS[name], ALGORITHMS[name]
    assert facts.whole_network == (pieces.local is not None)
    assert facts.momentum == pieces.momentum
    assert facts.supervised == (pieces.local.labels if pieces.local else pieces.server is not MainServer)
    assert (STRATEGIES | MIXTURES)[facts.alignment] == pieces.alignment
    assert (facts.alignment in MIXING) == (facts.alignment in MIXTURES)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_method_has_its_page(name):
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    algorithm = ALGORITHMS[name]
    assert page.startswith(f"# {algorithm.title} (`method = {name}`)\n")
    assert algorithm.paper in " ".join(page.split())
    for heading in ("## Its pieces", "## Traffic", "## Run it"):
        assert heading in page
    assert f"({name}.md)" in (ROOT / "docs" / "methods" / "README.md").read_text()
