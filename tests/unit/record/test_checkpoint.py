"""A checkpoint is whole and good, or it is not believed."""

import json
import os
import subprocess

import numpy as np
import pytest
from safetensors.numpy import load_file

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.checkpoint import KEPT, MANIFEST, Draft, Manifest, newest, remove_unfinished

ARRAYS = {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.array(7)}


def facts(steps):
    return Manifest(
        config_hash="c", data_sha256="d", versions={"torch": "2"}, threads={"server": 1},
        epoch=steps // 4, step=steps % 4, steps=steps, rows={"step": steps},
    )  # fmt: skip


def write(directory, steps):
    draft = Draft(directory, steps)
    draft.add("server-online", ARRAYS)
    draft.add("parked-000000", {"rows": np.full((1, 2), steps, dtype=np.float64)})
    return draft.commit(facts(steps))


def test_round_trip_keeps_every_bit_shape_and_type(tmp_path):
    path = write(tmp_path, 5)
    saved, warnings = newest(tmp_path)
    assert warnings == []
    assert (saved.path, saved.manifest.epoch, saved.manifest.step, saved.manifest.rows) == (path, 1, 1, {"step": 5})
    found = saved.arrays("server-online")
    assert {k: (v.dtype, v.shape) for k, v in found.items()} == {k: (v.dtype, v.shape) for k, v in ARRAYS.items()}
    assert all(np.array_equal(found[k], v) for k, v in ARRAYS.items())
    assert saved.names("parked-") == ["parked-000000"]
    assert np.array_equal(load_file(path / "server-online.safetensors")["weights"], ARRAYS["weights"])


def test_the_last_two_are_kept(tmp_path):
    for steps in (1, 2, 30):
        write(tmp_path, steps)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000000002", "step-0000000030"]
    assert KEPT == 2


def test_unfinished_ones_do_not_count_and_are_removed(tmp_path):
    write(tmp_path, 1)
    draft = Draft(tmp_path, 2)
    draft.add("server-online", ARRAYS)
    assert newest(tmp_path)[0].manifest.steps == 1
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000001"]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


PART = {"bytes": 1, "sha256": "0" * 64}
DAMAGE = {
    "bit": lambda path: flip(path / "server-online.safetensors"),
    "cut": lambda path: os.truncate(path / "server-online.safetensors", 10),
    "gone": lambda path: (path / "parked-000000.safetensors").unlink(),
    "no manifest": lambda path: (path / MANIFEST).unlink(),
    "cut manifest": lambda path: os.truncate(path / MANIFEST, 40),
    "only a manifest": lambda path: [p.unlink() for p in path.glob("*.safetensors")],
    "empty manifest": lambda path: (path / MANIFEST).write_text("{}"),
    "odd manifest": lambda path: (path / MANIFEST).write_text("[" * 100_000),
    "a file elsewhere": lambda path: rewrite(path, lambda m: m["files"].update({"../x.safetensors": PART})),
    "a negative step": lambda path: rewrite(path, lambda m: m.update(step=-1)),
    "an unknown key": lambda path: rewrite(path, lambda m: m.update(code="import os")),
}  # fmt: skip


def rewrite(path, change):
    values = json.loads((path / MANIFEST).read_text())
    change(values)
    (path / MANIFEST).write_text(json.dumps(values))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_one_falls_back_with_a_warning(tmp_path, damage):
    write(tmp_path, 1)
    DAMAGE[damage](write(tmp_path, 2))
    saved, warnings = newest(tmp_path)
    assert saved.manifest.steps == 1
    assert len(warnings) == 1
    assert "step-0000000002" in warnings[0]
    assert "falling back" in warnings[0]


@pytest.mark.parametrize("damage", DAMAGE)
def test_none_good_is_refused_and_nothing_removed(tmp_path, damage):
    DAMAGE[damage](write(tmp_path, 2))
    with pytest.raises(BadInput, match=r"no checkpoint in .* is good.*step-0000000002.*remove"):
        newest(tmp_path)
    assert (tmp_path / "step-0000000002").exists()


def test_another_format_is_named(tmp_path):
    rewrite(write(tmp_path, 2), lambda m: m.update(format=9))
    with pytest.raises(BadInput, match="format 9"):
        newest(tmp_path)


def test_a_damaged_one_of_the_same_step_is_replaced(tmp_path):
    flip(write(tmp_path, 2) / "server-online.safetensors")
    write(tmp_path, 2)
    assert newest(tmp_path)[0].manifest.steps == 2


def test_none_at_all(tmp_path):
    assert newest(tmp_path / "nowhere") == (None, [])


def test_a_full_disk_leaves_the_one_before(tmp_path):
    """On a file system of 1 MiB of its own, where that may be mounted."""
    small = tmp_path / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        write(small, 1)
        draft = Draft(small, 2)
        with pytest.raises(OSError, match="No space left"):
            draft.add("server-online", {"weights": np.zeros(2**20)})
        draft.abandon()
        assert newest(small)[0].manifest.steps == 1
        assert [path.name for path in small.iterdir()] == ["step-0000000001"]
    finally:
        subprocess.run(["umount", str(small)], check=True)
