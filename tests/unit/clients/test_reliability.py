import numpy as np
import pytest

from mocosfl_mpi.clients.reliability import Reliability
from mocosfl_mpi.config import parse
from mocosfl_mpi.saving import Trip
from mocosfl_mpi.streams import Streams

EVERYBODY = np.arange(20)

KINDS = ("query_up", "key_up", "gradient_down")


def reliability(seed=5, **chances):
    return Reliability(parse({"reliability": chances}, "test"), Streams(seed))


def test_nothing_fails_unless_asked():
    nothing = reliability()
    assert np.array_equal(nothing.survivors(3, EVERYBODY), EVERYBODY)
    assert nothing.present(3, 4, EVERYBODY).all()
    delivery = nothing.delivery(Trip(3, 4), EVERYBODY)
    assert delivery.heard.all()
    assert delivery.answered.all()
    assert [times for _, times in nothing.deliveries([Trip(0, step) for step in range(7)], EVERYBODY)] == [7]


def test_draws_have_their_probabilities():
    """20 clients in 500 epochs, or steps: standard deviation of a share at most 0.005."""
    failing = reliability(client_dropout=0.3, query_loss=0.1, key_loss=0.2, gradient_loss=0.4, sync_miss=0.6)
    epochs = range(500)
    assert np.mean([len(failing.survivors(epoch, EVERYBODY)) for epoch in epochs]) / 20 == pytest.approx(0.7, abs=0.025)
    assert np.mean([failing.present(0, step, EVERYBODY) for step in epochs]) == pytest.approx(0.4, abs=0.025)
    found = [failing.delivery(Trip(0, step), EVERYBODY) for step in epochs]
    for kind, expected in (("query", 0.9), ("key", 0.8), ("gradient", 0.6), ("heard", 0.72), ("answered", 0.432)):
        assert np.mean([getattr(delivery, kind) for delivery in found]) == pytest.approx(expected, abs=0.025), kind
    by_client = np.mean([delivery.query for delivery in found], axis=0)
    assert np.abs(by_client - 0.9).max() < 5 * 0.0135, "no client is special"


def test_draws_of_different_kinds_have_nothing_to_do_with_each_other():
    failing = reliability(client_dropout=0.5, query_loss=0.5, key_loss=0.5, gradient_loss=0.5, sync_miss=0.5)
    rows = []
    for step in range(400):
        delivery = failing.delivery(Trip(step, 0), EVERYBODY)
        there = np.isin(EVERYBODY, failing.survivors(step, EVERYBODY))
        present = failing.present(step, 0, EVERYBODY)
        rows.append(np.stack([there, present, delivery.query, delivery.key, delivery.gradient]))
    table = np.concatenate(rows, axis=1).astype(float)
    assert np.abs(np.corrcoef(table) - np.eye(5)).max() < 5 / np.sqrt(table.shape[1])


def test_a_client_fails_whoever_else_is_there():
    failing = reliability(query_loss=0.5, key_loss=0.5, gradient_loss=0.5, sync_miss=0.5, client_dropout=0.5)
    some = np.array([3, 7, 11, 18])
    for step in range(20):
        everybody, few = (failing.delivery(Trip(1, step), pool) for pool in (EVERYBODY, some))
        for kind in ("query", "key", "gradient"):
            assert np.array_equal(getattr(everybody, kind)[some], getattr(few, kind))
        alone = [failing.delivery(Trip(1, step), np.array([client])).query[0] for client in some]
        assert alone == few.query.tolist()
    assert [d.query.tolist() for d, _ in failing.deliveries([Trip(1, step) for step in range(5)], some)] == [
        failing.delivery(Trip(1, step), some).query.tolist() for step in range(5)
    ]


def test_what_travels_at_all():
    nobody, everybody = np.zeros(4, dtype=bool), np.ones(4, dtype=bool)
    sent = {message: reliability().delivery(Trip(0, 0, down=False), np.arange(4)).sent(message) for message in KINDS}
    assert [s.tolist() for s in sent.values()] == [everybody.tolist(), everybody.tolist(), nobody.tolist()]
    replayed = reliability().delivery(Trip(0, 0, up=False, down=False), np.arange(4))
    assert not any(replayed.sent(message).any() or replayed.lost(message).any() for message in KINDS)
    assert not replayed.answered.any()
    trips = [Trip(0, step, down=step % 3 == 2) for step in range(7)]
    assert [(found.trip.down, times) for found, times in reliability().deliveries(trips, np.arange(4))] == [
        (True, 2),
        (False, 5),
    ]


def test_one_is_always_left():
    hopeless = reliability(client_dropout=0.999, sync_miss=0.999)
    pool = np.array([2, 5, 9])
    left, there = set(), set()
    for epoch in range(100):
        survivors = hopeless.survivors(epoch, pool)
        present = hopeless.present(epoch, 0, pool)
        assert len(survivors) >= 1
        assert present.any()
        left |= set(survivors.tolist())
        there |= set(pool[present].tolist())
    assert left == there == {2, 5, 9}, "not always the same"


def test_what_was_sent_and_what_was_lost():
    """Four clients: all well; query lost; key lost; gradient lost."""
    delivery = reliability().delivery(Trip(0, 0), np.arange(4))
    delivery.query[1] = delivery.key[2] = delivery.gradient[3] = False
    assert delivery.heard.tolist() == [True, False, False, True]
    assert delivery.answered.tolist() == [True, False, False, False]
    assert delivery.sent("query_up").all()
    assert delivery.sent("key_up").all()
    assert delivery.sent("gradient_down").tolist() == [True, False, False, True], "the server answers whom it heard"
    assert delivery.lost("query_up").tolist() == [False, True, False, False]
    assert delivery.lost("key_up").tolist() == [False, False, True, False]
    assert delivery.lost("gradient_down").tolist() == [False, False, False, True]
