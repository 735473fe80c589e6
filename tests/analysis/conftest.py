"""The packed runs, unpacked once."""

from __future__ import annotations

import pytest

from tests.shipped import unpack


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Directory with ``grid/`` (two methods, three cuts, three seeds) and every other run by its name."""
    return unpack(tmp_path_factory.mktemp("runs"))
