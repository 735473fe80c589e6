"""The completion scripts, loaded by the shells themselves."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from mocosfl_mpi.cli import COMMANDS, parser
from mocosfl_mpi.commands.completion import SHELLS, script
from mocosfl_mpi.presets import presets

ASK = """
source {script}
cd {folder}
COMP_WORDS=({words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
compopt() {{ :; }}
_mocosfl_completed
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    for shell in SHELLS:
        (folder / shell).write_text(script(parser(), shell))
    return folder


@pytest.fixture
def completed(scripts, tmp_path):
    """What bash offers for the last of these words, in a directory with some files."""
    (tmp_path / "mine.toml").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "runs").mkdir()

    def ask(*words):
        told = ASK.format(script=scripts / "bash", folder=tmp_path, words=" ".join(f"'{word}'" for word in words))
        done = subprocess.run(["bash", "--norc", "-c", told], capture_output=True, text=True, check=True)
        assert not done.stderr
        return done.stdout.split()

    return ask


def test_commands_are_offered(completed):
    assert completed("mocosfl", "") == [command.__name__.rpartition(".")[2].replace("_", "-") for command in COMMANDS]
    assert completed("mocosfl", "ins") == ["inspect"]


def test_configurations_are_presets_and_toml_files(completed):
    assert set(completed("mocosfl", "run", "")) == {*presets(), "mine.toml", "runs"}
    assert completed("mocosfl", "plan", "quick") == ["quickstart"]
    assert completed("mocosfl", "presets", "smo") == ["smoke"]


def test_options_their_values_and_directories(completed):
    assert completed("mocosfl", "run", "smoke", "--data") == ["--data-dir"]
    assert completed("mocosfl", "run", "smoke", "--resume", "") == ["auto", "never", "must"]
    assert completed("mocosfl", "run", "smoke", "--out", "") == ["runs"]
    assert completed("mocosfl", "inspect", "r") == ["runs"]
    assert completed("mocosfl", "plan", "smoke", "--profile", "") == ["mine.toml", "notes.txt", "runs"]
    assert "raspberry-pi-4" in completed("mocosfl", "retime", "runs", "--device", "")
    assert completed("mocosfl", "completion", "z") == ["zsh"]


def test_settings_are_offered_up_to_their_value(completed):
    assert completed("mocosfl", "run", "smoke", "--set", "model.cut") == ["model.cut_layer="]
    assert completed("mocosfl", "run", "smoke", "--set", "model.cut_layer", "=", "2", "--qu") == ["--quiet"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_valid(scripts, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", scripts / shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_fish_offers_the_same(scripts):
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")

    def ask(line):
        command = f"source {scripts}/fish; complete -C '{line}'"
        done = subprocess.run(["fish", "--no-config", "-c", command], capture_output=True, text=True, check=True)
        return [found.split("\t")[0] for found in done.stdout.splitlines()]

    assert ask("mocosfl ins") == ["inspect"]
    assert ask("mocosfl run quick") == ["quickstart"]
    assert ask("mocosfl run smoke --set model.cut") == ["model.cut_layer="]


def test_tcsh_reads_it_and_knows_the_commands(scripts):
    if shutil.which("tcsh") is None:
        pytest.skip("tcsh is not installed")
    command = f"source {scripts}/tcsh; complete mocosfl"
    done = subprocess.run(["tcsh", "-f", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert not done.stderr
    assert "inspect" in done.stdout
    assert "quickstart" in done.stdout
