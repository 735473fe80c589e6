import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocosfl_mpi.cost.ledger import MESSAGES, Ledger


def test_counts_bytes_and_messages_and_starts_anew():
    ledger = Ledger(3)
    ledger.count("query_up", 100)
    ledger.count("query_up", 100)
    ledger.count("gradient_down", 7, slice(1, None))
    ledger.count("weights_up", np.array([5, 6]), np.array([2, 0]))
    ledger.count("momentum_down", 1, np.array([True, False, True]))
    ledger.count("key_up", 3, np.array([1, 1]))
    sizes, messages = ledger.take()
    assert sizes.dtype == messages.dtype == np.int64
    sent = {name: sizes[:, i].tolist() for i, name in enumerate(MESSAGES) if sizes[:, i].any()}
    assert sent == {
        "query_up": [200, 200, 200],
        "key_up": [0, 6, 0],
        "gradient_down": [0, 7, 7],
        "weights_up": [6, 0, 5],
        "momentum_down": [1, 0, 1],
    }
    assert messages[:, MESSAGES.index("query_up")].tolist() == [2, 2, 2]
    assert messages[:, MESSAGES.index("key_up")].tolist() == [0, 2, 0]
    assert messages.sum() == 6 + 2 + 2 + 2 + 2
    again, none = ledger.take()
    assert not again.any()
    assert not none.any()
    assert sizes.any()  # what was taken is the caller's own


@given(st.lists(st.tuples(st.sampled_from(MESSAGES), st.integers(0, 2**40), st.integers(0, 3)), max_size=30))
def test_nothing_is_lost(calls):
    ledger = Ledger(4)
    for message, size, member in calls:
        ledger.count(message, size, np.array([member]))
    sizes, messages = ledger.take()
    assert int(sizes.sum()) == sum(size for _, size, _ in calls)
    assert int(messages.sum()) == len(calls)


def test_bytes_beyond_32_bits_are_exact():
    ledger = Ledger(1)
    ledger.count("key_up", 2**40 + 1)
    ledger.count("key_up", 2**40 + 1)
    assert int(ledger.take()[0].sum()) == 2**41 + 2


@pytest.mark.parametrize("size", [-1, 1.5])
def test_bytes_are_whole_and_not_negative(size):
    with pytest.raises(ValueError, match="whole and not negative"):
        Ledger(1).count("key_up", size)


def test_bad_calls_are_refused():
    with pytest.raises(ValueError, match="unknown message 'labels'"):
        Ledger(1).count("labels", 1)
    with pytest.raises(ValueError, match="members = 0"):
        Ledger(0)
    with pytest.raises(IndexError):
        Ledger(2).count("key_up", 1, np.array([2]))
