"""Beside the CPU torch of the tests, torchvision needs the shim; beside a matching one it does not."""

import sys

import pytest

from mocosfl_mpi.data import _torchvision
from mocosfl_mpi.errors import BadInput


def test_data_sets_and_transforms_are_usable():
    module = _torchvision.torchvision()
    assert module is _torchvision.torchvision()
    assert module.datasets.CIFAR10.base_folder == "cifar-10-batches-py"
    assert callable(module.transforms.functional.resized_crop)


def test_a_missing_torchvision_is_bad_input(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(BadInput, match="pip install torchvision"):
        _torchvision.torchvision.__wrapped__()


def test_own_operators_are_preferred_and_their_failure_is_noticed(monkeypatch):
    def refuse(path):
        raise OSError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr(_torchvision, "_load", refuse)
    assert not _torchvision._operators_load()
    monkeypatch.setattr(_torchvision, "_load", lambda path: None)
    assert _torchvision._operators_load()
