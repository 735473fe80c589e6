"""The grids that are shipped: every cell is a sound experiment, small ones are small, and settings are the papers'."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mocosfl_mpi.config import parse, read_toml, to_toml
from mocosfl_mpi.data.partition import partition
from mocosfl_mpi.grid.description import read_grid
from mocosfl_mpi.grid.results import check_metrics
from mocosfl_mpi.plan.images import PUBLISHED
from mocosfl_mpi.problem import Problem, read
from mocosfl_mpi.streams import Streams

FOLDER = Path(__file__).parents[3] / "jobs" / "configs"
GRIDS = sorted(FOLDER.rglob("*.toml"))
CELLS = {
    "table1": 4, "table2": 8, "table3": 36, "fig3a": 9, "fig3b": 2, "fig5": 10, "fig7": 2, "monacosfl": 108,
    "fig1a": 5, "fig1b": 5, "monacosfl-mobilenetv2": 36, "small/fig1a": 2, "small/fig1b": 2,
    "evidence/common": 1, "evidence/alignment": 9, "evidence/whole-network": 6, "evidence/frequency": 3,
    "evidence/clients": 3, "evidence/recipe": 3, "evidence/defences": 7,
    "small/table2": 4, "small/table3": 12, "small/fig3a": 9, "small/fig5": 10, "small/monacosfl": 12,
    "table4": 6, "small/table4": 2,
    "small/privacy-depth": 18,
}  # fmt: skip


def name_of(path):
    return str(path.relative_to(FOLDER).with_suffix(""))


def test_there_are_grids():
    assert {name_of(path) for path in GRIDS} >= set(CELLS)


@pytest.mark.parametrize("path", GRIDS, ids=name_of)
def test_every_cell_is_a_sound_experiment(path):
    grid = read_grid(path)
    check_metrics(grid)
    assert len(grid.cells) == CELLS.get(name_of(path), len(grid.cells))
    hashes = {trial.config.hash() for trial in grid.trials}
    assert len(hashes) == len(grid.trials)  # no two cells are the same experiment
    for trial in grid.trials[:: max(1, len(grid.trials) // 10)]:
        assert parse(tomllib.loads(to_toml(trial.config, trial.name)), "here") == trial.config


@pytest.mark.parametrize("path", GRIDS, ids=name_of)
def test_headers_tell_purpose_run_line_and_cost(path):
    text = path.read_text()
    for word in ("# Purpose:", "# Run:", "# Cost:", f"jobs/configs/{name_of(path)}.toml"):
        assert word in text
    assert read_toml(path)["title"]


def test_published_numbers_are_complete():
    for path in GRIDS:
        grid = read_grid(path)
        for metric in {metric for metric, _ in grid.published}:
            assert all((metric, cell.labels) in grid.published for cell in grid.cells), path
    assert read_grid(FOLDER / "table3.toml").published[("linear_top1", ("cifar10", "noniid", "1000", "2"))] == 84.75
    assert read_grid(FOLDER / "table2.toml").published[("linear_top1", ("cifar100", "20", "1"))] == 57.80
    assert read_grid(FOLDER / "fig5.toml").published[("linear_top1", ("1", "20"))] == 88.7


@pytest.mark.parametrize("stem", ["table2", "table3", "fig5", "monacosfl"])
def test_settings_are_those_of_the_papers(stem):
    """100,000 server steps with 100 images of 50,000, in every cell."""
    for trial in read_grid(FOLDER / f"{stem}.toml").trials:
        config = trial.config
        if config.data.source not in PUBLISHED:
            continue
        owned = PUBLISHED[config.data.source][0] // config.client.count
        assert config.epochs * -(-owned // config.client.batch_size) == 100_000
        assert config.pool_size * config.client.batch_size == 100
        assert (config.model.width, config.server.lr, config.contrast.memory_length) == (64, 0.06, 6000)


@pytest.mark.parametrize("path", [path for path in GRIDS if path.parent.name == "evidence"], ids=name_of)
def test_evidence_is_of_three_seeds_and_one_setting(path):
    grid = read_grid(path)
    for trial in grid.trials:
        config = trial.config
        assert (config.data.source, config.data.train_images, config.model.width) == ("cifar10", 5000, 8)
        assert config.pool_size * config.client.batch_size == 100
        assert config.epochs * config.steps_per_epoch in (288, 300)
    assert all(sum(trial.cell == cell for trial in grid.trials) == 3 for cell in grid.cells)
    assert {"linear_top1", "knn_top1", "linear_top1_untrained", "linear_top1_pixels"} <= set(grid.metrics)


@pytest.mark.parametrize("path", [path for path in GRIDS if path.parent.name == "small"], ids=name_of)
def test_small_grids_are_small_and_can_be_run(path):
    counted = {}
    for trial in read_grid(path).trials:
        config = trial.config
        if path.stem == "privacy-depth":  # what leaks of images is asked of photographs
            assert (config.model.width, config.data.source) == (8, "cifar10")
            assert config.epochs * config.steps_per_epoch <= 200
            continue
        assert (config.model.width, config.data.source) == (8, "embedded")
        key = (config.client.count, config.partition.model_dump_json())
        if key not in counted:
            source = read(config, None, Streams(config.seed))
            counted[key] = partition(config.partition, source.train.labels, config.client.count, 10, Streams(1))
        steps = config.epochs * Problem(None, counted[key], (), ()).steps_per_epoch(config)
        assert steps <= 200
