import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocosfl_mpi.streams import Streams, philox4x32


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        # known answers of Random123 (kat_vectors, philox4x32 10)
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, words):
    assert philox4x32(np.array(counter, dtype=np.uint64), key).tolist() == list(words)


def test_philox_takes_many_counters_at_once():
    counters = np.random.default_rng(0).integers(0, 2**32, (5, 7, 4), dtype=np.uint64)
    together = philox4x32(counters, (1, 2))
    for place in np.ndindex(5, 7):
        assert np.array_equal(together[place], philox4x32(counters[place], (1, 2)))


clients = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=8)


@given(
    seed=st.integers(0, 2**63 - 1),
    ids=clients,
    epoch=st.integers(0, 9999),
    step=st.integers(0, 9999),
    count=st.integers(1, 40),
    more=st.integers(0, 9),
)
def test_a_row_depends_on_nothing_but_its_own_name(seed, ids, epoch, step, count, more):
    streams = Streams(seed)
    together = streams.uniforms("views", epoch=epoch, step=step, clients=ids, count=count)
    assert together.shape == (len(ids), count)
    assert ((together >= 0) & (together < 1)).all()
    for row, client in zip(together, ids, strict=True):
        longer = Streams(seed).uniforms("views", epoch=epoch, step=step, clients=[client], count=count + more)
        assert np.array_equal(longer[0, :count], row)


def test_every_part_of_the_name_matters():
    def draw(seed=1, purpose="views", epoch=2, step=3, client=4):
        return tuple(Streams(seed).uniforms(purpose, epoch=epoch, step=step, clients=[client], count=4)[0])

    different = {
        draw(),
        draw(seed=2),
        draw(purpose="view"),
        draw(epoch=3, step=2),
        draw(epoch=3),
        draw(step=4, client=3),
        draw(step=4),
        draw(client=5),
    }
    assert len(different) == 8


def test_uniformity():
    numbers = Streams(0).uniforms("views", epoch=0, step=0, clients=np.arange(500), count=400).ravel()
    n = len(numbers)
    assert abs(numbers.mean() - 0.5) < 5 / np.sqrt(12 * n)
    assert abs(numbers.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / n)
    counts = np.bincount((numbers * 100).astype(int), minlength=100)
    chi2 = ((counts - n / 100) ** 2 / (n / 100)).sum()
    assert 99 - 5 * np.sqrt(198) < chi2 < 99 + 5 * np.sqrt(198)
    for lag in (1, 2, 3, 4, 400):  # along a row, and from one client to the next
        correlation = np.corrcoef(numbers[:-lag], numbers[lag:])[0, 1]
        assert abs(correlation) < 5 / np.sqrt(n)


def test_generators_are_reproducible_and_apart():
    streams = Streams(3)
    a, b = (streams.generator("order", 1, 2).permutation(50) for _ in range(2))
    assert np.array_equal(a, b)
    others = [
        streams.generator("order", 2, 1),
        streams.generator("order", 12),
        streams.generator("pool", 1, 2),
        Streams(4).generator("order", 1, 2),
    ]
    assert len({tuple(g.permutation(50).tolist()) for g in others} | {tuple(a.tolist())}) == 5


@given(seed=st.integers(0, 2**63 - 1), ids=st.lists(st.integers(0, 10**6), max_size=3))
def test_torch_seeds_fit(seed, ids):
    found = Streams(seed).torch_seed("weights", *ids)
    assert 0 <= found < 2**63
    assert found == Streams(seed).torch_seed("weights", *[np.int64(i) for i in ids])


def test_streams_are_the_same_in_another_process():
    """No hash randomisation, no global state."""
    code = (
        "from mocosfl_mpi.streams import Streams; s = Streams(9);"
        "print(s.torch_seed('weights'), s.generator('pool', 1).integers(10**9),"
        "s.uniforms('views', epoch=1, step=2, clients=[3], count=2).tolist())"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    s = Streams(9)
    values = s.uniforms("views", epoch=1, step=2, clients=[3], count=2).tolist()
    assert runs == {f"{s.torch_seed('weights')} {s.generator('pool', 1).integers(10**9)} {values}\n"}
