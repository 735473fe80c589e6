"""Further evaluations: the training is the same with and without them, and they are the same on any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest

from mocosfl_mpi.record.reader import open_run
from tests.mpi.command import mocosfl, says_once
from tests.mpi.many import carry_out
from tests.unit.data.files import write_idx

pytestmark = pytest.mark.mpi

FURTHER = {
    "label_shares": "[0.1,1.0]",
    "published_probe": "true",
    "fine_tune_share": "0.3",
    "fine_tune_epochs": "2",
    "transfer": "fashion-mnist",
    "per_client": "true",
}
ASKED = {
    f"result/{name}{state}"
    for name in (
        "few_labels_top1", "published_linear_top1", "published_linear_last_top1", "published_few_labels_top1",
        "published_few_labels_last_top1", "fine_tuned_top1", "transfer_knn_top1", "transfer_linear_top1",
        "client_knn_top1", "personalised_top1",
    )
    for state in ("", "_untrained")
}  # fmt: skip
ENGINES = {"torch": ("compute.backend=stacked", "compute.precision=fp32"), "as it comes": ()}


def words(out, data, *settings):
    chosen = [word for setting in settings for word in ("--set", setting)]
    return ["run", "smoke", "--out", out, "--data-dir", data, "--quiet", *chosen]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """By engine: a run without further evaluations, and one with all of them on one rank and on three."""
    folder = tmp_path_factory.mktemp("further")
    data = folder / "data"
    write_idx(data / "fashion-mnist", images=40)
    asked = [f"evaluation.{name}={value}" for name, value in FURTHER.items()]
    alone, many, found = [], [], {}
    for number, (engine, settings) in enumerate(ENGINES.items()):
        paths = [folder / f"{kind}-{number}" for kind in ("plain", "one", "three")]
        alone += [words(paths[0], data, *settings), words(paths[1], data, *settings, *asked)]
        many.append(words(paths[2], data, *settings, *asked))
        found[engine] = paths
    carry_out(alone, 1, folder / "alone.json")
    carry_out(many, 3, folder / "many.json")
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_the_trained_state_and_every_other_row_are_the_same_with_and_without(runs, engine):
    plain, one, _ = runs[engine]
    with open_run(plain) as a, open_run(one) as b:
        assert a.state_sha256 == b.state_sha256 is not None
        assert set(b.names) - set(a.names) == {"label_share"} | ASKED
        for name in ("steps/loss", "evaluations/knn_top1", "result/knn_top1", "result/linear_top1"):
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
        assert a.attrs["config"] == b.attrs["config"] | {"evaluation": a.attrs["config"]["evaluation"]}


@pytest.mark.parametrize("engine", ENGINES)
def test_every_measure_is_the_same_for_any_number_of_ranks(runs, engine):
    _, one, three = runs[engine]
    with open_run(one) as a, open_run(three) as b:
        for name in ASKED:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
            assert np.isfinite(a[name]).any(), name
        assert a["label_share"].tolist() == [0.1, 1.0]


def test_they_are_shown(runs):
    done = mocosfl("inspect", runs["torch"][1])
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    for text in ("Further test accuracy", "10 % of the labels", "fine-tuned, 30 %", "on fashion-mnist", "own probe"):
        assert text in shown, done.stdout
    assert "Further" not in mocosfl("inspect", runs["torch"][0]).stdout


@pytest.mark.parametrize("command", ["run", "slurm"])
def test_a_data_set_that_is_missing_is_refused_before_anything_begins(tmp_path, command):
    done = mocosfl(command, "smoke", "--set", "evaluation.transfer=cifar10", "--out", tmp_path / "run")
    assert done.returncode == 2
    says_once(done.stderr)
    assert "evaluation.transfer = 'cifar10': " in done.stderr
    assert "--data-dir" in done.stderr
    assert not (tmp_path / "run").exists()
