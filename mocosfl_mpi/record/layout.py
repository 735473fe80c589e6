"""Creating every group, dataset, scale and attribute of a run's file, before SWMR mode forbids new ones."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from mocosfl_mpi.record.form import Dimension, Entry, Form
from mocosfl_mpi.record.schema import COMMITTED, RUN, setting

Size = int | Sequence[int] | Sequence[float] | Sequence[str]
CHUNK_BYTES = 8192
_LARGEST_CHUNK = 1 << 20
_WORTH_COMPRESSING = 4096


def scale_values(sizes: Mapping[str, Size], config: Mapping[str, Any], form: Form = RUN) -> dict[str, npt.NDArray[Any]]:
    """Numbers or UTF-8 labels ``[size]`` of every dimension that does not grow, of a run with this configuration.

    Raises
    ------
    ValueError
        A dimension is missing, empty, unknown or labelled by the schema itself (programmer errors).
    """
    wanted = {name for name, dimension in form.dimensions.items() if dimension.given}
    if set(sizes) != wanted:
        raise ValueError(f"sizes: missing {sorted(wanted - set(sizes))}, unknown {sorted(set(sizes) - wanted)}")
    scales = {
        name: _scale(dimension, dimension.labels or sizes[name])
        for name, dimension in form.dimensions.items()
        if not dimension.growing and not dimension.setting
    }
    for name, dimension in form.dimensions.items():
        if dimension.setting and (values := setting(config, dimension.setting)):
            scales[name] = _scale(dimension, values)
    return scales


def _scale(dimension: Dimension, size: Size) -> npt.NDArray[Any]:
    labels = list(range(size)) if isinstance(size, int) else list(size)
    if not labels:
        raise ValueError(f"dimension {dimension.name!r} is empty")
    if dimension.kind == "number":
        return np.asarray(labels, dtype=np.int64)
    if dimension.kind == "share":
        return np.asarray(labels, dtype=np.float64)
    return encode([str(label) for label in labels])


def encode(texts: Sequence[str]) -> npt.NDArray[Any]:
    """Fixed-length UTF-8 strings: variable-length ones are outside SWMR, and lie where no checksum covers them."""
    # A label with a lone surrogate (an odd byte in a folder's name) must not end the run.
    values = [text.encode("utf-8", "replace") for text in texts]
    width = max(1, *(len(value) for value in values))
    return np.asarray(values, dtype=h5py.string_dtype("utf-8", width))


def row_shape(entry: Entry, scales: Mapping[str, npt.NDArray[Any]]) -> tuple[int, ...]:
    """Shape of one row of a growing dataset, or of the whole of another."""
    return tuple(len(scales[name]) for name in (entry.dims[1:] if entry.growing else entry.dims))


def write_attributes(file: h5py.File, attributes: Mapping[str, str | int], form: Form = RUN) -> None:
    """Store the root attributes; a missing or unknown one is a programmer error."""
    if attributes.keys() != form.attributes.keys():
        missing, unknown = form.attributes.keys() - attributes.keys(), attributes.keys() - form.attributes.keys()
        raise ValueError(f"attributes: missing {sorted(missing)}, unknown {sorted(unknown)}")
    for name, value in attributes.items():
        if isinstance(value, str):
            text = encode([value.replace("\0", " ")])
            file.attrs.create(name, text[0], shape=(), dtype=text.dtype)
        else:
            file.attrs[name] = np.int64(value)


def create_datasets(
    file: h5py.File,
    names: Collection[str],
    scales: Mapping[str, npt.NDArray[Any]],
    fixed: Mapping[str, npt.ArrayLike],
    form: Form = RUN,
) -> None:
    """Create the scales and datasets ``names``; ``fixed`` holds what is known before the first step."""
    entries = [entry for name, entry in form.entries.items() if name in names]
    needed = {entry.name for entry in entries if entry.when == "fixed"} - {COMMITTED}
    if set(fixed) != needed:
        raise ValueError(f"fixed: missing {sorted(needed - set(fixed))}, unknown {sorted(set(fixed) - needed)}")
    for dimension in (dimension for name, dimension in form.dimensions.items() if name in names):
        if dimension.growing:
            scale = file.create_dataset(
                dimension.name, shape=(0,), maxshape=(None,), chunks=(CHUNK_BYTES // 8,), dtype="i8"
            )
        else:
            scale = file.create_dataset(dimension.name, data=scales[dimension.name])
        scale.make_scale(dimension.name)
        scale.attrs["units"], scale.attrs["long_name"] = "1", dimension.long_name
    for entry in entries:
        shape = row_shape(entry, scales)
        if entry.growing:
            dataset = _create_growing(file, entry, shape)
        else:
            values = _initial(entry, shape) if entry.name not in fixed else check(entry, fixed[entry.name], shape)
            dataset = file.create_dataset(entry.name, data=values)
        for axis, name in enumerate(entry.dims):
            dataset.dims[axis].attach_scale(file[name])
        dataset.attrs["units"], dataset.attrs["long_name"] = entry.units, entry.long_name


def stored_type(entry: Entry) -> np.dtype[Any]:
    """The type of a growing dataset's numbers or texts."""
    width = 64 if entry.dtype == "sha256" else entry.width
    return h5py.string_dtype("utf-8", width) if width else np.dtype(entry.dtype)


