"""The configuration that a command line asks for."""

import argparse

import pytest

from mocosfl_mpi.commands.common import configuration
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.methods import METHODS


def asked(config, *settings):
    return configuration(argparse.Namespace(config=str(config), settings=list(settings)))[1]


@pytest.mark.parametrize("method", METHODS)
def test_smoke_runs_with_every_method(method):
    assert asked("smoke", f"method={method}").method == method


def test_a_preset_gives_way_to_the_method_and_not_to_what_was_typed(tmp_path):
    central = asked("smoke", "method=central")
    assert (central.client.count, central.pool_size, central.partition.kind) == (1, 1, "iid")
    assert asked("smoke", "method=split_vertical").client.count == 4
    assert asked("smoke", "method=split_vertical", "client.count=2").client.count == 2
    with pytest.raises(BadInput, match=r"client\.count = 12"):
        asked("smoke", "method=split_vertical", "client.count=12")
    file = tmp_path / "smoke.toml"
    file.write_text('method = "central"\n[client]\ncount = 12\n')
    with pytest.raises(BadInput, match=r"client\.count = 12"):
        asked(file)
