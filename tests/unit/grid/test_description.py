"""Grids as they are written: what a cell is made of, and what is refused with its place."""

from __future__ import annotations

import pytest

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.grid.description import read_grid

GRID = """
title = "a grid"
preset = "cifar10-{clients}clients-cut{cut}"
seeds = [3, 4]
[settings]
epochs = 7
client.lr = 0.5
[axes]
clients = { 5 = {}, 20 = { client.lr = 0.25, epochs = 9 } }
cut = [1, 2]
"federation.sync_freq" = [1, 10]
[published.linear_top1]
5 = { 1 = [1.5, 2], 2 = { 10 = 4 } }
20 = { 2 = [5, 6] }
"""


def described(folder, text=GRID, name="grid.toml", **more):
    (folder / name).write_text(text)
    return read_grid(folder / name, **more)


def test_a_cell_is_preset_settings_and_places(tmp_path):
    grid = described(tmp_path)
    assert (grid.name, grid.axes) == ("grid", ("clients", "cut", "sync_freq"))
    assert len(grid.cells) == 8
    assert [trial.name for trial in grid.trials][:2] == [
        "clients5-cut1-sync_freq1-seed3",
        "clients5-cut1-sync_freq10-seed3",
    ]
    assert len({trial.name for trial in grid.trials}) == len(grid.trials) == 16
    assert [trial.config.seed for trial in grid.trials] == [3] * 8 + [4] * 8  # seeds change slowest
    first, last = grid.trials[0].config, grid.trials[-1].config
    assert (first.client.count, first.model.cut_layer, first.federation.sync_freq) == (5, 1, 1)
    assert (first.client.lr, first.epochs) == (0.5, 7)  # the grid's settings are laid over the preset
    assert (last.client.count, last.model.cut_layer, last.federation.sync_freq) == (20, 2, 10)
    assert (last.client.lr, last.epochs) == (0.25, 9)  # and a place on an axis over those
    assert last.client.sampling_ratio == 0.25  # what nobody names is the preset's


def test_published_numbers_by_place(tmp_path):
    numbers = described(tmp_path).published
    assert numbers == {
        ("linear_top1", ("5", "1", "1")): 1.5,
        ("linear_top1", ("5", "1", "10")): 2.0,
        ("linear_top1", ("5", "2", "10")): 4.0,
        ("linear_top1", ("20", "2", "1")): 5.0,
        ("linear_top1", ("20", "2", "10")): 6.0,
    }


def test_settings_of_the_command_line_come_last(tmp_path):
    grid = described(tmp_path, assignments=["client.lr=0.75", "compute.precision=fp32"])
    assert {trial.config.client.lr for trial in grid.trials} == {0.75}
    assert {trial.config.compute.precision for trial in grid.trials} == {"fp32"}


def test_extending(tmp_path):
    described(tmp_path)
    (tmp_path / "small").mkdir()
    text = 'title = "small"\nextends = "../grid.toml"\nseeds = [9]\nsettings.model.width = 8\n'
    small = described(tmp_path, text, "small/grid.toml")
    assert small.published == {}  # numbers of another experiment
    assert (small.title, len(small.trials)) == ("small", 8)
    found = small.trials[0].config
    assert (found.model.width, found.client.lr, found.seed) == (8, 0.5, 9)
    axes = '[axes]\ncut = [2]\nclients = [5]\nmix = { iid = { partition.kind = "iid" } }'
    fewer = described(tmp_path, text + axes, "small/fewer.toml")
    assert [cell.name for cell in fewer.cells] == ["cut2-clients5-iid"]
    assert fewer.trials[0].config.partition.kind == "iid"


def test_a_grid_without_axes_is_one_cell(tmp_path):
    grid = described(tmp_path, 'title = "one"\npreset = "smoke"\n[published]\nlinear_top1 = 50\n')
    assert [trial.name for trial in grid.trials] == ["cell-seed1234"]
    assert grid.published == {("linear_top1", ()): 50.0}


