"""Why a checkpoint cannot be taken up: which of its arrays have other shapes than this program's, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from mocosfl_mpi import __version__
from mocosfl_mpi.record.checkpoint import Checkpoint

SOFTWARE = "mocosfl_mpi"
"""In a manifest's versions: that of this package."""
LISTED = 3


class Shaped(Protocol):
    """An array or a tensor."""

    @property
    def shape(self) -> Any:
        """Numbers along each axis."""


def differences(saved: Mapping[str, Shaped], here: Mapping[str, Shaped], origin: str) -> list[str]:
    """What of ``here`` the file ``origin`` of a checkpoint lacks or has in another shape, in words."""
    found = []
    for name, value in here.items():
        if name not in saved:
            found.append(f"{origin} has no {name}, here {list(value.shape)}")
        elif tuple(saved[name].shape) != tuple(value.shape):
            found.append(f"{origin}: {name} is {list(saved[name].shape)} there and {list(value.shape)} here")
    return found


def message(saved: Checkpoint, reasons: list[str]) -> str:
    """The refusal, with the remedy."""
    version = saved.manifest.versions.get(SOFTWARE)
    writer = f"mocosfl_mpi {version}" if version else "a development version of mocosfl_mpi that did not sign its own"
    shown = "; ".join(reasons[:LISTED])
    more = f"; and {len(reasons) - LISTED} more" if len(reasons) > LISTED else ""
    return (
        f"the checkpoint {saved.path} was written by {writer} and holds another state than that of mocosfl_mpi "
        f"{__version__}: {shown}{more}. Continue the run with the version that wrote it (software_version in its "
        f"run.h5), or begin again in another directory"
    )
