"""The pages that are made from tables of the program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mocosfl_mpi.cli import COMMANDS
from mocosfl_mpi.config.markdown import kind
from mocosfl_mpi.config.writing import settings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("module", "page"), [("mocosfl_mpi.manual", "cli.md"), ("mocosfl_mpi.config.markdown", "configuration.md")]
)
def test_a_page_is_what_its_module_prints(module, page):
    command = [sys.executable, "-m", module]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=DOCS.parent).stdout
    assert printed == (DOCS / page).read_text(encoding="utf-8"), f"make docs ({' '.join(command)})"


def test_every_setting_and_every_command_has_its_row():
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert rows == [name.rpartition(".")[2] for name, _, _ in settings()]
    names = [command.__name__.rpartition(".")[2].replace("_", "-") for command in COMMANDS]
    headings = [line for line in (DOCS / "cli.md").read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    assert headings == [f"## `mocosfl {name}`" for name in names]


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"type": "integer", "minimum": 1}, "integer, ≥ 1"),
        ({"anyOf": [{"type": "number", "exclusiveMinimum": 0.0}, {"type": "null"}]}, "number, > 0, or *empty*"),
        ({"enum": ["", "a"], "type": "string"}, "*empty*, `a`"),
        ({"type": "array", "items": {"type": "string", "minLength": 1}}, "list of: text, not empty"),
        ({"type": "integer", "minimum": 4, "maximum": 256, "multipleOf": 4}, "integer, ≥ 4, ≤ 256, multiple of 4"),
        ({"type": "string", "pattern": "^(a|b)$"}, "text, `^(a\\|b)$`"),
    ],
)
def test_a_field_in_words(field, words):
    assert kind(field) == words
