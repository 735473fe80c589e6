"""``compute.compile``: the same bits on any number of ranks, and what the uncompiled backend computes."""

from __future__ import annotations

import numpy as np
import pytest

from mocosfl_mpi.record.reader import differences, open_run
from tests.mpi.many import carry_out
from tests.mpi.test_rank_invariance import words

pytestmark = [pytest.mark.mpi, pytest.mark.slow]

ROWS = {
    "mocosfl": (),
    "u-shaped": ("method=split_u_shaped",),
    "some absent": ("reliability.client_dropout=0.3", "compute.block_size=4"),
}
SMALL = ("compute.precision=fp64", "compute.server_threads=1", "model.backbone=vgg11", "model.cut_layer=3")
"""A network with few convolutions: what takes the time here is the C++ compiler."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All rows with the same settings added on a number of ranks; their directories by name."""
    done = {}

    def at(ranks, *more):
        if (ranks, more) not in done:
            folder = tmp_path_factory.mktemp(f"on-{ranks}")
            paths = {name: folder / str(number) for number, name in enumerate(ROWS)}
            commands = [words(paths[name], *row, *SMALL, *more) for name, row in ROWS.items()]
            carry_out(commands, ranks, folder / "rows.json", timeout=1200)
            done[ranks, more] = paths
        return done[ranks, more]

    return at


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("name", ROWS)
def test_every_rank_count_gives_the_same_bits(runs, name, ranks):
    few, more = (runs(count, "compute.compile=true")[name] for count in (1, ranks))
    with open_run(few) as one, open_run(more) as many:
        assert one.attrs["config"]["compute"]["compile"] is True
        assert one.attrs["config"]["compute"]["backend"] == "stacked"
        assert differences(one, many) is None


@pytest.mark.parametrize("name", ROWS)
def test_it_computes_what_the_uncompiled_backend_computes(runs, name):
    compiled, plain = (runs(1, more)[name] for more in ("compute.compile=true", "compute.backend=stacked"))
    with open_run(compiled) as one, open_run(plain) as other:
        for series in ("steps/loss", "evaluations/knn_top1", "result/linear_top1"):
            np.testing.assert_allclose(one[series], other[series], rtol=1e-8, atol=1e-12, err_msg=series)
