"""A private SLURM for the tests, and jobs in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mpi.command import clean_environment

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("slurm.sh")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


def why_not() -> str:
    """The reason why no SLURM can be started here, or nothing."""
    if os.geteuid() != 0:
        return "a private SLURM needs root"
    missing = [name for name in PROGRAMS if shutil.which(name, path=SBIN) is None]
    return f"not installed: {', '.join(missing)} (`make cluster-packages`)" if missing else ""


class Slurm:
    """Controller and virtual nodes, from ``__enter__`` to ``__exit__``."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.folder = Path(tempfile.mkdtemp(prefix="mocosfl-slurm-"))  # munge needs a short path that others may enter
        self.folder.chmod(0o755)

    def __enter__(self) -> Slurm:
        try:
            subprocess.run([SCRIPT, "start", self.folder, str(self.nodes)], check=True, timeout=60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run([SCRIPT, "stop", self.folder], check=False, timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self, **extra: str) -> dict[str, str]:
        """A user's: this Python's programs first on PATH, this tree's package whatever is installed."""
        path = extra.pop("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        packages = ":".join(part for part in (extra.pop("PYTHONPATH", ""), str(ROOT)) if part)
        return clean_environment(SLURM_CONF=f"{self.folder}/slurm.conf", PATH=path, PYTHONPATH=packages, **extra)

    def command(self, *words: str | Path, cwd: Path = ROOT, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=cwd,
            env=self.environment(**extra),
        )

    def submit(self, *words: str | Path, cwd: Path, **extra: str) -> str:
        """Number of the job that ``sbatch words`` started from ``cwd``."""
        done = self.command("sbatch", "--parsable", *words, cwd=cwd, **extra)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What the controller knows about a job, or about one task of an array."""
        done = self.command("scontrol", "--oneliner", "show", "job", number)
        assert done.returncode == 0, done.stderr
        return dict(word.split("=", 1) for word in done.stdout.splitlines()[0].split() if "=" in word)

    def wait(self, number: str, *states: str, timeout: float = 120) -> dict[str, str]:
        """The job once it is in one of ``states`` (default: in any from which nothing follows)."""
        deadline = time.monotonic() + timeout
        while (job := self.job(number))["JobState"] not in (states or OVER):
            assert time.monotonic() < deadline, f"job {number} after {timeout} s: {job}"
            assert job["JobState"] not in OVER, job
            time.sleep(0.3)
        return job
