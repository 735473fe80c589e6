"""How a kind of file is declared: its axes, its datasets, and everything that may stand in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Dimension:
    """An axis: its scale is the dataset of its name in the root group, attached to every user of the axis."""

    name: str
    kind: Literal["number", "share", "text"]
    long_name: str
    labels: tuple[str, ...] | None = None
    """Labels that the schema itself fixes; None = the run gives them."""
    since: int = 0
    """Minor version that brought it: files of an earlier one lack it."""
    setting: str = ""
    """Setting of the configuration that gives its values; files of runs where it is empty lack it."""
    growing: bool = False
    """Whether rows are appended along this axis."""

    @property
    def given(self) -> bool:
        """Whether the run says how long it is, not the schema, the rows or the configuration."""
        return self.labels is None and not self.growing and not self.setting


@dataclass(frozen=True)
class Entry:
    """One dataset: path in the file, axes, type, unit and meaning."""

    name: str
    dims: tuple[str, ...]
    dtype: Literal["float32", "float64", "int64", "uint8", "text", "sha256"]
    units: str
    long_name: str
    when: Literal["row", "fixed", "result"] = "row"
    """``row``: appended while the run goes on; ``fixed``: known before it; ``result``: empty until known."""
    compress: bool = False
    since: int = 0
    """Minor version that brought it: files of an earlier one lack it."""
    setting: str = ""
    """Setting of the configuration that asks for it; files of runs where it is off or empty lack it."""
    supervised: bool = False
    """Only in files of methods that learn from labels."""
    width: int = 0
    """Bytes of a text in a growing dataset, which have a fixed length."""

    @property
    def growing(self) -> str | None:
        """The growing dimension, always the first, or None."""
        return self.dims[0] if self.when == "row" else None


@dataclass(frozen=True)
class Form:
    """A kind of file: everything that may stand in it."""

    schema: str
    version: str
    """major.minor"""
    file_name: str
    what: str
    """What it holds, in a message for a person."""
    safe: str
    """What a person is told when the disk refuses a row."""
    dimensions: Mapping[str, Dimension]
    entries: Mapping[str, Entry]
    attributes: Mapping[str, tuple[type[str] | type[int], str]]
    """Attributes of the root group: type and meaning."""
    parsed: Mapping[str, type]
    """Those that are JSON, and of what kind."""

    @property
    def growing(self) -> tuple[str, ...]:
        """Along which rows are appended, in the order of ``committed``; a later version may only append."""
        return tuple(name for name, dimension in self.dimensions.items() if dimension.growing)
