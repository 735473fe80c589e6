"""Where the tests of the device path compute: on the stand-in, or with ``--device cuda`` on this machine's GPUs."""

from __future__ import annotations

import pytest

from tests.device import standin


@pytest.fixture(scope="session")
def ranks_module(request):
    """The module that is a rank in which ``compute.device=cuda`` means the device under test."""
    if request.config.getoption("--device") == "cuda":
        return "tests.mpi.many"
    if standin.compiler() is None:
        pytest.skip("no C++ compiler for the stand-in")
    standin.library()
    return "tests.device.many"
