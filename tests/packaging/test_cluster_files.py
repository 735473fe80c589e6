"""Apptainer definition and module file: of this version, and such that the programs that read them can."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import mocosfl_mpi

pytestmark = pytest.mark.packaging
JOBS = Path(__file__).parents[2] / "jobs"
DEFINITION = JOBS / "apptainer" / "mocosfl.def"
MODULE = JOBS / "modulefiles" / "mocosfl" / mocosfl_mpi.__version__


def sections():
    """The sections of the definition, with its default arguments put in."""
    _, *parts = re.split(r"^%(\w+)$", DEFINITION.read_text(), flags=re.MULTILINE)
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    values = dict(line.strip().split("=", 1) for line in found["arguments"].splitlines() if line.strip())
    return {name: re.sub(r"{{ (\w+) }}", lambda use: values[use[1]], text) for name, text in found.items()}


def test_the_definition_names_this_version_and_every_argument():
    found = sections()
    assert f"dist/mocosfl_mpi-{mocosfl_mpi.__version__}-py3-none-any.whl /opt/wheel/" in found["files"]
    assert "[mpich,analysis]" in found["post"]
    assert {"arguments", "files", "post", "environment", "runscript", "test", "labels"} == set(found)


@pytest.mark.parametrize("section", ["post", "environment", "runscript", "test"])
def test_its_sections_are_shell(section):
    subprocess.run(["sh", "-n"], input=sections()[section], text=True, check=True)


def test_the_module_file_puts_the_command_on_the_path(tmp_path):
    program = shutil.which("modulecmd") or shutil.which("modulecmd.tcl")
    if program is None:
        pytest.skip("Environment Modules are not installed")
    command = tmp_path / "opt" / MODULE.name / "bin" / "mocosfl"
    command.parent.mkdir(parents=True)
    command.touch(mode=0o755)
    copy = tmp_path / "modules" / "mocosfl" / MODULE.name
    copy.parent.mkdir(parents=True)
    copy.write_text(MODULE.read_text().replace("/opt/mocosfl", str(tmp_path / "opt")))

    def load(folder):
        told = {"MODULEPATH": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        return subprocess.run(
            [program, "bash", "load", "mocosfl"], capture_output=True, text=True, check=False, env=told
        )

    assert f"PATH={command.parent}:" in load(tmp_path / "modules").stdout
    assert "set `root`" in load(MODULE.parents[1]).stderr  # as it is shipped, nothing is there
