"""Published numbers beside the runs of their grid: as in the description, and refused where they are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.grid.description import read_grid
from mocosfl_mpi.grid.published import NAME, of_grid, read_published, write_published

GRID = Path("tests/analysis/grid.toml")


def test_numbers_by_the_settings_in_which_cells_differ():
    found = of_grid(read_grid(GRID))
    assert found.source == "nobody: these numbers are there for the tests"
    assert [place.settings for place in found.places] == [
        {"method": method, "model.cut_layer": cut} for method in ("mocosfl", "monacosfl") for cut in (1, 4, 8)
    ]
    assert [place.numbers for place in found.places][:4] == [
        {"linear_top1": 87.5, "divergence": 1.5},
        {"linear_top1": 70.0, "divergence": 3.0},
        {"linear_top1": 50.0, "divergence": 4.0},
        {"linear_top1": 87.0},
    ]


def test_there_and_back(tmp_path):
    grid = read_grid(GRID)
    write_published(grid, tmp_path / "runs")
    assert read_published(tmp_path / "runs" / NAME) == of_grid(grid) == read_published(GRID)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"source": "", "places": [1]}', "[" * 100_000, "\x00"])
def test_what_holds_none(text, tmp_path):
    path = tmp_path / NAME
    path.write_text(text)
    with pytest.raises(BadInput, match="holds no published numbers"):
        read_published(path)
    with pytest.raises(BadInput, match="cannot read"):
        read_published(tmp_path / "absent.json")


def test_a_grid_without_numbers_leaves_nothing(tmp_path):
    plain = tmp_path / "plain.toml"
    plain.write_text('title = "plain"\npreset = "smoke"\n')
    write_published(read_grid(plain), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    write_published(read_grid(GRID), tmp_path)
    with pytest.raises(BadInput, match="name another directory with --out"):
        write_published(read_grid(GRID), plain)