def chunking(entry: Entry, shape: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
    """The chunk ``(rows, *inner)`` of a growing dataset whose rows have ``shape``, and whether it is compressed."""
    row_bytes = stored_type(entry).itemsize * math.prod(shape)
    compressed = entry.compress and row_bytes >= _WORTH_COMPRESSING
    # A compressed chunk changes its size each time it is rewritten, and SWMR never reuses the space it leaves:
    # one row per chunk writes each once, and no kill can fall into the rewriting of a row flushed before.
    rows = 1 if compressed else max(1, CHUNK_BYTES // row_bytes)
    inner = list(shape)
    if row_bytes > _LARGEST_CHUNK and inner:
        inner[0] = max(1, inner[0] * _LARGEST_CHUNK // row_bytes)
    return (rows, *inner), compressed


def _create_growing(file: h5py.File, entry: Entry, shape: tuple[int, ...]) -> h5py.Dataset:
    dtype = stored_type(entry)
    chunks, compressed = chunking(entry, shape)
    options: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if compressed else {}
    return file.create_dataset(
        entry.name,
        shape=(0, *shape),
        maxshape=(None, *shape),
        chunks=chunks,
        dtype=dtype,
        fillvalue={"f": np.nan, "S": b""}.get(dtype.kind, 0),
        **options,
    )


def _initial(entry: Entry, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The value before a result is known; writing it now gives the dataset its place in the file."""
    if entry.dtype == "sha256":
        return np.zeros(shape, dtype=h5py.string_dtype("utf-8", 64))
    dtype = np.dtype(entry.dtype)
    return np.full(shape, np.nan if dtype.kind == "f" else 0, dtype=dtype)


def check(entry: Entry, value: npt.ArrayLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return ``value`` as a new array of the entry's type.

    Raises
    ------
    ValueError
        Wrong shape, or a type that does not fit (programmer errors).
    """
    if entry.dtype == "text":
        values = encode(np.asarray(value, dtype=object).ravel().tolist()).reshape(np.shape(value))
        if entry.width and values.dtype.itemsize > entry.width:
            raise ValueError(
                f"{entry.name}: a text of {values.dtype.itemsize} bytes, and there is room for {entry.width}"
            )
    elif entry.dtype == "sha256":
        if not isinstance(value, str) or len(value) != 64 or not value.isascii():
            raise ValueError(f"{entry.name}: expected 64 hexadecimal digits, got {value!r}")
        values = np.asarray(value.encode(), dtype=h5py.string_dtype("utf-8", 64))
    else:
        given, dtype = np.asarray(value), np.dtype(entry.dtype)
        if dtype.kind in "iu" and given.dtype.kind not in "iub":
            raise ValueError(f"{entry.name}: expected integers, got {given.dtype}")
        values = np.array(given, dtype=dtype)
    if values.shape != shape:
        raise ValueError(f"{entry.name}: expected shape {shape} ({', '.join(entry.dims)}), got {values.shape}")
    return values
