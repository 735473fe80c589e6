"""Files open in xarray: every group of the schemas, with named dimensions, coordinates and units."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray

from mocosfl_mpi.config import parse
from mocosfl_mpi.record.attack_schema import ATTACKS
from mocosfl_mpi.record.attacks import Outcome, attack_attributes, open_for_more
from mocosfl_mpi.record.attributes import run_attributes, software_versions
from mocosfl_mpi.record.schema import ENTRIES, GROWING, RUN, present
from mocosfl_mpi.record.writer import Recorder
from tests.unit.record.samples import CONFIG, SIZES, STATE, create, fixed, row

SMALL = {"epochs": 3, "client": {"count": 6, "sampling_ratio": 0.7}, "seed": 7}
CONFIGS = {
    "labels": CONFIG,
    "mixing": {**SMALL, "method": "fedema"},
    "defended": {
        **SMALL,
        "method": "mocosfl",
        "client": {**SMALL["client"], "rich_share": 0.5, "rich_batch_factor": 2},
        "defence": {"resistance": 1.0},
    },
    "saving": {**SMALL, "method": "mocosfl", "communication": {"loss_threshold": 0.1, "warmup_epochs": 1}},
    "two cuts": {**SMALL, "client": {**SMALL["client"], "rich_share": 0.5}, "model": {"rich_cut_layer": 3}},
    "expert": {**SMALL, "method": "mocosfl", "client": {**SMALL["client"], "pretrained": "x.safetensors"}},
    "own models": {**SMALL, "method": "standalone"},
}
"""Together they have every dataset of the schema."""


def write(directory, values: dict) -> None:
    """A run's file with three rows of everything."""
    config = parse(values, "test")
    attributes = run_attributes(
        config, preset="smoke", command="mocosfl run smoke", launcher="none", host="node1", ranks=2, server_threads=1,
        host_threads=1, versions=software_versions("none"), notes=[],
    )  # fmt: skip
    known = fixed(SIZES, config)
    known |= {name: STATE for name in known if ENTRIES[name].dtype == "sha256"}
    with Recorder.create(directory / "run.h5", SIZES, attributes, known) as recorder:
        for dim in GROWING:
            for number in range(3):
                recorder.append(dim, row(dim, number, None, config))


def check_groups(path, names: list, entries: dict, form) -> set:
    """Open these groups; the names of the datasets that were checked in them."""
    with xarray.open_dataset(path, engine="h5netcdf") as root:
        return set().union(*(check_group(path, root, group, entries, form) for group in names))


def check_group(path, root, group: str, entries: dict, form) -> set:
    with xarray.open_dataset(path, engine="h5netcdf", group=group) as plain:
        clash = {name: f"{name}_" for name in plain.dims if f"{group}/{name}" in entries}  # attacks' scores/floor
        data = plain.rename_vars(clash).assign_coords({name: root[name] for name in plain.dims})
        own = {name: entry for name, entry in entries.items() if name.rpartition("/")[0] == group}
        names = {name: name.rpartition("/")[2] for name in own}
        assert set(data.reset_coords(clash.values()).data_vars) == {clash.get(n, n) for n in names.values()}
        for name, entry in own.items():
            variable = data[clash.get(names[name], names[name])]
            assert variable.dims == entry.dims, name
            assert variable.attrs["units"] == entry.units, name
            assert variable.attrs["long_name"] == entry.long_name, name
            for axis in entry.dims:
                scale = variable.coords[axis]
                assert scale.dims == (axis,)
                assert scale.attrs["units"] == "1"
                assert scale.attrs["long_name"] == form.dimensions[axis].long_name
                if form.dimensions[axis].labels:
                    assert scale.values[0].decode() == form.dimensions[axis].labels[0]
                elif form.dimensions[axis].growing:
                    np.testing.assert_array_equal(scale, np.arange(variable.sizes[axis]))
        return set(own)


def groups(entries) -> list[str]:
    return sorted({name.rpartition("/")[0] for name in entries})


def stored(values: dict) -> set:
    """Names of the datasets in a run's file."""
    return {name for name in present(json.loads(parse(values, "test").canonical())) if name in ENTRIES}


@pytest.mark.parametrize("values", CONFIGS.values(), ids=CONFIGS)
def test_every_group_of_a_run_opens_with_names_coordinates_and_units(tmp_path, values):
    write(tmp_path, values)
    entries = {name: ENTRIES[name] for name in stored(values)}
    wanted = entries if values is CONFIG else entries.keys() - stored(CONFIG)
    assert check_groups(tmp_path / "run.h5", groups(wanted), entries, RUN) >= set(wanted)


def test_the_configurations_have_every_dataset():
    assert set().union(*map(stored, CONFIGS.values())) == ENTRIES.keys()


def test_every_group_of_attacks_opens_with_names_coordinates_and_units(tmp_path):
    attributes = attack_attributes(
        parse(CONFIG, "test"), command="mocosfl attack", launcher="none", host="n", ranks=1, threads=1, versions={}
    )
    texts = {"key": STATE, "state": STATE, "attack": "ridge", "kind": "linkage", "adversary": "ü", "protocol": "ours"}
    numbers = {"steps": 3, "trained": True, "adaptive": -1, "client": 0, "images": 4, "effort": 1.0, "seed": 0}
    with open_for_more(tmp_path, attributes) as writer:
        writer.add(Outcome(**texts, **numbers, seconds=0.5, scores={"mse": 0.25}))
    names = groups(ATTACKS.entries)
    assert check_groups(tmp_path / "attacks.h5", names, dict(ATTACKS.entries), ATTACKS) == ATTACKS.entries.keys()
    with xarray.open_datatree(tmp_path / "attacks.h5", engine="h5netcdf") as tree:
        assert tree["scores/value"].sel(metric=b"mse").values.tolist() == [0.25]


def test_a_tree_has_the_coordinates_of_all_groups_and_no_unit_is_taken_for_a_date(tmp_path):
    write(tmp_path, CONFIG)
    with xarray.open_datatree(tmp_path / "run.h5", engine="h5netcdf") as tree:
        assert tree["simulated/bytes"].sel(message=b"query_up").dims == ("epoch", "member")
        assert tree["simulated"].message.str.decode("utf-8").values[0] == "query_up"
        # A dataset named like an axis of other groups hides behind it, unless the group is taken by itself.
        assert tree["evaluations"].to_dataset(inherit=False)["epoch"].dims == ("evaluation",)
        assert tree["measured/seconds"].dtype == np.float64
        assert tree["evaluations/wall_seconds"].dtype == np.float64


def test_a_file_that_is_still_written_opens(tmp_path):
    config = parse(CONFIG, "test")
    with create(tmp_path / "run.h5") as recorder:
        recorder.append("epoch", row("epoch", 0, None, config))
        recorder.flush()
        live = {"driver": "sec2", "driver_kwds": {"swmr": True}}
        with xarray.open_dataset(tmp_path / "run.h5", engine="h5netcdf", group="epochs", **live) as data:
            np.testing.assert_array_equal(data["loss"], [row("epoch", 0, None, config)["epochs/loss"]])
