from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mocosfl_mpi.config import Data
from mocosfl_mpi.data import sources
from mocosfl_mpi.data.sources import download, load
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.streams import Streams
from tests.unit.data.files import write_cifar, write_idx

STREAMS = Streams(3)


def test_subsets_are_drawn_without_replacement_in_the_original_order():
    whole = load(Data(), None, STREAMS)
    part = load(Data(train_images=50, test_images=20), None, STREAMS)
    assert (len(part.train), len(part.test)) == (50, 20)
    flat = {image.tobytes(): i for i, image in enumerate(whole.train.pixels)}
    places = [flat[image.tobytes()] for image in part.train.pixels]
    assert places == sorted(set(places))
    np.testing.assert_array_equal(whole.train.labels[places], part.train.labels)
    again = load(Data(train_images=50), None, Streams(3))
    np.testing.assert_array_equal(again.train.pixels, part.train.pixels)
    other = load(Data(train_images=50), None, Streams(4))
    assert not np.array_equal(other.train.pixels, part.train.pixels)


def test_the_training_draw_does_not_depend_on_the_test_draw():
    one, two = (load(Data(train_images=9, test_images=k), None, STREAMS) for k in (5, 6))
    np.testing.assert_array_equal(one.train.pixels, two.train.pixels)


@pytest.mark.parametrize("setting", ["train_images", "test_images"])
def test_more_images_than_there_are_is_bad_input(setting):
    with pytest.raises(BadInput, match=rf"data\.{setting} = 6001"):
        load(Data(**{setting: 6001}), None, STREAMS)


def test_each_source_is_reached_by_name(tmp_path):
    write_cifar(tmp_path, "cifar10")
    write_cifar(tmp_path, "cifar100")
    write_idx(tmp_path / "fashion-mnist")
    for source, classes, channels in (("cifar10", 10, 3), ("cifar100", 100, 3), ("fashion-mnist", 10, 1)):
        dataset = load(Data(source=source, allow_unofficial=True), tmp_path, STREAMS)
        assert (dataset.class_count, dataset.channels) == (classes, channels)
        assert len(dataset.mean) == len(dataset.std) == channels
    with pytest.raises(BadInput, match="set --data-dir or MOCOSFL_DATA"):
        load(Data(source="cifar10"), None, STREAMS)


def write_folder(root: Path) -> None:
    for split in ("train", "val"):
        for colour, name in (((255, 0, 0), "blue"), ((0, 0, 255), "crimson")):
            place = root / split / name
            place.mkdir(parents=True)
            Image.new("RGB", (40, 20), colour[::-1]).save(place / "wide.png")
            Image.new("L", (16, 48), 128).save(place / "tall.png")


def test_an_image_folder_is_resized_and_cropped(tmp_path):
    write_folder(tmp_path / "set")
    config = Data(source="image-folder", folder="set", image_size=16)
    dataset = load(config, tmp_path, STREAMS)
    assert dataset.classes == ("blue", "crimson")
    assert dataset.train.pixels.shape == (4, 3, 16, 16)
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]
    assert dataset.image_size == 16
    assert {tuple(p) for p in dataset.train.pixels[1].reshape(3, -1).T.tolist()} == {(0, 0, 255)}
    assert np.all(dataset.train.pixels[0] == 128)  # greyscale became RGB


def test_image_folder_faults_are_bad_input(tmp_path):
    write_folder(tmp_path / "set")
    config = Data(source="image-folder", folder="set", image_size=16)
    broken = tmp_path / "set/train/blue/wide.png"
    good = broken.read_bytes()
    broken.write_bytes(good[: len(good) // 2])
    with pytest.raises(BadInput, match=r"wide\.png cannot be decoded"):
        load(config, tmp_path, STREAMS)
    broken.write_bytes(good)
    (tmp_path / "set/val/green").mkdir()
    with pytest.raises(BadInput, match="green"):
        load(config, tmp_path, STREAMS)
    Image.new("RGB", (20, 20)).save(tmp_path / "set/val/green/a.png")
    with pytest.raises(BadInput, match="only one has green"):
        load(config, tmp_path, STREAMS)


class NoNetwork:
    def __init__(self, *args, **kwargs):
        assert kwargs["download"]
        raise OSError("<urlopen error Name or service not known>")


@pytest.mark.parametrize(("source", "name"), [("cifar10", "CIFAR10"), ("fashion-mnist", "FashionMNIST")])
def test_a_failing_download_is_bad_input(source, name, tmp_path, monkeypatch):
    monkeypatch.setattr(sources.torchvision().datasets, name, NoNetwork)
    with pytest.raises(BadInput, match=rf"{source} could not be downloaded to .*Name or service not known"):
        download(source, tmp_path / "new")


@pytest.mark.parametrize("source", ["embedded", "image-folder", "typo"])
def test_what_cannot_be_downloaded_is_refused(source, tmp_path):
    with pytest.raises(BadInput, match="choose one of fashion-mnist, cifar10"):
        download(source, tmp_path)


def test_svhn_is_read_through_torchvision(tmp_path, monkeypatch):
    class Stored:
        def __init__(self, root, split):
            self.data = np.zeros((32, 32, 3, 5), np.uint8).transpose(3, 2, 0, 1)
            self.labels = np.arange(5)

    for name in ("train_32x32.mat", "test_32x32.mat"):
        (tmp_path / name).write_bytes(b"stand-in")
    monkeypatch.setattr("mocosfl_mpi.data.check.require_scipy", lambda: None)
    monkeypatch.setattr(sources.torchvision().datasets, "SVHN", Stored)
    dataset = load(Data(source="svhn"), tmp_path, STREAMS)
    assert dataset.train.pixels.shape == (5, 3, 32, 32)
    assert dataset.train.pixels.flags.c_contiguous
    assert dataset.class_count == 10
    monkeypatch.undo()
    monkeypatch.setattr("mocosfl_mpi.data.check.require_scipy", lambda: None)
    with pytest.raises(BadInput, match="no usable SVHN"):
        load(Data(source="svhn"), tmp_path, STREAMS)
