"""Profiles: the shipped ones are whole and say where their numbers come from; bad ones are one message."""

from __future__ import annotations

import re

import pytest

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.retime.profiles import Device, Network, Server, load, shipped

GOOD = 'kind = "device"\ntitle = "mine"\ncompute_gigaflop_per_second = 3\n'
NETWORK = (
    'kind = "network"\ntitle = "x"\nup_megabit_per_second = 1\ndown_megabit_per_second = 1\n'
    "round_trip_millisecond = 1\n"
)
UNITS = ("_gigaflop_per_second", "_megabit_per_second", "_millisecond", "_watt", "_joule_per_megabyte")


def test_there_are_some_of_each_kind():
    kinds = {name: re.search(r'kind = "(\w+)"', path.read_text())[1] for name, path in shipped().items()}
    assert {"raspberry-pi-4", "phone", "laptop"} <= {name for name, kind in kinds.items() if kind == "device"}
    assert {"lan", "wifi", "4g"} <= {name for name, kind in kinds.items() if kind == "network"}
    assert {"workstation", "gpu-server"} <= {name for name, kind in kinds.items() if kind == "server"}
    for name, kind in kinds.items():
        load(name, {"device": Device, "network": Network, "server": Server}[kind])


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_number_has_a_unit_and_stands_under_a_comment(name):
    lines = shipped()[name].read_text().splitlines()
    assert lines[0].startswith("# Approximate.")
    comment = ""
    for line in lines:
        if line.startswith("#"):
            comment = line
        elif not line:
            comment = ""
        elif not line.startswith(("kind", "title")):
            assert line.split(" = ")[0].endswith(UNITS), line
            assert comment, f"{line} has no source"


def test_one_of_the_users_own(tmp_path):
    (tmp_path / "mine.toml").write_text(GOOD + "idle_watt = 1\n")
    device = load(str(tmp_path / "mine.toml"), Device)
    assert (device.compute_gigaflop_per_second, device.idle_watt, device.compute_watt) == (3.0, 1.0, None)


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (Device, GOOD + "ram = 3\n", "unknown key 'ram'; a device has kind, title, compute_gigaflop"),
        (Device, 'kind = "device"\ntitle = "x"\n', "'compute_gigaflop_per_second' is missing"),
        (Device, GOOD.replace("= 3", "= 0"), "compute_gigaflop_per_second = 0"),
        (Device, GOOD.replace("= 3", "= nan"), "compute_gigaflop_per_second = nan"),
        (Device, GOOD.replace("= 3", "= '3'"), "compute_gigaflop_per_second = '3'"),
        (Device, GOOD.replace("= 3", "= true"), "compute_gigaflop_per_second = True"),
        (Device, GOOD + "idle_watt = -1\n", "idle_watt = -1"),
        (Network, GOOD, "kind = 'device', but a network is wanted"),
        (Server, "", "kind = None, but a server is wanted"),
        (Device, "kind = ", "not valid TOML"),
        (
            Network,
            NETWORK + "radio_watt = 1\nradio_joule_per_megabyte = 1\n",
            "keep one of them",
        ),
    ],
)
def test_bad_profiles_are_one_message(tmp_path, kind, text, reason):
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(BadInput, match=re.escape(reason)):
        load(str(tmp_path / "p.toml"), kind)


def test_unknown_names_list_those_of_the_kind(tmp_path):
    with pytest.raises(BadInput, match=r"'nokia' is neither.*laptop, phone, raspberry-pi-4") as caught:
        load("nokia", Device)
    assert "wifi" not in str(caught.value)
    with pytest.raises(BadInput, match="cannot read"):
        load(str(tmp_path / "none.toml"), Device)
    with pytest.raises(BadInput, match="a device is wanted"):
        load("wifi", Device)
