import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocosfl_mpi.evaluation.few_labels import balanced
from mocosfl_mpi.streams import Streams


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    share=st.floats(0.001, 1.0),
    seed=st.integers(0, 2**32),
)
def test_classes_give_equally_many_unless_they_are_used_up(labels, share, seed):
    labels = np.array(labels, dtype=np.int64)
    chosen = balanced(labels, share, Streams(seed))
    assert (np.diff(chosen) > 0).all()
    there = np.unique(labels)
    assert len(chosen) == max(len(there), round(share * len(labels)))
    taken = np.array([(labels[chosen] == label).sum() for label in there])
    whole = np.array([(labels == label).sum() for label in there])
    assert taken.min() >= 1
    left = taken < whole
    assert not left.any() or taken[left].min() >= taken.max() - 1


def test_a_smaller_share_is_part_of_a_larger_one_and_seeds_differ():
    labels = np.arange(1000) % 10
    small, large = (balanced(labels, share, Streams(3)) for share in (0.01, 0.1))
    assert (len(small), len(large)) == (10, 100)
    assert set(small) < set(large)
    assert not np.array_equal(large, balanced(labels, 0.1, Streams(4)))
    assert np.array_equal(balanced(labels, 1.0, Streams(3)), np.arange(1000))


@pytest.mark.parametrize("share", [0.0155, 0.0154])
def test_the_remainder_goes_to_random_classes(share):
    """15 images of 10 classes: five classes give a second one, other ones with another seed."""
    labels = np.arange(1000) % 10
    seconds = {
        tuple(np.flatnonzero(np.bincount(labels[balanced(labels, share, Streams(seed))]) == 2)) for seed in range(20)
    }
    assert {len(classes) for classes in seconds} == {round(1000 * share) - 10}
    assert len(seconds) > 10
