"""Is this file what the schema says, all of it, and in this very file? Asked before a byte of data is believed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.form import Form
from mocosfl_mpi.record.schema import RUN, setting

LARGEST_READ = 2 << 30
"""Bytes that one dataset may ask for; larger ones are read in parts, with h5py."""
_LARGEST_TEXT = 16 << 20
_LARGEST_CHUNK = 16 << 20


@contextmanager
def damage(path: Path, what: str = RUN.what) -> Iterator[None]:
    """Turn whatever HDF5, numpy or a failed ``require`` finds wrong with a file into one BadInput."""
    try:
        yield
    except (
        OSError,
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise BadInput(f"{path} is damaged, or no {what} of mocosfl: {text}") from None


def require(holds: bool, reason: str) -> None:
    """Raise ValueError with ``reason`` unless it holds."""
    if not holds:
        raise ValueError(reason)


def read_attributes(file: h5py.File, path: Path, form: Form = RUN) -> dict[str, Any]:
    """All root attributes, those in JSON parsed.

    Raises
    ------
    BadInput
        Another major version of the schema.
    ValueError
        Missing or malformed ones.
    """
    schema, version = attribute(file, "schema", form), attribute(file, "schema_version", form)
    require(schema == form.schema, f"its schema is {schema!r}, not {form.schema!r}")
    major = form.version.partition(".")[0]
    if version.partition(".")[0] != major:
        raise BadInput(
            f"{path} has schema version {version!r} and this program reads {major}.x; use the version of mocosfl_mpi "
            f"that wrote it ({attribute(file, 'software_version', form)!r})"
        )
    attributes = {name: attribute(file, name, form) for name in form.attributes}
    for name, kind in form.parsed.items():
        try:
            attributes[name] = json.loads(attributes[name])
        except RecursionError:
            raise ValueError(f"the attribute {name!r} is nested too deeply") from None
        require(isinstance(attributes[name], kind), f"the attribute {name!r} is no JSON {kind.__name__}")
    return attributes


def attribute(file: h5py.File, name: str, form: Form = RUN) -> Any:
    """A root attribute as stored, a text or an integer; ValueError where it is missing or odd."""
    require(name in file.attrs, f"the attribute {name!r} is missing")
    identifier = file.attrs.get_id(name)
    require(identifier.shape == () and identifier.get_storage_size() <= _LARGEST_TEXT, f"the attribute {name!r} is odd")
    if form.attributes[name][0] is int:
        require(identifier.dtype.kind in "iu", f"the attribute {name!r} is no integer")
        return int(file.attrs[name])
    # A text of variable length lies in the heap, whose damage HDF5 does not always survive: fixed lengths only.
    require(identifier.dtype.kind == "S", f"the attribute {name!r} is no text of fixed length")
    return bytes(file.attrs[name]).decode("utf-8")


def minor(version: str) -> int:
    """The minor version of a schema; ValueError where there is none."""
    return int(version.partition(".")[2])


def check_structure(
    file: h5py.File, names: Sequence[str], config: Mapping[str, Any], form: Form = RUN
) -> tuple[str, ...]:
    """Every dataset of ``names`` is there, with the axes, lengths and kind of type that schema and ``config`` say.

    Returns the dimensions along which rows are appended, in the order of the file's counter.
    """
    for name in names:
        _check_links(file, name)
        dataset = file[name]
        require(isinstance(dataset, h5py.Dataset), f"{name} is no dataset")
        require(dataset.external is None and not dataset.is_virtual, f"{name} lies in another file")
        _check_filters(dataset)
        entry = form.entries.get(name)
        kind = entry.dtype if entry else form.dimensions[name].kind
        expected = {"text": "S", "sha256": "S", "number": "i", "share": "f"}.get(kind) or np.dtype(kind).kind
        require(dataset.dtype.kind == expected, f"{name} has type {dataset.dtype}")
        require(dataset.dtype.itemsize <= 1 << 16, f"{name} has items of {dataset.dtype.itemsize} bytes")
        dims = entry.dims if entry else (name,)
        require(dataset.ndim == len(dims), f"{name} has {dataset.ndim} axes instead of {len(dims)}")
        for axis, dim in enumerate(dims):
            if not form.dimensions[dim].growing:
                wanted = file[dim].shape[0]
                require(
                    dataset.shape[axis] == wanted, f"{name} is {dataset.shape[axis]} long along {dim}, not {wanted}"
                )
        if entry is None and (source := form.dimensions[name].setting):
            wanted = np.shape(setting(config, source))
            require(dataset.shape == wanted, f"{name} has shape {dataset.shape}, and {source} {wanted}")
    # Other fixed labels may differ between minor versions: whoever reads takes those of the file.
    series = file["series"]
    labels = tuple(series.asstr()[:]) if series.shape[0] <= len(form.growing) else ()
    require(bool(labels) and labels == form.growing[: len(labels)], "series has other labels than the schema")
    return labels


def _check_links(file: h5py.File, name: str) -> None:
    """A soft or external link could lead to any other file."""
    path = ""
    for part in name.split("/"):
        path = f"{path}/{part}"
        link = file.get(path, getlink=True)
        require(link is not None, f"{name} is missing")
        require(isinstance(link, h5py.HardLink), f"{path} is a link elsewhere")


def _check_filters(dataset: h5py.Dataset) -> None:
    """Only gzip and shuffle (others may load foreign code), and no chunk that unpacks to more than a bound."""
    if dataset.chunks is None:
        return
    creation = dataset.id.get_create_plist()
    codes = {creation.get_filter(index)[0] for index in range(creation.get_nfilters())}
    require(codes <= {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}, f"{dataset.name} has unknown filters")
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    require(size <= _LARGEST_CHUNK, f"{dataset.name} has chunks of {size} bytes")


def check_stored(dataset: h5py.Dataset, rows: int | None, file_size: int) -> None:
    """Every byte of the first ``rows`` (None = all) lies in the file: HDF5 reads what was cut off as zeros."""
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        # A dataset inside its own header (compact) has no offset; the header's checksum covers it.
        require(offset is None or offset + dataset.nbytes <= file_size, f"{dataset.name}: the file was cut before it")
        return
    shape = dataset.shape if rows is None else (rows, *dataset.shape[1:])
    needed = math.prod(-(-length // chunk) for length, chunk in zip(shape, dataset.chunks, strict=True))
    found = 0

    def visit(chunk: Any) -> None:
        nonlocal found
        found += chunk.chunk_offset[0] < shape[0] and chunk.byte_offset + chunk.size <= file_size

    if needed:
        dataset.id.chunk_iter(visit)
    require(found >= needed, f"{dataset.name} lacks {needed - found} of {needed} parts: the file was cut")
