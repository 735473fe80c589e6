"""Whatever a user gets wrong: one message with value and remedy, from one rank, exit 2, nothing lost."""

from __future__ import annotations

import os
import time

import pytest
import torch

from tests.mpi.command import mocosfl, says_once

pytestmark = pytest.mark.mpi

WRONG = [
    (("smok",), "did you mean 'smoke'"),
    (("smoke", "--set", "modle.cut_layer=2"), "did you mean"),
    (("smoke", "--set", "model.cut_layer=10"), "choose 1 to 9"),
    (("smoke", "--set", "client.count=500", "--set", "client.sampling_ratio=0.01"), "client.count"),
    (("smoke", "--set", "client.count=300"), "300"),
    (("smoke", "--set", "federation.sync_freq=5"), "federation.sync_freq = 5"),
    (("smoke", "--set", "model.bottleneck=Q4"), "C4S2"),
    (("smoke", "--set", "model.bottleneck=C4S64"), "smaller stride"),
    (("smoke", "--set", "data.source=cifar10"), "--data-dir"),
    (("smoke", "--set", "data.source=cifar10", "--data-dir", "/nonexistent"), "/nonexistent"),
    (("smoke", "--set", "data.validation_images=240"), "validation_images"),
    (("smoke", "-n", "0"), "at least one rank"),
    (("smoke", "--set", "epochs"), "section.key=value"),
    (("smoke", "--out", "/proc/nowhere"), "/proc/nowhere"),
    *([] if torch.cuda.is_available() else [(("smoke", "--set", "compute.device=cuda"), "leave compute.device out")]),
]


AGAIN = ("client.sampling_ratio=0.01", "model.bottleneck=Q4", "data.validation_images=240")
"""Found out on the ranks by the same code as others in WRONG, of which three ranks then need three starts of Python."""


def name(arguments):
    return " ".join(arguments)[:60]


@pytest.mark.parametrize(
    ("arguments", "message", "ranks"),
    [
        *(pytest.param(*row, None, id=name(row[0])) for row in WRONG),
        *(
            pytest.param(
                *row,
                "3",
                id=f"{name(row[0])}, 3 ranks",
                marks=pytest.mark.slow if set(AGAIN) & set(row[0]) else [],
            )
            for row in WRONG
            if "-n" not in row[0]
        ),
    ],
)
def test_one_message_and_exit_2(tmp_path, arguments, message, ranks):
    out = () if "--out" in arguments else ("--out", tmp_path / "run")
    start = time.monotonic()
    done = mocosfl("run", *arguments, *(("-n", ranks) if ranks else ()), *out)
    assert done.returncode == 2, done.stdout + done.stderr
    assert time.monotonic() - start < 30
    assert message in says_once(done.stderr)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [("--set", "seed=3"), ("--resume", "never")])
def test_earlier_results_are_untouched(tmp_path, words):
    out = tmp_path / "run"
    assert mocosfl("run", "smoke", "--out", out, "--quiet").returncode == 0
    before = (out / "run.h5").read_bytes()
    done = mocosfl("run", "smoke", "-n", "2", "--out", out, *words)
    assert done.returncode == 2
    assert done.stderr.count("never overwritten") == 1
    assert (out / "run.h5").read_bytes() == before


def test_a_directory_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    done = mocosfl("run", "smoke", "-n", "2", "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("never overwritten") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_missing_launcher_is_named(tmp_path):
    """Without mpiexec beside Python or on PATH, -n 2 is refused and the remedy named."""
    import subprocess
    import sys

    from tests.mpi.command import clean_environment

    link = tmp_path / "bin" / "python"
    link.parent.mkdir()
    link.symlink_to(sys.executable)
    code = (
        "import sys; sys.executable = sys.argv.pop(1); from mocosfl_mpi.cli import main; "
        "raise SystemExit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(link), "run", "smoke", "-n", "2", "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=clean_environment(PATH="/nonexistent"),
    )
    assert done.returncode == 2, done.stderr
    assert "mpich" in done.stderr


def test_launcher_that_does_not_match_the_library(tmp_path):
    """Three size-1 processes instead of one job of three: each would train alone; all refuse, one speaks."""
    for rank in ("0", "1"):
        done = mocosfl(
            "run",
            "smoke",
            "--out",
            tmp_path / "run",
            OMPI_COMM_WORLD_RANK=rank,
            OMPI_COMM_WORLD_SIZE="3",
        )
        assert done.returncode == 2, done.stderr
        if rank == "0":
            assert "Open MPI's mpirun" in done.stderr
            assert "do not match" in done.stderr
        else:
            assert done.stderr.strip() == ""


@pytest.mark.parametrize("command", [("inspect",), ("inspect", "--json")])
def test_inspect_of_something_else(tmp_path, command):
    other = tmp_path / "run.h5"
    other.write_bytes(os.urandom(4000))
    done = mocosfl(*command, other)
    assert done.returncode == 2
    assert str(other) in done.stderr
    assert "Traceback" not in done.stderr
