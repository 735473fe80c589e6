"""Leakage by depth: points, the front, tables and pictures."""

from __future__ import annotations

import csv
import dataclasses

import pytest

from mocosfl_mpi.audit.depth import Point, front, points, runs_of, table, write
from mocosfl_mpi.errors import BadInput
from tests.unit.audit.test_report import MATERIAL, several

POINT = Point("a", "mocosfl", 1, 0, True, "ridge", 3, 0.5, 0.1, 0.02, 0.06, 40.0, 50.0, 10.0)


def test_a_run_gives_a_point_trained_and_one_untrained_clipped_at_the_floor():
    outcomes = [*several(), *several(attack="decoder_conv_n0c16", scores={"mse": 0.05, "ssim": 0.4})]
    outcomes += several(trained=False, scores={"mse": 0.9, "ssim": 0.05})
    trained, control = points(MATERIAL, outcomes)
    assert (trained.attack, trained.seeds) == ("ridge", 3)
    assert (trained.ssim, trained.mse) == pytest.approx((0.7, 0.05))  # each by the attack that is best in it
    assert (control.ssim, control.mse) == (0.125, 0.5)  # worse than the floor: whoever attacks can say the floor
    assert (trained.knn_top1, control.knn_top1, trained.mebibytes, control.mebibytes) == (41.5, 30.0, 12.5, 0.0)


def test_a_run_without_reconstructions_is_refused():
    with pytest.raises(BadInput, match="no smashed data"):
        list(points(MATERIAL, several(reason="no smashed data", scores={})))


def test_the_front_has_whom_nobody_beats_in_accuracy_bytes_and_leakage():
    better = dataclasses.replace(POINT, run="b", knn_top1=41.0, mebibytes=9.0, ssim=0.5)
    private = dataclasses.replace(POINT, run="c", knn_top1=30.0, ssim=0.2)
    unknown = dataclasses.replace(POINT, run="d", knn_top1=None, ssim=0.0)
    control = dataclasses.replace(POINT, run="e", trained=False, ssim=0.0)
    assert [point.run for point in front([POINT, better, private, unknown, control])] == ["b", "c"]
    assert front([POINT]) == [POINT]


def test_tables_and_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    control = dataclasses.replace(POINT, trained=False, knn_top1=None, mebibytes=0.0)
    deeper = dataclasses.replace(POINT, cut=2, run="b", ssim=0.4)
    found = [deeper, control, POINT, dataclasses.replace(control, cut=2, run="b")]
    names = {path.name for path in write(tmp_path / "new", found)}
    assert names == {f"{stem}.{kind}" for stem in ("privacy-depth", "pareto") for kind in ("csv", "png", "svg")}
    rows = list(csv.DictReader((tmp_path / "new" / "privacy-depth.csv").open()))
    assert [(row["cut"], row["trained"]) for row in rows] == [
        ("1", "True"),
        ("1", "False"),
        ("2", "True"),
        ("2", "False"),
    ]
    assert rows[1]["knn_top1"] == ""
    assert len(table(found).splitlines()) == 5


def test_runs_are_found_in_a_grids_directory(tmp_path):
    for name in ("b", "a"):
        (tmp_path / "grid" / name).mkdir(parents=True)
        (tmp_path / "grid" / name / "run.h5").touch()
    (tmp_path / "grid" / "configs").mkdir()
    assert runs_of([tmp_path / "grid", tmp_path / "grid" / "a"]) == [tmp_path / "grid" / "a", tmp_path / "grid" / "b"]
    with pytest.raises(BadInput, match="no run at"):
        runs_of([tmp_path])
