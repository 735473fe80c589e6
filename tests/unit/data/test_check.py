import subprocess
import sys

import pytest

from mocosfl_mpi.config import Data, parse
from mocosfl_mpi.data import check as module
from mocosfl_mpi.data.check import check, check_all
from mocosfl_mpi.errors import BadInput
from tests.unit.data.files import write_cifar, write_idx


def test_the_embedded_data_needs_nothing():
    check(Data(), None)


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "fashion-mnist", "svhn"])
def test_a_missing_directory_names_all_remedies(source, tmp_path):
    with pytest.raises(BadInput, match=rf"--data-dir or MOCOSFL_DATA, or run `mocosfl download {source}"):
        check(Data(source=source), None)
    with pytest.raises(BadInput, match="nowhere does not exist"):
        check(Data(source=source), tmp_path / "nowhere")


@pytest.mark.parametrize("source", ["cifar10", "cifar100"])
def test_missing_or_empty_cifar_files_are_named(source, tmp_path):
    place = write_cifar(tmp_path, source)
    config = Data(source=source, allow_unofficial=True)
    check(config, tmp_path)
    name = module.CIFAR[source].test[0].name
    (place / name).write_bytes(b"")
    with pytest.raises(BadInput, match=rf"missing or empty: \S*{name};"):
        check(config, tmp_path)
    (place / name).unlink()
    with pytest.raises(BadInput, match=rf"missing or empty: \S*{name};"):
        check(config, tmp_path)


def test_the_data_set_of_a_transfer_is_checked_too(tmp_path):
    config = parse({"evaluation": {"transfer": "fashion-mnist"}}, "test")
    with pytest.raises(BadInput, match=r"^evaluation.transfer = 'fashion-mnist': .*--data-dir"):
        check_all(config, None)
    write_idx(tmp_path / "fashion-mnist")
    check_all(config, tmp_path)
    check_all(parse({}, "test"), None)
    with pytest.raises(BadInput, match=r"^data.source = 'svhn'"):
        check_all(parse({"data": {"source": "svhn"}, "evaluation": {"transfer": "fashion-mnist"}}, "test"), None)


def test_a_file_cut_short_is_found_by_its_size(tmp_path):
    write_cifar(tmp_path)
    with pytest.raises(BadInput, match=r"data_batch_1 has [\d,]+ bytes, too few for the 10,000 images"):
        check(Data(source="cifar10"), tmp_path)


def test_the_inner_folder_is_recognised(tmp_path):
    place = write_cifar(tmp_path)
    with pytest.raises(BadInput, match="the data directory is the folder above"):
        check(Data(source="cifar10"), place)


def test_fashion_mnist_files_are_looked_for(tmp_path):
    with pytest.raises(BadInput, match="holds no Fashion-MNIST"):
        check(Data(source="fashion-mnist"), tmp_path)
    write_idx(tmp_path / "fashion-mnist", packed=True)
    check(Data(source="fashion-mnist"), tmp_path)
    (tmp_path / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(BadInput, match=r"missing or empty: .*t10k-labels"):
        check(Data(source="fashion-mnist"), tmp_path)


def test_svhn_says_that_scipy_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="pip install scipy"):
        check(Data(source="svhn"), tmp_path)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(BadInput, match=r"train_32x32\.mat"):
        check(Data(source="svhn"), tmp_path)


def test_image_folders_need_class_folders(tmp_path):
    config = Data(source="image-folder", folder="birds", image_size=32)
    with pytest.raises(BadInput, match=r"birds/train with one sub-folder"):
        check(config, tmp_path)
    (tmp_path / "birds/train/owl").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"birds/val with one sub-folder"):
        check(config, tmp_path)
    (tmp_path / "birds/val/owl").mkdir(parents=True)
    check(config, tmp_path)


def test_nothing_heavy_is_imported():
    code = (
        "import sys, mocosfl_mpi.data.check; "
        "print([m for m in ('torch', 'numpy', 'torchvision', 'mpi4py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
