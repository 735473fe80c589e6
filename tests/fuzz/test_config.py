"""Configurations and profiles that nobody would write: valid or BadInput, nothing else."""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import math
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mocosfl_mpi.config import Config, apply_settings, parse, read_toml, to_toml
from mocosfl_mpi.config import settings as all_settings
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.presets import load, presets
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.retime import profiles
from mocosfl_mpi.retime.model import retime
from tests.fuzz.mutations import mutate, mutations
from tests.unit.retime.ledgers import write

pytestmark = pytest.mark.slow
THOUSAND = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))

PRESETS = presets()
NAMES = [name for name, _, _ in all_settings()]
DEFAULTS = [default for _, _, default in all_settings()]
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, 1e308, 5e-324, -0.0, math.nan, math.inf]),
)
LEAVES = st.one_of(
    NUMBERS,
    st.booleans(),
    st.text(max_size=20),
    st.sampled_from([default for default in DEFAULTS if isinstance(default, str)]),
    st.dates(),
    st.times(),
    st.datetimes(timezones=st.sampled_from([None, dt.UTC])),
)
KEYS = st.one_of(st.sampled_from([*NAMES, *Config.model_fields, *(n.rpartition(".")[2] for n in NAMES)]), st.text())
VALUES = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)), max_leaves=8
)
PLAUSIBLE = st.one_of(
    st.integers(0, 300),
    st.floats(0, 1),
    st.booleans(),
    st.sampled_from([value for value in DEFAULTS if value is not None]),
)
"""What a careful person might write; some of it makes a valid configuration."""
CHANGES = st.one_of(
    st.lists(st.tuples(st.sampled_from(NAMES), PLAUSIBLE), min_size=1, max_size=2),
    st.lists(st.tuples(st.one_of(st.sampled_from(NAMES), KEYS), VALUES), min_size=1, max_size=4),
)


def use(config: Config) -> None:
    """What a run asks of a configuration before any work; it must hold for every valid one."""
    assert config.pool_size >= 1
    assert config.block_size >= 1
    assert config.rows_per_client >= 1
    assert parse(config.model_dump(mode="json"), "again").hash() == config.hash()
    assert parse(tomllib.loads(to_toml(config)), "again") == config


@given(values=st.dictionaries(KEYS, VALUES, max_size=5))
@THOUSAND
def test_any_nested_values(values):
    with contextlib.suppress(BadInput):
        use(parse(values, "here"))


@given(name=st.sampled_from(sorted(PRESETS)), changes=CHANGES)
@THOUSAND
def test_mutated_presets(name, changes):
    values = copy.deepcopy(load(name)[1])
    for path, value in changes:
        *sections, key = path.split(".")
        target = values
        for section in sections:
            target = target.setdefault(section, {}) if isinstance(target, dict) else target
        if isinstance(target, dict):
            target[key] = value
    with contextlib.suppress(BadInput):
        use(parse(values, "here"))


@given(
    values=st.one_of(
        st.sampled_from([values for _, values in PRESETS.values()]), st.dictionaries(KEYS, VALUES, max_size=3)
    ),
    assignments=st.lists(
        st.one_of(
            st.text(max_size=30),
            st.tuples(st.one_of(st.sampled_from(NAMES), KEYS), st.one_of(st.text(max_size=20), VALUES.map(repr))).map(
                "=".join
            ),
        ),
        max_size=3,
    ),
)
@THOUSAND
def test_any_assignments(values, assignments):
    with contextlib.suppress(BadInput):
        use(parse(apply_settings(values, assignments), "here"))


TOML = [to_toml(parse(load(name)[1], name)).encode() for name in ("smoke", "quickstart", "cifar10-quick")]


@given(st.data())
@THOUSAND
def test_damaged_toml_files(tmp_path_factory, data):
    content = data.draw(st.sampled_from(TOML))
    path = tmp_path_factory.getbasetemp() / "damaged.toml"
    path.write_bytes(mutate(content, data.draw(mutations(len(content)))))
    with contextlib.suppress(BadInput):
        use(parse(read_toml(path), "here"))


KINDS = {"device": profiles.Device, "network": profiles.Network, "server": profiles.Server}
SHIPPED = [(path.read_bytes(), kind) for path in profiles.shipped().values() for kind in KINDS.values()]


@given(st.data())
@THOUSAND
def test_damaged_profiles(tmp_path_factory, data):
    content, kind = data.draw(st.sampled_from(SHIPPED))
    path = tmp_path_factory.getbasetemp() / "profile.toml"
    path.write_bytes(mutate(content, data.draw(mutations(len(content)))))
    with contextlib.suppress(BadInput):
        assert isinstance(profiles.load(str(path), kind), kind)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    with open_run(write(tmp_path_factory.mktemp("run") / "run.h5", epochs=3)) as run:
        yield run


@given(data=st.data(), sigma=st.one_of(st.floats(0, 10), st.floats()), seed=st.integers())
@THOUSAND
def test_any_valid_profile_gives_finite_times(recorded, data, sigma, seed):
    chosen = []
    for name, kind in KINDS.items():
        fields = [field for field in kind.model_fields if field not in ("kind", "title")]
        values = {
            field: data.draw(st.one_of(st.floats(1e-6, 1e6), NUMBERS)) for field in fields if data.draw(st.booleans())
        }
        try:
            chosen.append(kind.model_validate({"kind": name, "title": "", fields[0]: 1.0, **values}))
        except ValueError:
            whole = {"kind": name, "title": "", **dict.fromkeys(fields[: 3 if name == "network" else 1], 1.0)}
            chosen.append(kind.model_validate(whole))
    try:
        timed = retime(recorded, *chosen, sigma=sigma, seed=seed)
    except BadInput:
        return
    assert all(math.isfinite(second) and second >= 0 for second in timed.seconds)
    assert timed.joules is None or all(math.isfinite(joule) for joule in timed.joules)
    assert timed.bytes_used.tolist() == recorded["simulated/bytes"].sum(axis=(1, 2)).tolist()
