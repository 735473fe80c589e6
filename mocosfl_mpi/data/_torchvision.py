"""torchvision, importable beside a torch build that its compiled operators do not fit.

The wheels on PyPI link against CUDA. Beside a CPU torch their ``_C.so`` does not load, and then
``import torchvision`` ends in ``operator torchvision::nms does not exist``. Nothing here uses those
operators, so two schemas without kernels are enough; they are declared only when the library itself cannot be
loaded.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch

from mocosfl_mpi.errors import BadInput

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: Any = torch.library.Library  # torch annotates neither of these
_load: Any = torch.ops.load_library
_alive: list[Any] = []  # the schemas vanish with their Library object


@functools.cache
def torchvision() -> Any:
    """The ``torchvision`` module, with its ``datasets`` and ``transforms`` loaded.

    Raises
    ------
    BadInput
        torchvision is not installed or does not fit the installed torch.
    """
    if "torchvision" not in sys.modules and not _operators_load():
        library = _library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            library.define(schema)
        _alive.append(library)
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise BadInput(
            f"torchvision cannot be imported beside torch {torch.__version__} ({error}); "
            f"install the torchvision of the same release as torch: pip install torchvision"
        ) from None


def _operators_load() -> bool:
    """Whether torchvision's own compiled operators load; true also where there is no torchvision at all."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # the import itself will say so
    try:
        _load(str(Path(spec.origin).parent / "_C.so"))
    except OSError:
        return False
    return True
