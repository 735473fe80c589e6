"""The papers' calculator: its units, its counts by hand, and the digits that it prints."""

import pytest
import torch
from torch import nn

from mocosfl_mpi.config import Model
from mocosfl_mpi.cost.flops import measure
from mocosfl_mpi.cost.published import GIBI, MEBIBYTE, elements, published_megabytes, state
from mocosfl_mpi.split import cut
from mocosfl_mpi.split.cut import SplitNetwork, Trunk
from mocosfl_mpi.streams import Streams


def network(**model):
    return cut.build(Model(**model), 3, 32, Streams(1), torch.float32)


def operations(found):
    """fvcore's count of the client's part."""
    return measure(found.bottom, found.input_shape).last.macs + elements(found)[0]


def test_table_1_of_the_paper():
    cut1 = published_megabytes(200, 50, 65536, 1856, 200)
    cut2 = published_megabytes(200, 50, 65536, 75840, 200)
    assert cut1.latents == cut2.latents == 5000.0
    assert round(cut1.weights, 3) == 1.416
    assert round(cut2.weights, 2) == 57.86
    assert round(cut1.total, 1) == 5001.4
    assert round(cut2.total, 1) == 5057.9
    frozen = published_megabytes(200, 50, 1024, 78148, 200, frozen=True)
    assert round(frozen.total, 2) == 39.06
    assert frozen.weights == 0.0


def test_the_whole_network_of_the_federated_baseline():
    found = network(cut_layer=9, head="largeV2")
    scalars, size = state(found)
    assert scalars == 21_677_121  # running statistics and the counter of BatchNorm with them
    assert size == 4 * (scalars - 1) + 8
    assert round(published_megabytes(500, 10_000, 0, scalars, 100).total, 2) == 8269.17
    trunk = measure(found.trunk, found.smashed_shape).last.macs
    whole = operations(found) + trunk + elements(found)[1]
    assert whole == 568_991_744
    assert round(3 * whole * 500 * 10_000 / GIBI) == 7_948_723
    assert int(10 * 3 * whole / MEBIBYTE) / 10 == 1627.8


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ({"cut_layer": 1}, 2_097_152),
        ({"cut_layer": 2}, 78_249_984),
        ({"cut_layer": 2, "bottleneck": "C4S2"}, 78_839_808),
    ],
)
def test_operations_of_the_client(model, count):
    assert operations(network(**model)) == count


def test_computation_of_figures_3b_and_7():
    three, frozen = operations(network(cut_layer=2)), operations(network(cut_layer=2, bottleneck="C4S2"))
    assert int(10 * 3 * three / MEBIBYTE) / 10 == 223.8
    assert round(frozen * 200 * 50 / GIBI, 2) == 734.25
    assert round(100 * three / 568_991_744, 2) == 13.75


def test_elements_by_hand():
    bottom = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.GroupNorm(4, 8))
    head = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    trunk = Trunk(nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.GroupNorm(4, 16)), head)
    found = SplitNetwork(bottom, trunk, (3, 6, 6), (8, 6, 6), 4)
    assert elements(found) == (2 * 5 * 8 * 36, 5 * 16 * 9 + 2 * 32 + 16 * 9)
    assert not any(layer._forward_hooks for part in (bottom, trunk) for layer in part.modules())
