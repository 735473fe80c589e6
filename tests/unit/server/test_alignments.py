"""What an alignment leaves to each client and what travels for it, on a client of two layers."""

import pytest

from mocosfl_mpi.algorithms import alignment
from mocosfl_mpi.clients.keep import Keep
from mocosfl_mpi.config import apply_settings, parse
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.server.alignments import Scope, Traffic

NAMES = ("stem.conv.weight", "stem.norm.weight", "block1.conv.weight", "block10.conv.weight")
SPANS = ((0, 30), (30, 40), (40, 90), (90, 100))
ALL = ((0, 100),)
BOTH = "federation.alignment=online_and_momentum"


WHOLE = ("backbone.stem.conv.weight", "backbone.stem.norm.weight", "head.0.weight", "predictor.0.weight")


def aligned(*settings):
    config = parse(apply_settings({}, settings), "x")
    return alignment(config, WHOLE if config.whole_network else NAMES, SPANS, SPANS[:1], 8)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ((), (("momentum", ALL), ("velocity", ALL))),
        (("method=monacosfl",), (("velocity", ALL),)),
        (("method=monacosfl", "client.velocity_at_sync=averaged"), ()),
        (("client.velocity_at_sync=reset",), (("momentum", ALL),)),
        (("client.frozen=true",), ()),
        (("federation.alignment=none",), (("online", ALL), ("momentum", ALL), ("velocity", ALL))),
        (("federation.alignment=momentum_reset",), (("velocity", ALL),)),
        (
            ("method=monacosfl", "federation.aligned_layers=['block1']", "client.velocity_at_sync=reset"),
            tuple((state, ((0, 40), (90, 100))) for state in ("online", "momentum", "velocity")),
        ),
        (("method=monacosfl", "federation.momentum_every=2"), (("momentum", ALL, True), ("velocity", ALL))),
        (("method=monacosfl", "federation.momentum_compression=int8"), (("velocity", ALL), ("residual", ALL))),
        (
            (
                "method=monacosfl",
                "federation.momentum_compression=topk",
                "federation.momentum_every=5",
                "federation.aligned_layers=['stem']",
            ),
            (
                ("online", ((40, 100),)),
                ("momentum", ((40, 100),)),
                ("momentum", ((0, 40),), True),
                ("velocity", ALL),
                ("residual", ((0, 40),)),
            ),
        ),
        (
            ("method=fl_moco", "contrast.memory_length=6"),
            (("momentum", ALL), ("velocity", ALL), ("memory", ((0, 48),))),
        ),
        (
            ("method=fl_moco", "contrast.memory_length=6", "federation.momentum_every=2", BOTH),
            (("momentum", ALL, True), ("velocity", ALL), ("memory", ((0, 48),))),
        ),
        (("method=fl_byol",), (("momentum", ALL), ("velocity", ALL))),
        (("method=fl_simclr",), (("velocity", ALL),)),
        (
            ("method=fedema",),
            (("online", ALL, True), ("momentum", ALL, True), ("velocity", ALL), ("scale", ((0, 1),))),
        ),
        (("method=fedu",), (("online", ((90, 100),), True), ("momentum", ALL), ("velocity", ALL))),
        (
            ("method=standalone", "contrast.memory_length=6"),
            (("online", ALL), ("momentum", ALL), ("velocity", ALL), ("memory", ((0, 48),))),
        ),
        (("method=fl_simsiam", "client.velocity_at_sync=averaged"), ()),
    ],
)
def test_clients_keep_what_is_not_aligned(settings, kept):
    assert aligned(*settings).kept == tuple(Keep(*keep) for keep in kept)


@pytest.mark.parametrize(
    ("settings", "traffic", "means"),
    [
        ((), (Traffic("weights", 400, 400, 1),), 2),
        (("method=monacosfl",), (Traffic("weights", 400, 400, 1), Traffic("momentum", 400, 400, 1)), 2),
        (("federation.alignment=none",), (), 2),
        (("method=standalone",), (), 2),
        (("method=fedema",), (Traffic("weights", 400, 400, 1, flops=3 * 30 + 2 + 1 + 1 + 3 * 100),), 2),
        (("method=fedu",), (Traffic("weights", 400, 400, 1, flops=3 * 30 + 2 + 1),), 2),
        (("federation.alignment=momentum_reset",), (Traffic("weights", 400, 400, 1),), 2),
        (
            ("client.velocity_at_sync=averaged", "federation.aligned_layers=['block10', 'stem']"),
            (Traffic("weights", 200, 200, 1), Traffic("velocity", 200, 200, 1)),
            3,
        ),
        (
            ("method=monacosfl", "federation.momentum_compression=int8", "federation.momentum_every=4"),
            (Traffic("weights", 400, 400, 1), Traffic("momentum", 100 + 4 * 4, 400, 4, flops=7 * 100 + 4)),
            2.25,
        ),
        (
            ("method=monacosfl", "federation.momentum_compression=topk", "federation.momentum_topk=0.1"),
            (Traffic("weights", 400, 400, 1), Traffic("momentum", (3 + 1 + 5 + 1) * 8, 400, 1, flops=4 * 100)),
            3,
        ),
    ],
)
def test_bytes_of_a_synchronisation(settings, traffic, means):
    found = aligned(*settings)
    assert found.traffic(4) == traffic
    assert found.means == means
    compressed, scaled = any("compression" in setting for setting in settings), "method=fedema" in settings
    assert found.copies == 200 * compressed + scaled


def test_scope_joins_neighbours_and_knows_the_rest():
    scope = Scope(((10, 20), (20, 30), (50, 60)), 60)
    assert scope.columns == ((10, 30), (50, 60))
    assert scope.rest == ((0, 10), (30, 50))
    assert scope.numbers == 30


def test_parts_are_due_at_every_so_manieth_synchronisation():
    found = aligned("method=monacosfl", "federation.momentum_every=3")
    due = [[part.state for part in found.due(number)] for number in range(1, 7)]
    assert due == [["online"], ["online"], ["online", "momentum"]] * 2


def test_layers_of_a_whole_network_are_named_like_those_of_its_beginning():
    config = parse(apply_settings({}, ["method=fl_byol", "federation.aligned_layers=['stem', 'head']"]), "x")
    names = ("backbone.stem.conv.weight", "backbone.block1.conv.weight", "head.0.weight", "predictor.0.weight")
    assert alignment(config, names, SPANS, (), 8).scope.columns == ((0, 30), (40, 90))


def test_a_layer_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(BadInput, match=r"names 'block9', and the clients' part .* stem, block1, block10; name some"):
        aligned("federation.aligned_layers=['stem', 'block9']")
