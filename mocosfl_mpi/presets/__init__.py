"""Named configurations: a few hand-made TOML files, and the published tables row by row."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from mocosfl_mpi.config import apply_settings, read_toml
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.methods import METHODS, Method
from mocosfl_mpi.presets.published import published


def presets() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every preset: name to (title, values that differ from the defaults)."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for file in sorted(files(__name__).iterdir(), key=lambda f: f.name):
        if file.name.endswith(".toml"):
            text = file.read_text(encoding="utf-8")
            found[file.name.removesuffix(".toml")] = (text.splitlines()[0].lstrip("# "), tomllib.loads(text))
    return found | published()


def load(name_or_path: str) -> tuple[str, dict[str, Any]]:
    """``(name, values)`` of a preset, or of a TOML file of the user's.

    Raises
    ------
    BadInput
        Neither a preset nor a readable TOML file.
    """
    known = presets()
    if name_or_path in known:
        return name_or_path, known[name_or_path][1]
    path = Path(name_or_path)
    if path.suffix == ".toml" or path.exists():
        return path.stem, read_toml(path)
    import difflib

    close = difflib.get_close_matches(name_or_path, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "`mocosfl presets` lists them."
    raise BadInput(f"{name_or_path!r} is neither a preset nor a TOML file; {hint}")


def give_way(values: Mapping[str, Any], typed: Collection[str]) -> dict[str, Any]:
    """A preset's ``values`` with what their method demands, but for settings that were ``typed`` (dotted names).

    A preset runs with any method: what it says of clients and data gives way to the method, never to a person.
    """
    demands = METHODS.get(str(values.get("method")), Method()).demands
    return apply_settings(values, [demand for demand in demands if demand.partition("=")[0] not in typed])
