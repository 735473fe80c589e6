"""How large a run's file will be, from the schema alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np

from mocosfl_mpi.record.layout import CHUNK_BYTES, Size, chunking, row_shape, scale_values
from mocosfl_mpi.record.schema import COMMITTED, ENTRIES, GROWING, present
from mocosfl_mpi.record.writer import image

FLOATS, WHOLE = 0.85, 0.06
"""What gzip leaves of distances in float32, and of rows of counts that are nearly alike (measured)."""
INDEX = 8
"""Bytes of a chunk's entry in its index; twice that for a compressed one."""
BEGUN = 400
"""Bytes of an index that has been begun, whatever it holds."""


def file_bytes(sizes: Mapping[str, Size], attrs: Mapping[str, str | int], rows: Mapping[str, int]) -> int:
    """Bytes of ``run.h5`` with these dimensions, attributes and ``rows`` per growing dimension, at the run's end."""
    config = json.loads(str(attrs["config"]))
    scales = scale_values(sizes, config)
    fixed = {
        entry.name: np.full(row_shape(entry, scales), "x" * 40 if entry.dtype == "text" else 0)
        for entry in ENTRIES.values()
        if entry.when == "fixed" and entry.name != COMMITTED
    }
    total = len(image(scales, attrs, fixed))
    for entry in (ENTRIES[name] for name in present(config) if name in ENTRIES):
        if entry.growing and rows[entry.growing]:
            shape = row_shape(entry, scales)
            chunk, compressed = chunking(entry, shape)
            chunks = math.prod(-(-n // c) for n, c in zip((rows[entry.growing], *shape), chunk, strict=True))
            size = np.dtype(entry.dtype).itemsize * math.prod(chunk)
            kept = (FLOATS if entry.dtype == "float32" else WHOLE) if compressed else 1.0
            total += BEGUN + chunks * (int(size * kept) + INDEX * (1 + compressed))
    scale = CHUNK_BYTES // 8
    return total + sum(-(-rows[name] // scale) * (CHUNK_BYTES + INDEX) for name in GROWING)
