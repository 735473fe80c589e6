"""The batch script: what it asks for, that nothing a user types escapes its quotes, and what is refused."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mocosfl_mpi.cli import main
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.launch import MALLOC, SPIN
from mocosfl_mpi.slurm import CONTINUE, Figure, Job, default_memory, script

JOBS = sorted((Path(__file__).parents[2] / "jobs").glob("*.sbatch"))

JOB = Job(
    name="mine",
    nodes=2,
    ranks=6,
    cores_per_rank=3,
    time=Figure("8:00:00", "--time"),
    memory=Figure("10G", "an estimate"),
    launch="pmi2",
    python="/opt/python",
    arguments=("mine.toml",),
)


def command_words(text, task=None):
    """The words that bash makes of the script's ``command``, in this task of an array."""
    line = next(line for line in text.splitlines() if line.startswith("command="))
    if task is not None:
        line = text[text.index("tasks=(") : text.index("command=")] + line
    code = f"{line}\nprintf '%s\\0' \"${{command[@]}}\""
    environ = {"SLURM_JOB_ID": "7"} | ({} if task is None else {"SLURM_ARRAY_TASK_ID": str(task)})
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, env=environ)
    return done.stdout.split("\0")[:-1]


def test_requests_and_the_source_of_numbers():
    lines = script(JOB).splitlines()
    requests = {line.split("#")[1].split(" --")[1].strip() for line in lines if line.startswith("#SBATCH")}
    assert {"nodes=2", "ntasks=6", "ntasks-per-node=3", "cpus-per-task=3", "mem=10G", "time=8:00:00"} <= requests
    assert {"requeue", "open-mode=append", "signal=B:USR1@300"} <= requests
    assert next(line for line in lines if "--mem=" in line).endswith("# an estimate")


@pytest.mark.parametrize("launch", ["mpirun", "pmi2", "pmix"])
@pytest.mark.parametrize("nodes", [1, 2])
def test_command_and_shell_syntax(launch, nodes):
    text = script(replace(JOB, launch=launch, nodes=nodes))
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    words = command_words(text)
    assert words[-2:] == ["--out", "runs/mine-7"]
    assert ("-n" in words) == (launch == "mpirun")
    assert (words[:2] == ["srun", f"--mpi={launch}"]) == (launch != "mpirun")


@pytest.mark.parametrize("evil", ["$(touch x)", "`id`", "a b", "'; rm -rf . #", '"', "*", "\\", "ünï"])
def test_what_a_user_types_stays_one_word(evil):
    words = command_words(script(replace(JOB, name=evil, arguments=("a.toml", f"--set={evil}"), out=f"/x/{evil}")))
    assert f"--set={evil}" in words
    assert words[-1] == f"/x/{evil}"
    requests = [line for line in script(replace(JOB, name=evil)).splitlines() if line.startswith("#SBATCH --job-name")]
    assert len(requests) == 1
    assert re.fullmatch(r"#SBATCH --job-name=[A-Za-z0-9_.-]+", requests[0])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"nodes": 0}, "--nodes 0"),
        ({"ranks": 1}, "-n 1"),
        ({"cores_per_rank": 0}, "--cores-per-rank 0"),
        ({"gpus": -1}, "--gpus -1"),
        ({"time": Figure("soon", "--time")}, "'soon'"),
        ({"time": Figure("0:00:00", "--time")}, "'0:00:00'"),
        ({"memory": Figure("much", "--mem")}, "'much'"),
        ({"partition": "a b"}, "'a b'"),
        ({"account": "-x"}, "'-x'"),
        ({"launch": "ssh"}, "'ssh'"),
        ({"out": "a\nb"}, "control character"),
        ({"tasks": ("a\nb",), "out": "a"}, "control character"),
        ({"tasks": ("a",), "out": "a", "at_once": 0}, "--at-once 0"),
    ],
)
def test_refusals(change, named):
    with pytest.raises(BadInput, match=named.replace("-", r"\-").replace("(", r"\(")):
        replace(JOB, **change)


