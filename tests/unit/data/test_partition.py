import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocosfl_mpi.config import Partition
from mocosfl_mpi.data.partition import counts, partition
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.streams import Streams

KINDS = ["iid", "shards", "shards_full", "classes", "dirichlet", "volumes"]
NOTHING_DROPPED = ["iid", "shards_full", "dirichlet", "volumes"]


def labels_of(per_class):
    """Labels with ``per_class[k]`` images of class k, shuffled."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(per_class)), per_class))


def deal(kind, labels, clients, classes=10, seed=1, **settings_):
    return partition(Partition(kind=kind, **settings_), labels, clients, classes, Streams(seed))


@given(
    kind=st.sampled_from(KINDS),
    per_class=st.lists(st.integers(0, 40), min_size=2, max_size=8),
    clients=st.integers(1, 12),
    each=st.integers(1, 4),
    alpha=st.sampled_from([1e-6, 0.05, 0.5, 10.0]),
    skew=st.sampled_from([0.0, 1.0, 3.0]),
    seed=st.integers(0, 5),
)
@settings(max_examples=300, deadline=None)
def test_parts_are_disjoint_and_complete_or_refused_in_words(kind, per_class, clients, each, alpha, skew, seed):
    labels = labels_of(per_class)
    try:
        parts = deal(kind, labels, clients, len(per_class), seed, classes_per_client=each, alpha=alpha, skew=skew)
    except BadInput:
        return
    assert len(parts) == clients
    assert all(part.dtype == np.int64 and len(part) >= 1 for part in parts)
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    assert set(together) <= set(range(len(labels)))
    table = counts(parts, labels, len(per_class))
    assert table.shape == (clients, len(per_class))
    assert table.sum(axis=1).tolist() == [len(part) for part in parts]
    if kind in NOTHING_DROPPED:
        assert len(together) == len(labels)
        assert table.sum(axis=0).tolist() == per_class
    if kind == "iid":
        assert np.ptp(table.sum(axis=1)) <= 1
    if kind == "shards":
        assert set(table.sum(axis=1)) == {len(labels) // (clients * each) * each}
    if kind == "classes":
        assert ((table > 0).sum(axis=1) == each).all()
        held = (table > 0).any(axis=0)
        present = np.array(per_class) > 0
        assert held.sum() == min(present.sum(), clients * each)
        assert (table.sum(axis=0)[held] == np.array(per_class)[held]).all()
    if kind == "volumes":
        assert (np.diff(table.sum(axis=1)) <= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind):
    labels = labels_of([30] * 10)
    one, same, other = (deal(kind, labels, 6, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_published_shards_of_two_on_aligned_classes():
    """Spec 5.2, CIFAR-10: 5 clients with 2 shards own exactly 2 classes of 10 each."""
    labels = labels_of([50] * 10)
    for seed in range(5):
        assert ((counts(deal("shards", labels, 5, seed=seed), labels, 10) > 0).sum(axis=1) == 2).all()


def test_published_shards_drop_the_end_of_the_label_order():
    """50,000 images of CIFAR-100, 1,000 clients × 20 shards: 2 images a shard, 40 a client, 20 % unused."""
    labels = np.repeat(np.arange(100), 500)
    parts = deal("shards", labels, 1000, 100, classes_per_client=20)
    assert {len(part) for part in parts} == {40}
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(40_000))
    kinds = (counts(parts, labels, 100) > 0).sum(axis=1)
    assert 12 <= kinds.min() <= kinds.max() == 20


def test_shards_hold_neighbours_in_the_stable_label_order():
    labels = np.array([1, 0, 1, 0, 1, 0])
    parts = deal("shards", labels, 3, 2, classes_per_client=1)
    assert sorted(part.tolist() for part in parts) == [[0, 5], [1, 3], [2, 4]]


def test_volumes_follow_the_power_law():
    sizes = [len(part) for part in deal("volumes", labels_of([110]), 4, 1, skew=1.0)]
    assert sum(sizes) == 110
    assert sizes == [53, 26, 18, 13]  # 110 · 12/25 · (1, 1/2, 1/3, 1/4) = 52.8, 26.4, 17.6, 13.2
    assert [len(part) for part in deal("volumes", labels_of([110]), 4, 1, skew=0.0)] == [28, 28, 27, 27]


def test_a_smaller_alpha_is_more_skewed():
    labels = labels_of([400] * 10)
    largest = [
        (lambda t: (t.max(axis=1) / t.sum(axis=1)).mean())(counts(deal("dirichlet", labels, 10, alpha=a), labels, 10))
        for a in (0.1, 1.0, 100.0)
    ]
    assert largest[0] > largest[1] > largest[2]
    assert largest[2] < 0.15


@pytest.mark.parametrize(
    ("kind", "settings_", "clients", "reason"),
    [
        ("iid", {}, 41, r"client\.count = 41 exceeds the 40 training images"),
        ("iid", {"min_images": 11}, 4, r"client 0 of 4 with 10 images, fewer than partition\.min_images = 11"),
        ("shards", {"classes_per_client": 11}, 4, r"= 44 shards, which would be empty"),
        ("shards_full", {"min_images": 11}, 4, r"partition\.min_images = 11"),
        ("classes", {"classes_per_client": 5}, 4, r"classes_per_client = 5 exceeds the 4 classes"),
        ("classes", {"classes_per_client": 4}, 11, r"gives class 0 to 11 clients, but it has only 10 images"),
        ("dirichlet", {"alpha": 0.01}, 20, r"raise alpha or lower client\.count"),
        ("volumes", {"skew": 3.0}, 10, r"lower client\.count, partition\.skew"),
    ],
)
def test_impossible_partitions_say_what_to_change(kind, settings_, clients, reason):
    with pytest.raises(BadInput, match=reason):
        deal(kind, labels_of([10] * 4), clients, 4, **settings_)


@pytest.mark.parametrize("kinds", [1, 2, 3])
def test_overlapping_parts_serve_more_clients_than_images(kinds):
    labels = labels_of([8] * 5)
    parts = deal("overlapping", labels, 200, 5, classes_per_client=kinds, images_per_client=7)
    assert all(len(np.unique(part)) == 7 == len(part) for part in parts)
    assert ((counts(parts, labels, 5) > 0).sum(axis=1) == kinds).all()
    held = np.bincount(np.concatenate(parts), minlength=40)
    assert held.min() > 10, "every image is somewhere"
    assert abs(held.mean() - 35) < 1e-9


def test_overlapping_refuses_more_images_than_a_class_has():
    with pytest.raises(BadInput, match=r"images_per_client = 20 of partition.classes_per_client = 2"):
        deal("overlapping", labels_of([8] * 5), 3, 5, classes_per_client=2, images_per_client=20)
    with pytest.raises(BadInput, match="'overlapping'"):
        deal("iid", labels_of([8] * 5), 41, 5)


def dealt(labels, clients, rich, **settings):
    return partition(Partition(**settings), labels, clients, 10, Streams(3), rich)


@pytest.mark.parametrize("kind", NOTHING_DROPPED)
def test_the_rich_own_their_share_and_nothing_is_dropped(kind):
    labels = np.arange(1000) % 10
    parts = dealt(labels, 10, 2, kind=kind, rich_data=0.8)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1000))
    assert sum(len(part) for part in parts[:2]) == 800
    assert [np.array_equal(a, np.sort(a)) for a in parts] == [True] * 10


@pytest.mark.parametrize(
    ("clients", "share", "kept", "each"),
    [(100, 0.2, 16_000, (400, 100)), (500, 0.2, 16_000, (80, 20)), (200, 0.5, 25_000, (200, 50))],
)
def test_the_published_deal_drops_what_it_is_known_to_drop(clients, share, kept, each):
    """MocoSFL's presets for heterogeneous clients, CIFAR-10's 50,000 images, two classes a client."""
    labels = np.repeat(np.arange(10), 5000)
    rich = int(share * clients)
    parts = dealt(labels, clients, rich, kind="shards", rich_data=0.8, rich_deal="published")
    assert {len(part) for part in parts[:rich]} == {each[0]}
    assert {len(part) for part in parts[rich:]} == {each[1]}
    everything = np.concatenate(parts)
    assert len(everything) == len(np.unique(everything)) == kept
    iid = dealt(labels, clients, rich, kind="iid", rich_data=0.8, rich_deal="published")
    assert {len(part) for part in iid[:rich]} == {40_000 // rich}
    assert {len(part) for part in iid[rich:]} == {10_000 // (clients - rich)}


def test_too_few_images_for_a_group_are_refused():
    with pytest.raises(BadInput, match="gives the 8 other clients 2 of 20 images"):
        dealt(np.arange(20) % 10, 10, 2, kind="iid", rich_data=0.9)
    with pytest.raises(BadInput, match="200 shards, and clients want 164 of them; set"):
        dealt(np.arange(20) % 10, 10, 9, kind="shards", rich_data=0.9, rich_deal="published")
