"""The table of methods: complete, documented, and what configuration knows of it."""

from typing import get_args

import pytest

from mocosfl_mpi.algorithms import ALGORITHMS
from mocosfl_mpi.config import IN_BATCH, WHOLE_NETWORK, Method
from tests.unit.test_architecture import ROOT


def test_every_method_has_its_row():
    assert set(ALGORITHMS) == set(get_args(Method))
    assert {name for name, algorithm in ALGORITHMS.items() if algorithm.local} == WHOLE_NETWORK
    assert {name for name, algorithm in ALGORITHMS.items() if not algorithm.momentum} == IN_BATCH


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_method_has_its_page(name):
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    algorithm = ALGORITHMS[name]
    assert page.startswith(f"# {algorithm.title} (`method = {name}`)\n")
    assert algorithm.paper in " ".join(page.split())
    for heading in ("## Its pieces", "## Traffic", "## Run it"):
        assert heading in page
    assert f"({name}.md)" in (ROOT / "docs" / "methods" / "README.md").read_text()
