"""The scratch directory in which a page's commands run, and what they find there."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block
from tests.docs.zygote import CLIENT
from tests.mpi.command import clean_environment
from tests.unit.data.files import write_cifar

LINKED = ("analysis", "benchmarks", "Makefile", "setup.cfg", "pyproject.toml", "constraints.txt")
OPEN_MPI = """#!/bin/sh
# Starts what another MPI's launcher would: ranks that this environment's MPI library knows nothing of.
shift 2
for rank in 0 1 2; do OMPI_COMM_WORLD_RANK=$rank OMPI_COMM_WORLD_SIZE=3 "$@" & done
wait
"""
PYTHON = """#!{python} -S
import json, os, shlex, sys
extra = json.loads(os.environ.get("DOCS_EXTRA", "{{}}"))
os.execv("{python}", ["{python}", *sys.argv[1:], *shlex.split(extra.get("", ""))])
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Programs:
    """What stands first on the PATH of the commands: `mocosfl`, `python` and what else a page calls."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.cache = folder / "cache"
        kernels = Path(os.environ.get("MOCOSFL_CACHE", Path.home() / ".cache/mocosfl_mpi"))
        if kernels.is_dir():  # a copy: plans keep what they have measured there
            shutil.copytree(kernels, self.cache, ignore=shutil.ignore_patterns("*.json"))
        socket = folder / "zygote"
        program(self.bin / "mocosfl", CLIENT.format(python=sys.executable, socket=socket))
        program(self.bin / "python", PYTHON.format(python=sys.executable))
        program(self.bin / "activate", "")
        for name in ("mpirun", "mpiexec"):
            beside = Path(sys.executable).with_name(name)
            launcher = beside if beside.exists() else shutil.which(name) or "/bin/false"
            program(self.bin / name, f'#!/bin/sh\nexec "{launcher}" "$@"\n')  # it looks for its helpers beside itself
        self.zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.docs.zygote", str(socket)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT)),
        )
        assert self.zygote.stdout is not None
        assert self.zygote.stdout.readline() == "ready\n"


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    found = Programs(tmp_path_factory.mktemp("programs"))
    yield found
    found.zygote.terminate()
    found.zygote.wait()


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with made-up CIFAR-10 and -100, and a folder of images under the names that pages give it."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    for source in ("cifar10", "cifar100"):
        write_cifar(folder, source, images=400)
    for split, kind in ((s, k) for s in ("train", "val") for k in ("robin", "wren")):
        place = folder / "birds" / split / kind
        place.mkdir(parents=True)
        for number in range(100):
            Image.new("RGB", (36, 40), (2 * number, 80, 60)).save(place / f"{number}.png")
    (folder / "imagenet-12").symlink_to("birds")
    return folder


class Scratch:
    """A directory of its own for one page."""

    def __init__(self, folder: Path, programs: Programs, images: Path, *, copied: bool) -> None:
        self.folder = folder
        for name in LINKED:
            (folder / name).symlink_to(ROOT / name)
        (folder / "docs").mkdir()
        shutil.copytree(ROOT / "jobs", folder / "jobs")
        for grid in (folder / "jobs").rglob("*.toml"):  # of three seeds one
            grid.write_text(re.sub(r"^(seeds = \[\d+).*\]", r"\1]", grid.read_text(), flags=re.MULTILINE))
        (folder / "DATA").symlink_to(images)
        venv = folder / ".venv"
        venv.mkdir()
        (venv / "bin").symlink_to(programs.bin)
        for stamp in (".ready-mpich", ".docs-mpich"):
            (venv / stamp).touch()
        program(folder / "openmpi/bin/mpirun", OPEN_MPI)
        self.environment = clean_environment(
            PATH=f"{programs.bin}:{os.environ['PATH']}",
            HOME=str(folder),
            MOCOSFL_CACHE=str(programs.cache),
            OMP_NUM_THREADS="1",
            PYTHONPATH=str(ROOT),
            COLUMNS="200",
        )
        if copied:  # a page that changes the package changes this copy
            shutil.copytree(ROOT / "mocosfl_mpi", folder / "mocosfl_mpi", ignore=shutil.ignore_patterns("__pycache__"))
            self.environment |= {"PYTHONPATH": str(folder), "DOCS_FRESH": "1"}

    def bash(self, text: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", text],
            cwd=self.folder,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,  # whoever hangs; a busy machine is no failure
            check=False,
        )

    def write(self, block: Block) -> None:
        """The file that a block is."""
        assert block.file is not None
        (self.folder / block.file).write_text(block.text.partition("\n")[2])

    def run(self, words: str, out: str, *settings: str) -> None:
        """A run that a page supposes to lie there."""
        sets = " ".join(f"--set {setting}" for setting in settings)
        done = self.bash(f"mocosfl run {words} --quiet --out {out} {sets}")
        assert done.returncode == 0, done.stdout

    def unpack(self, name: str, out: str) -> None:
        """One of the small runs for the tests of the analysis."""
        folder = self.folder / out
        folder.mkdir(parents=True)
        packed = ROOT / "tests/analysis/runs" / f"{name}.h5.xz"
        (folder / "run.h5").write_bytes(lzma.decompress(packed.read_bytes()))
