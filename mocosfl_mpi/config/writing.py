"""Configurations as text: every setting by name, and commented TOML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mocosfl_mpi.config.experiment import Config
from mocosfl_mpi.config.sections import Section


def settings() -> Iterator[tuple[str, str, Any]]:
    """Every setting as ``(dotted name, description, default)``, in the order of the file."""
    for name, field in Config.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Section):
            for key, inner in type(default).model_fields.items():
                yield f"{name}.{key}", " ".join((inner.description or "").split()), inner.default
        else:
            yield name, " ".join((field.description or "").split()), default


def to_toml(config: Config, title: str = "") -> str:
    """The complete configuration as commented TOML that ``mocosfl run`` accepts; unset values stand commented out."""
    lines = [f"# {line}" for line in title.splitlines()]
    section = ""
    for name, description, _ in settings():
        head, _, key = name.rpartition(".")
        if head != section:
            section = head
            group = getattr(config, head)
            lines += ["", f"# {(type(group).__doc__ or '').splitlines()[0]}", f"[{head}]"]
        value = getattr(getattr(config, head), key) if head else getattr(config, key)
        lines.append(f"# {description}")
        lines.append(f"# {key} =" if value is None else f"{key} = {to_toml_value(value)}")
    return "\n".join(lines) + "\n"


def to_toml_value(value: Any) -> str:
    """One value as TOML writes it."""
    if isinstance(value, tuple):
        return "[" + ", ".join(to_toml_value(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
