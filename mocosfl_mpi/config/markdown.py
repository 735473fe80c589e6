"""The settings as a page of documentation: ``python -m mocosfl_mpi.config.markdown``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mocosfl_mpi.config.experiment import Config
from mocosfl_mpi.config.writing import to_toml_value

_INTRODUCTION = """# Settings

<!-- Generated: python -m mocosfl_mpi.config.markdown > docs/configuration.md -->

A configuration is a TOML file, a preset (`mocosfl presets` lists them), or either with `--set section.key=value` as
often as you like. Every setting has a default, so the shortest file is an empty one. Unknown keys are refused with the
nearest known one; so are values out of the bounds below, and combinations that mean nothing. The file of a run holds
the complete configuration.

    mocosfl presets quickstart > mine.toml
    mocosfl run mine.toml -n 2 --set seed=7 --set 'evaluation.label_shares=[0.1]'

*empty* means that the key is left out; `--set section.key=` with nothing behind returns a setting to its default. What
a combination of settings must fulfil beyond these bounds is said when it is refused.
"""
_TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}
_BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}


def markdown() -> str:
    """Return ``docs/configuration.md``."""
    schema = Config.model_json_schema()
    plain, groups = {}, {}
    for name, field in schema["properties"].items():
        reference = field.get("$ref", "")
        if reference:
            groups[name] = schema["$defs"][reference.rpartition("/")[2]]
        else:
            plain[name] = field
    lines = [_INTRODUCTION, "## The experiment", "", *_table(plain)]
    for name, group in groups.items():
        lines += ["", f"## `[{name}]`", "", " ".join(group["description"].split()), "", *_table(group["properties"])]
    return "\n".join(lines) + "\n"


def _table(fields: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield from ("| setting | type | default | meaning |", "|-|-|-|-|")
    for name, field in fields.items():
        meaning = " ".join(field["description"].split()).replace("|", "\\|")
        yield f"| `{name}` | {kind(field)} | {_default(field['default'])} | {meaning} |"


def _default(value: Any) -> str:
    return (
        "*empty*" if value in (None, "") else f"`{to_toml_value(tuple(value) if isinstance(value, list) else value)}`"
    )


def kind(field: Mapping[str, Any]) -> str:
    """Type, choices and bounds of one field of a JSON schema, in words."""
    if "anyOf" in field:
        return kind(next(choice for choice in field["anyOf"] if choice["type"] != "null")) + ", or *empty*"
    if "enum" in field:
        return ", ".join(f"`{choice}`" if choice else "*empty*" for choice in field["enum"])
    if field["type"] == "array":
        return f"list of: {kind(field['items'])}"
    words = [_TYPES[field["type"]]]
    words += [text.format(_number(field[bound])) for bound, text in _BOUNDS.items() if bound in field]
    if "multipleOf" in field:
        words.append(f"multiple of {field['multipleOf']}")
    if "pattern" in field:
        words.append("`" + field["pattern"].replace("|", "\\|") + "`")
    if field.get("minLength") == 1:
        words.append("not empty")
    return ", ".join(words)


def _number(value: float) -> str:
    return "2⁶³" if value == 2**63 else f"{value:g}"


if __name__ == "__main__":
    print(markdown(), end="")
