from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocosfl_mpi.algorithms import ALGORITHMS
from mocosfl_mpi.server.fed_server import due, number


@pytest.mark.parametrize(("steps", "freq", "syncs"), [(125, 10, 11), (500, 10, 10), (250, 5, 5), (50, 1, 1)])
def test_published_numbers_of_synchronisations(steps, freq, syncs):
    """Spec 4.1: 11 instead of 10 where the frequency does not divide the steps."""
    found = [step for step in range(steps) if due(step, steps, freq)]
    assert len(found) == syncs
    every = steps // freq
    assert found[0] == every - 1
    assert found[-1] == steps - 1


@given(steps=st.integers(1, 400), data=st.data())
def test_an_epoch_always_ends_with_a_synchronisation(steps, data):
    freq = data.draw(st.integers(1, steps))
    found = [step for step in range(steps) if due(step, steps, freq)]
    every = steps // freq
    assert found[-1] == steps - 1
    assert freq <= len(found) == -(-steps // every)
    assert {b - a for a, b in pairwise(found[:-1])} <= {every}


def test_alignments_of_the_methods():
    assert [part.state for part in ALGORITHMS["mocosfl"].alignment] == ["online"]
    assert [part.state for part in ALGORITHMS["monacosfl"].alignment] == ["online", "momentum"]


@given(steps=st.integers(1, 60), epochs=st.integers(1, 4), data=st.data())
def test_synchronisations_are_numbered_over_the_run(steps, epochs, data):
    freq = data.draw(st.integers(1, steps))
    found = [
        number(epoch, step, steps, freq) for epoch in range(epochs) for step in range(steps) if due(step, steps, freq)
    ]
    assert found == list(range(1, len(found) + 1))
