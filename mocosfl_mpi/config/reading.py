"""Configurations from TOML files and from the command line."""

from __future__ import annotations

import copy
import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mocosfl_mpi.config.experiment import Config
from mocosfl_mpi.config.writing import settings
from mocosfl_mpi.errors import BadInput

DEEPEST = 50
"""Levels of tables in a file that is read."""


def parse(values: Mapping[str, Any], origin: str) -> Config:
    """Validate nested values into a Config.

    Raises
    ------
    BadInput
        Naming each offending key, its value and the remedy.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise refusal(error, origin) from None


def refusal(error: ValidationError, origin: str) -> BadInput:
    """What was wrong with a configuration, in words."""
    return BadInput(f"{origin}: " + "; ".join(_explain(item) for item in error.errors()))


def _explain(item: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in item["loc"] if not str(part).startswith("function-"))
    if item["type"] == "extra_forbidden":
        known = [name for name, _, _ in settings()] + list(Config.model_fields)
        close = difflib.get_close_matches(path, known, n=1, cutoff=0.5) or [
            name for name in known if name.rpartition(".")[2] == path.rpartition(".")[2]
        ]
        hint = f"; did you mean {close[0]!r}?" if close else "; `mocosfl presets quickstart` lists all keys"
        return f"unknown key {path!r}{hint}"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{path} = {item['input']!r}: {message}" if path else message


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file into nested values; a syntax error or unreadable file is bad input."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the configuration {path}: {error}") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError; huge numbers raise a plain one
        raise BadInput(f"{path} is not valid TOML: {error}") from None
    if _deeper(values, DEEPEST):
        raise BadInput(f"{path} has tables in tables over more than {DEEPEST} levels; a configuration has two")
    return values


def flat(values: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Nested settings by `section.key`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{start}{key}.") if isinstance(value, Mapping) else {f"{start}{key}": value}
    return found


def _deeper(values: Any, most: int) -> bool:
    """Whether there are more than ``most`` levels of tables and lists: what recurses over them would fail."""
    level = [values]
    for _ in range(most):
        insides = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in insides if isinstance(inner, dict | list)]
    return bool(level)


def apply_settings(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return ``values`` with ``a.b=v`` assignments laid over them.

    v is TOML, or a bare word taken as a string; ``a.b=`` returns a setting to its default.
    """
    result = copy.deepcopy(dict(values))
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip():
            raise BadInput(f"--set {assignment!r}: expected section.key=value, for example --set model.cut_layer=2")
        value = _value(text)
        if isinstance(value, dict):
            raise BadInput(f"--set {assignment!r}: set one key at a time, for example --set client.count=4")
        *sections, key = name.strip().split(".")
        target = result
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise BadInput(f"--set {assignment!r}: {section!r} is a value, not a section")
        if value is None:
            target.pop(key, None)
        else:
            target[key] = value
    return result


def overlay(values: Mapping[str, Any], changes: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """``values`` with ``changes`` laid over them, and the dotted names of all that was changed.

    A change is ``{"model.cut_layer": 2}`` or ``{"model": {"cut_layer": 2}}``; what it does not name stays.

    Raises
    ------
    BadInput
        A section is given a plain value, or a plain setting is treated as a section.
    """
    result, changed = copy.deepcopy(dict(values)), set()
    for name, value in _flat(changes):
        *sections, key = name.split(".")
        target = result
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise BadInput(f"{name} = {value!r}: {section!r} is a value, not a section")
        if isinstance(target.get(key), dict):
            raise BadInput(f"{name} = {value!r}: {key!r} is a section; give its settings, as {{'{name}.KEY': value}}")
        target[key] = value
        changed.add(name)
    return result, changed


def _flat(changes: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in changes.items():
        if not isinstance(name, str):
            raise BadInput(f"settings are named by text such as 'model.cut_layer', and {prefix}{name!r} is none")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _value(text: str) -> Any:
    """A TOML value, a bare word as a string, or None for nothing (the setting's default)."""
    if not text.strip():
        return None
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text.strip()
    return parsed["value"] if len(parsed) == 1 else text
