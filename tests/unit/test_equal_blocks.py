"""A checkpoint says in how many blocks pools were cut: the rule behind it has changed once, and decides last bits."""

from types import SimpleNamespace

import pytest

from mocosfl_mpi.config import parse
from mocosfl_mpi.simulation import Simulation


def said(then, now):
    """What a run that goes on is told, if its checkpoint has the versions ``then``, and this program ``now``."""
    facts, saved = (SimpleNamespace(versions={"torch": "2", **blocks}, threads={}) for blocks in (now, then))
    return Simulation._changes(facts, SimpleNamespace(manifest=saved))


@pytest.mark.parametrize(
    ("settings", "blocks"),
    [
        ({"client": {"count": 100}}, {"blocks": "24, larger first"}),
        ({"client": {"count": 1000}}, {"blocks": "72, larger first"}),
        ({"client": {"count": 24}}, {}),
        ({"client": {"count": 100}, "compute": {"block_size": 6}}, {}),
    ],
)
def test_only_pools_whose_blocks_have_changed_are_spoken_of(settings, blocks):
    now = Simulation._blocks(SimpleNamespace(config=parse(settings, "here")))
    assert now == blocks
    assert said(now, now) == []
    warnings = said({}, now)
    assert len(warnings) == len(blocks)
    assert all(f"blocks None -> {count}" in warnings[0] for count in blocks.values())
