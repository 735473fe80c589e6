"""Split-federated self-supervised learning over MPI: MocoSFL, MonAcoSFL and their relatives.

From Python: ``from mocosfl_mpi import Config, simulate, open_run``. A name is imported when it is first used, so that
``import mocosfl_mpi`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mocosfl_mpi.api import Config, simulate
    from mocosfl_mpi.errors import BadInput, RunFailed, Stopped
    from mocosfl_mpi.record.reader import Run, open_run

__version__ = "0.1.0"
__all__ = ["BadInput", "Config", "Run", "RunFailed", "Stopped", "__version__", "open_run", "simulate"]

_PLACES = {
    "BadInput": "errors",
    "Config": "api",
    "Run": "record.reader",
    "RunFailed": "errors",
    "Stopped": "errors",
    "open_run": "record.reader",
    "simulate": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
