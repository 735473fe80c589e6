"""Damaged data files: BadInput, or a data set that training can use."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mocosfl_mpi.config import Data
from mocosfl_mpi.data.sources import load
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.streams import Streams
from tests.fuzz.mutations import mutate, mutations
from tests.unit.data.files import write_cifar, write_idx

pytestmark = pytest.mark.slow
THOUSAND = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))


def sound(config: Data, folder) -> None:
    """Load it; what comes must be images that every later step can take for granted."""
    try:
        found = load(config, folder, Streams(0))
    except BadInput:
        return
    for images in (found.train, found.test):
        assert images.pixels.dtype == np.uint8
        assert images.labels.dtype == np.int64
        assert images.pixels.ndim == 4
        assert len(images.pixels) == len(images.labels) > 0
        assert 0 <= images.labels.min() <= images.labels.max() < len(found.classes)
        assert images.pixels.shape[1:] == found.train.pixels.shape[1:]
    assert len(found.mean) == len(found.std) == found.train.pixels.shape[1]


def damage(data, folder, hot=None):
    """Change one of the files below ``folder``, and give back what undoes it."""
    path = data.draw(st.sampled_from(sorted(path for path in folder.rglob("*") if path.is_file())))
    content = path.read_bytes()
    path.write_bytes(mutate(content, data.draw(mutations(len(content), hot))))
    return lambda: path.write_bytes(content)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "packed"])
def fashion(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fashion")
    write_idx(folder, images=3, packed=request.param)
    return folder


@given(st.data())
@THOUSAND
def test_idx_files(fashion, data):
    undo = damage(data, fashion, hot=20)
    try:
        sound(Data(source="fashion-mnist"), fashion)
    finally:
        undo()


@pytest.fixture(scope="module", params=["cifar10", "cifar100"])
def cifar(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_cifar(folder, request.param, images=2)
    return request.param, folder


@given(st.data())
@THOUSAND
def test_cifar_files(cifar, data):
    source, folder = cifar
    undo = damage(data, folder, hot=250)
    try:
        sound(Data(source=source, allow_unofficial=True), folder)
    finally:
        undo()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split in ("train", "val"):
        for number, kind in enumerate(("png", "jpg", "gif", "bmp", "tiff", "webp")):
            place = folder / "mine" / split / f"class{number % 2}"
            place.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (12, 9, 3), dtype=np.uint8)
            # torchvision's folder goes by suffix; Pillow by content, so that any of its decoders can be met
            Image.fromarray(pixels).save(
                place / f"{number}.{'png' if kind == 'gif' else kind}", format=kind.replace("jpg", "jpeg")
            )
    return folder


@given(st.data())
@THOUSAND
def test_folders_of_pictures(pictures, data):
    undo = damage(data, pictures, hot=60)
    try:
        sound(Data(source="image-folder", folder="mine", image_size=8), pictures)
    finally:
        undo()
