"""What docs/evidence says of runs belongs to the descriptions that are shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mocosfl_mpi.grid.description import read_grid

ROOT = Path(__file__).parents[3]
PAGES = ROOT / "docs" / "evidence"
CLAIMS = sorted(path.stem for path in (ROOT / "jobs/configs/evidence").glob("*.toml") if path.stem != "common")


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_claim_has_its_page(claim):
    text = (PAGES / f"{claim}.md").read_text()
    for word in ("**Question.**", "**Published", f"jobs/configs/evidence/{claim}.toml", "## Verdict", "## Limits"):
        assert word in text
    assert f"({claim}.md)" in (PAGES / "README.md").read_text()


@pytest.mark.parametrize("claim", CLAIMS)
def test_results_are_of_the_experiments_described(claim):
    trials = {trial.name: trial.config for trial in read_grid(ROOT / f"jobs/configs/evidence/{claim}.toml").trials}
    for run in json.loads((PAGES / "results" / f"{claim}.json").read_text())["runs"]:
        assert run["config_hash"] == trials[run["run"]].hash(), run["run"]
        assert 0.0 < run["knn_top1"] < 100.0
