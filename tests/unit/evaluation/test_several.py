"""The mean of several judgements."""

import numpy as np

from mocosfl_mpi.evaluation.judge import Monitor, Verdict
from mocosfl_mpi.evaluation.several import mean_monitor, mean_verdict


def test_the_mean_of_every_figure():
    looks = [Monitor(10.0, 20.0, 0.5, 3.0, None), Monitor(20.0, 40.0, 0.7, 4.0, None)]
    assert mean_monitor(looks) == Monitor(15.0, 30.0, 0.6, 3.5, None)
    assert mean_monitor(looks[:1]) == looks[0]


def test_the_mean_of_further_figures_and_lists_of_them():
    verdicts = [
        Verdict(10.0, 1.0, 30.0, 1e-3, {"few_labels_top1": [1.0, 2.0], "fine_tuned_top1": 5.0}),
        Verdict(20.0, 2.0, 50.0, 1e-3, {"few_labels_top1": [3.0, np.nan], "fine_tuned_top1": 7.0}),
    ]
    found = mean_verdict(verdicts)
    assert (found.knn_top1, found.knn_projector_top1, found.linear_top1, found.probe_l2) == (15.0, 1.5, 40.0, 1e-3)
    np.testing.assert_array_equal(found.further["few_labels_top1"], [2.0, np.nan])
    assert found.further["fine_tuned_top1"] == 6.0
    assert not mean_verdict([Verdict(10.0, 1.0, 30.0, 1e-3)]).further
