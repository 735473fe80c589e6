"""Checkpoints whose state is another program's: refused with the reason, not with what numpy says."""

import numpy as np
import pytest
import torch

from mocosfl_mpi import __version__
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.config import apply_settings, parse
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.presets import load
from mocosfl_mpi.record.checkpoint import DIRECTORY, Draft, newest
from mocosfl_mpi.resumption import Resumption
from mocosfl_mpi.simulation import Conduct, Simulation

SETTINGS = ("data.train_images=120", "data.test_images=20", "evaluation.linear_probe=false", "client.count=6")


class Directory(Resumption):
    """The output directory of one process."""

    def __init__(self, config, out):
        self.cluster = Cluster()
        super().__init__(config, self.cluster, out, "smoke", "auto")


@pytest.fixture
def saved(tmp_path):
    """Directory of a run that has stopped after an epoch, and how to begin it again."""
    torch.set_num_threads(1)
    config = parse(apply_settings(load("smoke")[1], [*SETTINGS, "compute.precision=fp32"]), "smoke")

    def begin(resumption):
        return Simulation(resumption.cluster, resumption, Conduct("smoke", tmp_path / "out", quiet=True))

    first = Directory(config, tmp_path / "out")
    simulation = begin(first)
    simulation.clients.enter(np.arange(config.pool_size))
    simulation.clients.leave()  # so that clients have rows of their own
    simulation.checkpoints.save(1, 0, must=True)
    simulation.results.close()
    first.release()
    opened = []

    def again():
        opened.append(Directory(config, tmp_path / "out"))
        return begin(opened[0])

    yield tmp_path / "out" / DIRECTORY, again
    for directory in opened:
        directory.release()


def changed(directory, name, change, *, signed=True):
    """Write the checkpoint again with ``change`` made to the arrays of one file."""
    found, _ = newest(directory)
    files = {n: found.arrays(n) for n in (f.removesuffix(".safetensors") for f in found.manifest.files)}
    change(files[name])
    draft = Draft(directory, found.manifest.steps)
    for key, arrays in files.items():
        draft.add(key, arrays)
    versions = {n: v for n, v in found.manifest.versions.items() if signed or n != "mocosfl_mpi"}
    draft.commit(found.manifest.model_copy(update={"versions": versions}))


def narrower(name):
    def change(arrays):
        arrays[name] = arrays[name][..., :-1]

    return change


@pytest.mark.parametrize(
    ("file", "name", "reason"),
    [
        ("chronicle", "bytes", r"chronicle: bytes is \[3, 11\] there and \[3, 12\] here"),
        ("shared", "online", r"shared: online is \[347\] there and \[348\] here"),
        ("parked-000000", "rows", r"parked-000000: rows is \[3, \d+\] there and \[3, \d+\] here"),
    ],
)
def test_the_array_its_shapes_and_the_writer_are_named(saved, file, name, reason):
    directory, begin = saved
    changed(directory, file, narrower(name))
    with pytest.raises(BadInput, match=f"written by mocosfl_mpi {__version__} .*{reason}.*Continue the run with the"):
        begin()


def test_who_did_not_sign_is_called_so(saved):
    directory, begin = saved
    changed(directory, "chronicle", lambda arrays: arrays.pop("held"), signed=False)
    with pytest.raises(BadInput, match=r"development version .* that did not sign .*chronicle has no held, here"):
        begin()


def test_one_that_fits_is_taken_up(saved):
    directory, begin = saved
    changed(directory, "chronicle", lambda _: None, signed=False)
    simulation = begin()
    assert simulation.position == (1, 0)
    simulation.results.close()