@pytest.mark.parametrize("launch", ["mpirun", "pmi2"])
def test_an_array_runs_each_task_in_its_place(launch):
    evil = "$(touch x)'"
    job = replace(JOB, launch=launch, arguments=("/a b/configs", "--data-dir", "/d e"), out="/o u", tasks=("a", evil))
    text = script(job)
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    assert "#SBATCH --array=0-1 " in text
    assert "%A_%a.log" in text
    for task, name in enumerate(job.tasks):
        words = command_words(text, task)
        assert words[words.index("run") + 1 :][:3] == [f"/a b/configs/{name}.toml", "--data-dir", "/d e"]
        assert words[-2:] == ["--out", f"/o u/{name}"]
    with pytest.raises(subprocess.CalledProcessError):
        command_words(text, 2)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], None),
        (["--set", "compute.device=cuda"], "1"),
        (["--set", "compute.device=cuda", "--gpus", "4"], "4"),
        (["--gpus", "2"], "2"),
        (["--set", "compute.device=cuda", "--gpus", "0"], None),
    ],
)
def test_gpus_are_asked_for_where_they_are_wanted(capsys, words, asked):
    assert main(["slurm", "smoke", *words]) == 0
    found = re.findall(r"--gpus-per-node=(\d+)", capsys.readouterr().out)
    assert found == ([asked] if asked else [])


def test_memory_grows_with_the_ranks_of_a_node():
    assert default_memory(8, 1).text == "20G"
    assert default_memory(9, 2).text == "14G"


def test_without_sbatch(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert main(["slurm", "smoke", "--submit"]) == 2
    assert "no sbatch on PATH" in capsys.readouterr().err


SBATCH = """#!/bin/sh
cat > "$0.$(ls "$0".* 2> /dev/null | wc -l)"
echo "$@" >> "$0-words"
echo "4$(ls "$0".* | wc -l);here"
"""
"""Keeps what it is given, and says a number (and a cluster) as the real one does."""


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """An `sbatch` that submits nothing, and the directory of submission."""
    program = tmp_path / "sbatch"
    program.write_text(SBATCH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.chdir(tmp_path)
    return program


STAGES = ("slurm", "smoke", "--set", "method=taressfl", "--set", "pretraining.auxiliary=embedded", "-n", "2")


@pytest.mark.parametrize("out", [False, True])
def test_both_stages_are_submitted_and_the_run_waits_for_the_expert(sbatch, tmp_path, capsys, out):
    demands = ("--set", "client.frozen=true", "--launch", "mpirun")
    assert main([*STAGES, *demands, "--both", "--submit", *(["--out", "there"] if out else [])]) == 0
    said = capsys.readouterr().out
    assert "Submitted batch job 41: the expert" in said
    assert "Submitted batch job 42: the run" in said
    assert Path(f"{sbatch}-words").read_text().splitlines() == ["--parsable", "--parsable --dependency=afterok:41"]
    first, run = (command_words(Path(f"{sbatch}.{number}").read_text()) for number in (0, 1))
    assert first[1:5] == ["-m", "mocosfl_mpi", "pretrain", "smoke"]
    assert run[1:5] == ["-m", "mocosfl_mpi", "run", "smoke"]
    expert = str(tmp_path / ("there-expert" if out else "runs/smoke-expert-41"))
    assert f"--set=client.pretrained={expert}" in run
    assert first[-1] == (expert if out else "runs/smoke-expert-7")  # of job 7, as which command_words asks


def test_one_stage_is_printed_and_two_are_not(capsys):
    demands = ("--set", "client.frozen=true", "--launch", "mpirun")
    assert main([*STAGES, *demands, "--stage", "pretrain"]) == 0
    assert "pretrain" in command_words(capsys.readouterr().out)
    assert main([*STAGES, *demands, "--both"]) == 2
    assert "add --submit, or print one after the other with --stage" in capsys.readouterr().err
    assert main(["slurm", "smoke", "--both", "--submit"]) == 2
    assert "pretraining.auxiliary names no data set" in capsys.readouterr().err


def test_the_configuration_is_checked_before_the_queue(capsys):
    assert main(["slurm", "smoke", "--set", "model.cut_layer=99"]) == 2
    assert "cut_layer" in capsys.readouterr().err


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_scripts_by_hand_end_as_the_written_ones(path):
    text = path.read_text()
    assert text.endswith(CONTINUE)
    for word in ("Purpose:", "Run:", "Cost:", "--requeue", "--open-mode=append", "--signal=B:USR1@300"):
        assert word in text, word
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    if "srun" in text and "several" in path.name:
        assert f"GLIBC_TUNABLES={MALLOC}" in text
        assert f"GOMP_SPINCOUNT={SPIN}" in text


def test_there_are_scripts():
    assert {path.stem for path in JOBS} == {"one_node", "several_nodes", "array"}
