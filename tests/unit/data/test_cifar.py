import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocosfl_mpi.config import Data
from mocosfl_mpi.data import check
from mocosfl_mpi.data.cifar import load_cifar, read_batch
from mocosfl_mpi.errors import BadInput
from tests.unit.data.files import batch, write_cifar

PATH = Path("data_batch_1")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pixels_and_labels_come_back_as_written(protocol):
    content, pixels, labels = batch(protocol=protocol)
    images = read_batch(content, PATH, "labels", 10)
    assert images.pixels.dtype == np.uint8
    assert images.labels.dtype == np.int64
    np.testing.assert_array_equal(images.pixels, pixels)
    np.testing.assert_array_equal(images.labels, labels)


def test_a_file_written_by_todays_numpy_is_read():
    pixels = np.arange(3072 * 2, dtype=np.uint8).reshape(2, 3072)
    content = pickle.dumps({"data": pixels, "labels": [3, 4]}, 2)
    np.testing.assert_array_equal(read_batch(content, PATH, "labels", 10).pixels.reshape(2, -1), pixels)


@pytest.mark.parametrize("source", ["cifar10", "cifar100"])
def test_unofficial_files_are_refused_by_name_or_accepted_with_a_note(source, tmp_path):
    write_cifar(tmp_path, source)
    first = check.CIFAR[source].train[0].name
    with pytest.raises(BadInput, match=rf"md5 differs.*{first}.*data\.allow_unofficial = true"):
        load_cifar(Data(source=source), tmp_path)
    dataset = load_cifar(Data(source=source, allow_unofficial=True), tmp_path)
    assert len(dataset.train) == 12 * len(check.CIFAR[source].train)
    assert dataset.class_count == check.CIFAR[source].classes
    assert (dataset.channels, dataset.image_size) == (3, 32)
    assert len(dataset.notes) == 1
    assert first in dataset.notes[0]


def test_official_files_need_no_note(tmp_path, monkeypatch):
    place = write_cifar(tmp_path)
    release = check.CIFAR["cifar10"]
    digests = {path.name: check_md5(path) for path in place.iterdir()}
    official = [
        tuple(check.CifarFile(f.name, digests[f.name], 12) for f in files)
        for files in (release.train, release.test, (release.meta,))
    ]
    fields = {"train": official[0], "test": official[1], "meta": official[2][0]}
    monkeypatch.setitem(check.CIFAR, "cifar10", check.CifarRelease(**{**vars(release), **fields}))
    assert load_cifar(Data(source="cifar10"), tmp_path).notes == ()


def check_md5(path):
    import hashlib

    return hashlib.md5(path.read_bytes()).hexdigest()


class Harm:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_malicious_pickle_is_refused_and_runs_nothing(protocol, tmp_path):
    marker = tmp_path / "harmed"
    content = pickle.dumps({"data": Harm(marker), "labels": [1]}, protocol)
    with pytest.raises(BadInput, match=r"system"):
        read_batch(content, PATH, "labels", 10)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["builtins\neval", "os\nsystem", "numpy\nload", "numpy\nndarray.tofile", "copyreg\n_reconstructor"]
)
def test_no_other_name_is_reachable(name):
    content = b"\x80\x02c" + name.encode() + b"\n(X\x04\x00\x00\x00evilt R."
    with pytest.raises(BadInput, match="which no image file needs"):
        read_batch(content, PATH, "labels", 10)


@pytest.mark.parametrize(
    "content",
    [
        {"labels": [1, 2]},
        {"data": np.zeros((2, 3072), np.uint8)},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1, 10]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1, -1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1, 2.0]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1, 2**70]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [[1], [2]]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1, [2, 3]]},
        {"data": np.zeros((2, 1024), np.uint8), "labels": [1, 2]},
        {"data": np.zeros((2, 3072), np.int8), "labels": [1, 2]},
        {"data": np.zeros((2, 3072), np.float64), "labels": [1, 2]},
        {"data": np.zeros((0, 3072), np.uint8), "labels": []},
        {"data": np.asfortranarray(np.zeros((2, 3072), np.uint8)), "labels": [1, 2]},
        {"data": np.zeros(6144, np.uint8), "labels": [1, 2]},
        {"data": [[0] * 3072], "labels": [1]},
        [1, 2],
    ],
    ids=range(17),
)
def test_wrong_contents_are_bad_input(content):
    with pytest.raises(BadInput, match="data_batch_1 is not a usable CIFAR file"):
        read_batch(pickle.dumps(content, 2), PATH, "labels", 10)


CONTENT, PIXELS, _ = batch(images=2)
STRUCTURE = [i for i in range(len(CONTENT)) if i < 250 or i > len(CONTENT) - 250]


@given(st.integers(0, len(CONTENT) - 1))
@settings(max_examples=100, deadline=None)
def test_a_truncated_file_is_bad_input(length):
    with pytest.raises(BadInput):
        read_batch(CONTENT[:length], PATH, "labels", 10)


@given(st.lists(st.tuples(st.sampled_from(STRUCTURE), st.integers(0, 255)), min_size=1, max_size=3))
@settings(max_examples=400, deadline=None)
def test_a_damaged_file_is_bad_input_or_still_images(changes):
    damaged = bytearray(CONTENT)
    for place, value in changes:
        damaged[place] = value
    try:
        images = read_batch(bytes(damaged), PATH, "labels", 10)
    except BadInput:
        return
    assert images.pixels.shape == (2, 3, 32, 32)
    assert set(images.labels) <= set(range(10))


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_garbage_is_bad_input(content):
    with pytest.raises(BadInput):
        read_batch(b"\x80\x02" + content, PATH, "labels", 10)


@pytest.mark.parametrize("names", [[], ["one"] * 9, [1] * 10, "text"])
def test_wrong_class_names_are_bad_input(names, tmp_path):
    place = write_cifar(tmp_path)
    (place / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, 2))
    with pytest.raises(BadInput, match=r"batches\.meta"):
        load_cifar(Data(source="cifar10", allow_unofficial=True), tmp_path)
