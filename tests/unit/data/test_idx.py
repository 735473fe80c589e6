import contextlib
import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocosfl_mpi.data.check import IDX_NAMES
from mocosfl_mpi.data.idx import load_embedded, load_fashion_mnist, read_idx
from mocosfl_mpi.errors import BadInput
from tests.unit.data.files import idx_bytes, write_idx


def test_the_embedded_subset_is_balanced_and_gives_its_positions():
    dataset = load_embedded()
    assert dataset.train.pixels.shape == (6000, 1, 28, 28)
    assert dataset.test.pixels.shape == (1000, 1, 28, 28)
    assert dataset.train.pixels.dtype == np.uint8
    assert dataset.train.labels.dtype == np.int64
    assert np.bincount(dataset.train.labels).tolist() == [600] * 10
    assert np.bincount(dataset.test.labels).tolist() == [100] * 10
    assert dataset.train.pixels.mean() / 255 == pytest.approx(dataset.mean[0], abs=0.005)
    assert dataset.train.pixels.std() / 255 == pytest.approx(dataset.std[0], abs=0.005)
    assert dataset.notes == ()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["FashionMNIST/raw", "fashion-mnist", "."])
def test_all_layouts_are_found(packed, place, tmp_path):
    write_idx(tmp_path / place, packed=packed)
    dataset = load_fashion_mnist(tmp_path)
    assert dataset.train.pixels.shape == dataset.test.pixels.shape == (7, 1, 28, 28)
    assert dataset.train.labels.shape == (7,)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_header_or_length_is_bad_input(tmp_path_factory, data):
    array = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    content = idx_bytes(array)
    path = tmp_path_factory.mktemp("idx") / "images"
    length = data.draw(st.integers(0, len(content) + 3).filter(lambda n: n != len(content)))
    path.write_bytes(content[:length] + b"x" * (length - len(content)))
    with pytest.raises(BadInput):
        read_idx(path, 3)
    place = data.draw(st.integers(0, 15))
    value = data.draw(st.integers(0, 255).filter(lambda v: v != content[place]))
    path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
    with pytest.raises(BadInput):
        read_idx(path, 3)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_packed_file_is_bad_input_or_the_same(tmp_path_factory, data):
    array = np.random.default_rng(0).integers(0, 256, (2, 28, 28), dtype=np.uint8)
    content = bytearray(gzip.compress(idx_bytes(array)))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(content)))
    path = tmp_path_factory.mktemp("idx") / "images.gz"
    path.write_bytes(content[:cut])
    with contextlib.suppress(BadInput):
        np.testing.assert_array_equal(read_idx(path, 3), array)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        (IDX_NAMES[0], np.zeros((7, 27, 28), np.uint8)),
        (IDX_NAMES[0], np.zeros((0, 28, 28), np.uint8)),
        (IDX_NAMES[1], np.zeros(6, np.uint8)),
        (IDX_NAMES[1], np.full(7, 10, np.uint8)),
        (IDX_NAMES[3], np.zeros((7, 1), np.uint8)),
    ],
)
def test_arrays_that_do_not_fit_are_bad_input(name, array, tmp_path):
    write_idx(tmp_path)
    (tmp_path / name).write_bytes(idx_bytes(array))
    with pytest.raises(BadInput, match=name):
        load_fashion_mnist(tmp_path)
