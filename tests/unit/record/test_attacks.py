"""The file of attacks: rows come back, more are added, damage is one message."""

from __future__ import annotations

import dataclasses
import math

import h5py
import pytest

from mocosfl_mpi.config import parse
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record import attack_schema
from mocosfl_mpi.record.attacks import Outcome, attack_attributes, notes_text, open_for_more, read_outcomes
from mocosfl_mpi.record.form import Form

CONFIG = parse({"method": "monacosfl"}, "test")


def outcome(number: int = 0, **changes: object) -> Outcome:
    plain = Outcome(
        key=f"{number:064x}",
        state="ab" * 32,
        steps=8,
        trained=True,
        attack="ridge",
        kind="reconstruction",
        adversary="server",
        adaptive=-1,
        protocol="ours",
        client=2,
        images=16,
        effort=0.5,
        seed=number,
        seconds=1.25,
        macs=3e9,
        notes={"penalty": 0.1},
        picture="ridge.png",
        scores={"mse": 0.25 + number, "ssim": 0.5},
        floors={"constant_mean": {"mse": 0.5, "ssim": 0.125}},
    )
    return dataclasses.replace(plain, **changes)


def attributes() -> dict:
    return attack_attributes(
        CONFIG, command="mocosfl attack", launcher="none", host="node-zwei-ü", ranks=1, threads=1, versions={}
    )


def written(directory, *outcomes: Outcome) -> None:
    with open_for_more(directory, attributes()) as writer:
        for one in outcomes:
            writer.add(one)


def test_rows_come_back_and_more_are_added(tmp_path):
    assert read_outcomes(tmp_path) == []
    reason = outcome(1, reason="no labels: ü", scores={}, floors={}, notes={}, picture="")
    written(tmp_path, outcome(0), reason)
    written(tmp_path, outcome(2))
    assert read_outcomes(tmp_path) == [outcome(0), reason, outcome(2)]
    assert not list(tmp_path.glob("*.part"))


def test_rows_are_read_while_more_are_written(tmp_path):
    with open_for_more(tmp_path, attributes()) as writer:
        writer.add(outcome(0))
        assert read_outcomes(tmp_path) == [outcome(0)]


def test_a_metric_or_floor_that_the_schema_lacks_is_a_fault_of_the_program(tmp_path):
    with open_for_more(tmp_path, attributes()) as writer:
        with pytest.raises(KeyError, match="sism"):
            writer.add(outcome(scores={"sism": 1.0}))
        with pytest.raises(KeyError, match="luck"):
            writer.add(outcome(floors={"luck": {"mse": 1.0}}))


def test_long_texts_are_cut_and_odd_numbers_left_out(tmp_path):
    written(tmp_path, outcome(reason="ü" * 5000, notes={"nan": math.nan, "left": 1.0}))
    (found,) = read_outcomes(tmp_path)
    assert found.reason == "ü" * 298 + "…"
    assert found.notes == {"left": 1.0}
    many = {f"number{n}": 1.5 for n in range(1000)}
    assert len(notes_text(many)) <= 2000


@pytest.mark.parametrize("damaged", ["text", "cut", "another", "row"])
def test_damage_is_one_message(tmp_path, damaged):
    written(tmp_path, outcome(0), outcome(1))
    path = tmp_path / "attacks.h5"
    if damaged == "text":
        path.write_text("not HDF5")
    elif damaged == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        with h5py.File(path, "r+") as file:
            if damaged == "another":
                del file.attrs["schema"]
                file.attrs["schema"] = b"mocosfl-run"
            else:
                file["jobs/notes"][1] = b"{not JSON"
    with pytest.raises(BadInput, match=r"attacks\.h5"):
        read_outcomes(tmp_path)


def test_the_schema_is_sound():
    form: Form = attack_schema.ATTACKS
    assert form.growing == form.dimensions["series"].labels == ("job",)
    for entry in form.entries.values():
        assert set(entry.dims) <= set(form.dimensions)
        assert entry.units in {"1", "s", "mac"}
        assert (entry.dtype == "text" and entry.growing is not None) == (entry.width > 0)
    names = {field.name for field in dataclasses.fields(Outcome)}
    assert {name.removeprefix("jobs/") for name in form.entries if name.startswith("jobs/")} == names - {
        "scores",
        "floors",
    }
    assert set(attack_schema.PRINCIPAL.values()) <= set(attack_schema.METRICS)
