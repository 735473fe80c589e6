"""Every command that README.md and docs/ show runs, in the order of its page; every block of Python, too."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable

import pytest

from tests.docs.conftest import Scratch
from tests.docs.pages import LANGUAGES, ROOT, blocks, commands, conversation, name, pages, pattern
from tests.docs.rows import EVERY_PAGE, PYTHON
from tests.unit.data.files import write_cifar

COPIED = {"docs/adding-a-method.md"}
"""Pages that change the package."""


def _table2(scratch: Scratch) -> None:
    for seed in (0, 1, 2):
        for method in ("mocosfl", "monacosfl"):
            scratch.unpack(f"{method}-cut1-seed{seed}", f"runs/table2/{method}-seed{seed}")
    shutil.copyfile(ROOT / "tests/analysis/grid.toml", scratch.folder / "jobs/configs/table2.toml")  # of these runs


def _seeds(scratch: Scratch) -> None:
    _table2(scratch)
    for seed in (0, 1):
        scratch.unpack(f"mocosfl-cut1-seed{seed}", f"runs/a-seed{seed}")
        scratch.unpack(f"monacosfl-cut1-seed{seed}", f"runs/b-seed{seed}")


def _depth(scratch: Scratch) -> None:
    for out in ("RUN", "runs/mine-001"):
        scratch.run("smoke", out)
    scratch.run("smoke", "runs/small-privacy-depth/cut1-seed0", "model.cut_layer=1")
    done = scratch.bash("mocosfl attack runs/mine-001 --attacks ridge --seeds 1 --images 16 --quiet")
    assert done.returncode == 0, done.stdout


def _configuration(scratch: Scratch) -> None:
    assert scratch.bash("mocosfl presets quickstart > mine.toml").returncode == 0


def _run(scratch: Scratch) -> None:
    _configuration(scratch)
    scratch.run("smoke", "runs/mine-001")


def _home(scratch: Scratch) -> None:
    """Where shells look for completions."""
    for place in (".zfunc", ".config/fish/completions"):
        (scratch.folder / place).mkdir(parents=True)


def _recorded(scratch: Scratch) -> None:
    scratch.run("smoke", "RUN")


def _watched(scratch: Scratch) -> None:
    _table2(scratch)
    scratch.unpack("mocosfl-cut1-seed0", "runs/mine-001")


def _reported(scratch: Scratch) -> None:
    _watched(scratch)
    for out, cut in (("a", 1), ("b", 4), ("c", 8)):
        scratch.unpack(f"mocosfl-cut{cut}-seed0", f"runs/{out}")


def _read(scratch: Scratch) -> None:
    scratch.run("smoke", "OUT")
    scratch.run("smoke", "RUN")
    done = scratch.bash("mocosfl attack RUN --attacks ridge --seeds 1 --images 16 --quiet")
    assert done.returncode == 0, done.stdout


def _copy(scratch: Scratch) -> None:
    """Files as long as the official ones, with other bytes."""
    place = write_cifar(scratch.folder / "COPY")
    for file in place.iterdir():
        os.truncate(file, 32_000_000)


def _defended(scratch: Scratch) -> None:
    """The page says NAME for each defence."""
    (scratch.folder / "runs/evidence/defences").mkdir(parents=True)
    (scratch.folder / "runs/evidence/defences/NAME-seed0").symlink_to("nopeek-seed0")


BEFORE: dict[str, Callable[[Scratch], None]] = {
    "docs/analysis.md": _seeds,
    "docs/evaluation.md": _configuration,
    "docs/evidence/defences.md": _defended,
    "docs/experts.md": _configuration,
    "docs/faq.md": _copy,
    "docs/file-format.md": _read,
    "docs/installation.md": _home,
    "docs/interchange.md": _recorded,
    "docs/performance.md": _run,
    "docs/planning.md": _configuration,
    "docs/privacy.md": _depth,
    "docs/python.md": _configuration,
    "docs/report.md": _reported,
    "docs/retime.md": _run,
    "docs/tutorial-slurm.md": _run,
    "docs/watch.md": _watched,
}
"""What a page supposes to be there."""


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_command_has_a_row(page):
    for block in blocks(page):
        place = f"{name(page)}:{block.line}"
        assert block.language in LANGUAGES, f"{place}: a block is commands (indented), or says what it is"
        if block.language == "sh":
            for command in commands(block):
                assert command in EVERY_PAGE, f"{place}: no row in tests/docs/rows.py for: {command!r}"


def test_every_row_has_its_command():
    shown = {command for page in pages() for b in blocks(page) if b.language == "sh" for command in commands(b)}
    assert set(EVERY_PAGE) - shown == set()


def test_what_runs_elsewhere_is_there():
    recipes = (ROOT / "Makefile").read_text()
    for command, row in EVERY_PAGE.items():
        place, _, test = row.elsewhere.partition("::")
        if place.startswith("make "):
            assert re.search(rf"^{place.removeprefix('make ')}:", recipes, re.MULTILINE), command
        elif place:
            assert f"def {test}(" in (ROOT / place).read_text(), command
    ci = (ROOT / ".ci/run").read_text().splitlines()
    assert {"make test", "make lint", "make test-cluster"} <= set(ci)
    assert "-m venv" in recipes
    assert re.search(r"pip install .* -e ", recipes)


@pytest.mark.docs
@pytest.mark.parametrize(
    "page", [page for page in pages() if any(b.language in {"sh", "console", "python"} for b in blocks(page))], ids=name
)
def test_a_page(page, tmp_path, programs, images):
    scratch = Scratch(tmp_path, programs, images, copied=name(page) in COPIED)
    found = list(blocks(page))
    for block in found:
        if block.file:
            scratch.write(block)
        if block.language == "toml":
            tomllib.loads(block.text)
    BEFORE.get(name(page), lambda _: None)(scratch)
    ran = set()
    for block in found:
        place = f"{name(page)}:{block.line}"
        if block.language == "sh":
            for command in commands(block):
                if command not in ran:  # a page may show it again
                    _command(scratch, command, place)
                ran.add(command)
        elif block.language == "console":
            _conversation(scratch, block, place)
        elif block.language == "python" and not block.file:
            done = subprocess.run(
                [sys.executable, "-c", PYTHON + block.text],
                cwd=tmp_path,
                env=scratch.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{place}\n{done.stderr}"


def _command(scratch, command, place):
    row = EVERY_PAGE[command]
    if row.elsewhere:
        return
    done = scratch.bash(row.shortened(command), DOCS_EXTRA=json.dumps(row.extra), VENV=".venv")
    assert done.returncode in row.codes, f"{place}: {command} ended with {done.returncode}\n{done.stdout[-4000:]}"
    assert "Traceback" not in done.stdout, f"{place}: {command}\n{done.stdout[-4000:]}"


def _conversation(scratch, block, place):
    """As shown, to the word."""
    code = 0
    for said in conversation(block):
        if said.command == "echo $?":
            assert str(code) == said.lines[0], place
            continue
        done = scratch.bash(said.command)
        code = done.returncode
        output = "".join(line.rstrip() + "\n" for line in done.stdout.splitlines())
        assert pattern(said.lines).search(output), f"{place}: $ {said.command}\n{done.stdout}"
