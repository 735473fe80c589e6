"""Damaged checkpoints: a good one or BadInput, whatever lies on the disk; nothing outside is touched."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.checkpoint import MANIFEST, Draft, Manifest, newest

pytestmark = pytest.mark.slow

many = settings(max_examples=1000, suppress_health_check=list(HealthCheck))
WEIGHTS = np.arange(40, dtype=np.float32)


def write(directory):
    draft = Draft(directory, 3)
    draft.add("server-online", {"weights": WEIGHTS})
    facts = Manifest(
        config_hash="c", data_sha256="d", versions={"torch": "2"}, threads={"server": 1},
        epoch=0, step=3, steps=3, rows={"step": 3},
    )  # fmt: skip
    return draft.commit(facts)


def believed(directory):
    """The checkpoint is refused, or everything in it is what was written."""
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    try:
        saved, _ = newest(directory)
        if saved is not None and "server-online" in saved:
            assert np.array_equal(saved.arrays("server-online")["weights"], WEIGHTS)
    except BadInput as error:
        assert str(directory) in str(error)
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


@st.composite
def edits(draw):
    return [
        (
            draw(st.sampled_from(["flip", "cut", "overwrite", "append"])),
            draw(st.floats(0, 1)),
            draw(st.binary(max_size=40)),
        )
        for _ in range(draw(st.integers(1, 4)))
    ]


def damage(data, changes):
    data = bytearray(data)
    for kind, place, junk in changes:
        at = int(place * max(0, len(data) - 1))
        if kind == "flip" and data:
            data[at] ^= 1 << (len(junk) % 8)
        elif kind == "cut":
            del data[at:]
        elif kind == "overwrite":
            data[at : at + len(junk)] = junk
        else:
            data += junk
    return bytes(data)


@many
@given(name=st.sampled_from([MANIFEST, "server-online.safetensors"]), changes=edits())
def test_damaged_bytes(name, changes):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder)) / name
        path.write_bytes(damage(path.read_bytes(), changes))
        believed(Path(folder))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from([*Manifest.model_fields, "other"])


@many
@given(changes=st.dictionaries(names, json_values, min_size=1, max_size=4), drop=st.lists(names, max_size=2))
def test_manifests_of_other_values(changes, drop):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder)) / MANIFEST
        values = json.loads(path.read_text()) | changes
        for name in drop:
            values.pop(name, None)
        path.write_text(json.dumps(values))
        believed(Path(folder))


@many
@given(name=st.text(max_size=60), size=st.integers(-5, 500))
def test_manifests_that_name_other_files(name, size):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder)) / MANIFEST
        values = json.loads(path.read_text())
        values["files"][name] = {"bytes": size, "sha256": "0" * 64}
        path.write_text(json.dumps(values))
        with pytest.raises(BadInput):
            newest(Path(folder))