def test_places_of_every_type(tmp_path):
    axes = 'axes = { "client.frozen" = [true, false], "client.lr" = [0.5, 1], "data.source" = ["svhn"] }'
    grid = described(tmp_path, f'title = "types"\n{axes}\n')
    assert grid.cells[0].name == "frozenTrue-lr0.5-svhn"
    assert [trial.config.client.frozen for trial in grid.trials] == [True, True, False, False]
    assert [trial.config.client.lr for trial in grid.trials] == [0.5, 1.0, 0.5, 1.0]


def test_names_are_told_apart(tmp_path):
    with pytest.raises(BadInput, match="two runs would have the same name"):
        described(tmp_path, 'title = "a"\n[axes.a]\n5 = { epochs = 1 }\na5 = { epochs = 2 }\n')


def test_only(tmp_path):
    grid = described(tmp_path).only("cut2")
    assert (len(grid.cells), len(grid.trials)) == (4, 8)
    with pytest.raises(BadInput, match="--only 'cut3'"):
        grid.only("cut3")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("seeds", "seed"), "describes no grid: seed: Extra inputs"),
        (("[3, 4]", "[]"), "seeds"),
        (('title = "a grid"', ""), "title"),
        (("{cut}", "{cat}"), "there is no axis 'cat'"),
        (("cifar10-", "cifar12-"), "'cifar12-5clients-cut1' is neither a preset"),
        (("cut = [1, 2]", "cut = [1, 1]"), "stands there twice"),
        (("cut = [1, 2]", "cut = []"), "axes.cut is empty"),
        (("clients = { 5 = {},", 'clients = { "../5" = {},'), r"'\.\./5' becomes part of a file's name"),
        (("client.lr = 0.25", "client.rate = 0.25"), "clients20-cut1-sync_freq1-seed3: unknown key 'client.rate'"),
        (("federation.sync_freq", "federation.frequency"), "unknown key 'federation.frequency'"),
        (("[1.5, 2]", "[1.5]"), "published.linear_top1.5.1 = .1.5.: expected a table with 1, 10, or that many"),
        (("2 = { 10 = 4 }", "2 = { 11 = 4 }"), "published.linear_top1.5.2"),
        (("10 = 4", 'x10 = "4"'), "published.linear_top1.5.2"),
        (("[5, 6]", '[5, "6"]'), "expected a number"),
        (("epochs = 7", "epochs = 7\n[settings"), "not valid TOML"),
        (('title = "a grid"', 'title = "a"\nextends = "grid.toml"'), "extends itself"),
        (('title = "a grid"', 'title = "a"\nextends = "none.toml"'), "cannot read"),
        (('title = "a grid"', 'title = "a"\nextends = 3'), "extends = 3"),
        (("[3, 4]", "[3, 3]"), "two runs would have the same name"),
        (("20 = { client", "clients5 = { client"), "neither a preset"),
        (("[3, 4]", str(list(range(1300)))), "asks for 10400 runs"),
    ],
)
def test_refusals_name_the_place(tmp_path, change, says):
    assert change[0] in GRID
    with pytest.raises(BadInput, match=says):
        described(tmp_path, GRID.replace(*change, 1))


def test_a_preset_is_no_format_string(tmp_path):
    with pytest.raises(BadInput, match="neither a preset"):
        described(tmp_path, GRID.replace("cut{cut}", "{cut.__class__}{cut}", 1))


def test_what_is_compared_is_a_place_on_an_axis(tmp_path):
    against = 'against."federation.sync_freq" = "{}"\n[settings]'
    found = described(tmp_path, GRID.replace("[settings]", against.format("10"), 1))
    assert found.against == {"sync_freq": "10"}
    with pytest.raises(
        BadInput, match=r"against.federation.sync_freq = '5': there is no such place; choose from 1, 10"
    ):
        described(tmp_path, GRID.replace("[settings]", against.format("5"), 1))
    with pytest.raises(BadInput, match="the axes are clients, cut, federation"):
        described(tmp_path, GRID.replace("[settings]", 'against.sync = "5"\n[settings]', 1))
