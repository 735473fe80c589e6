"""What tests put into the ranks of a job: a ``sitecustomize`` that changes the hosts' forward pass."""

from __future__ import annotations

from pathlib import Path

CHANGE = """
import importlib.abc, os, sys, time
RANK = next((os.environ[name] for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK") if name in os.environ), "0")
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "mocosfl_mpi.routes":
            from mocosfl_mpi.clients.population import Population
            forward = Population.forward
            def changed(self, epoch, step):
                {change}
                return forward(self, epoch, step)
            Population.forward = changed
        return None
sys.meta_path.insert(0, Finder())
"""

SLEEPY = """
RANKS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
if any(os.environ.get(name) == "0" for name in RANKS) and not os.path.exists({mark!r}):
    open({mark!r}, "w").close()
    time.sleep({seconds})
"""


def slowed(folder: Path, seconds: float) -> str:
    """PYTHONPATH under which every step takes ``seconds`` longer and computes the same."""
    return _written(folder, f"time.sleep({seconds})")


def failing(folder: Path, rank: int) -> str:
    """PYTHONPATH under which one rank raises in its first step."""
    return _written(folder, f"if RANK == '{rank}': raise ValueError('injected')")


def starting_slowly(folder: Path, mark: Path, seconds: float) -> str:
    """PYTHONPATH under which rank 0, at its first start, leaves ``mark`` and sleeps before it can listen to signals."""
    return _written(folder, "pass", SLEEPY.format(mark=str(mark), seconds=seconds))


def _written(folder: Path, change: str, more: str = "") -> str:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CHANGE.format(change=change) + more)
    return str(folder)
