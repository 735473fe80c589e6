"""What a run tells of clients and links that failed."""

import io

import numpy as np
from rich.console import Console

from mocosfl_mpi.config import parse
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.schema import MESSAGES
from mocosfl_mpi.record.show import render
from tests.unit.record.samples import CONFIG, SIZES, create, row


def shown(run):
    console = Console(file=io.StringIO(), width=120)
    console.print(render(run))
    return " ".join(console.file.getvalue().split())


def write(path, dropped=(), missing=(), heard=4, lost=0):
    """Two epochs of four members, a synchronisation and two steps each; members ``dropped`` and ``missing`` in all."""
    present, synchronised, losses = np.ones(4, int), np.ones(4, int), np.zeros((4, len(MESSAGES)), int)
    present[list(dropped)] = synchronised[[*dropped, *missing]] = 0
    losses[0, MESSAGES.index("query_up")] = lost
    messages = {"simulated/messages": np.full((4, len(MESSAGES)), 10), "simulated/lost": losses}
    with create(path) as recorder:
        for epoch in range(2):
            for _ in range(2):
                recorder.append("step", row("step", 0) | {"steps/heard": heard})
            norms = np.where(present[:, None], np.ones((4, 3)), np.nan)
            drift = {"divergence/online_mean": norms, "after_sync/momentum_spread": norms[:, 0]}
            sync = {"syncs/epoch": epoch, "syncs/present": synchronised}
            recorder.append("sync", row("sync", 0) | sync | drift)
            recorder.append("epoch", row("epoch", epoch) | {"epochs/present": present} | messages)
        recorder.append("sync", row("sync", 0) | {"syncs/epoch": 2})  # of an epoch that is not over
        recorder.append("sync", row("sync", 0) | sync | drift)
    return path


def test_failures_are_counted_and_shown(tmp_path):
    with open_run(write(tmp_path / "run.h5", dropped=[1], missing=[3], heard=0, lost=5)) as run:
        summary, text = run.summary(), shown(run)
    failures = summary["failures"]
    assert failures["dropped_out"] == [2, 8]
    assert failures["missed_synchronisations"] == [3, 9], "three synchronisations of three clients in known epochs"
    assert failures["unheard_steps"] == [4, 4]
    assert failures["lost_messages"] == {"query_up": 10}
    assert "clients drawn that dropped out of their epoch 2 8 25.0 %" in text
    assert "query data up, lost 10 80 12.5 %" in text
    assert summary["divergence_online_mean"] == 3.0, "without those that had dropped out"
    assert summary["momentum_spread"] == 1.0


def test_where_nothing_failed_it_says_so(tmp_path):
    with open_run(write(tmp_path / "run.h5")) as run:
        assert "Nothing failed." in shown(run)


def test_where_nothing_can_fail_nothing_is_said(tmp_path):
    config = parse({name: value for name, value in CONFIG.items() if name != "reliability"}, "test")
    with create(tmp_path / "run.h5", config=config), open_run(tmp_path) as run:
        assert run.summary()["failures"] is None
        assert "steps/heard" not in run.names
        assert "links that failed" not in shown(run)
        assert "50 % of them are rich: batches 2 times as large" in shown(run)
    assert SIZES["member"] == 4
