"""Devices, networks and servers as small TOML files: shipped ones by name, the user's own by path.

Every number has its unit in its name. FLOP are floating-point operations (1 MAC = 2 FLOP), bits and bytes are
decimal: 1 megabit = 10^6 bit, 1 megabyte = 10^6 byte.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from mocosfl_mpi.config import Section, read_toml
from mocosfl_mpi.errors import BadInput

Rate = Annotated[float, Field(ge=1e-6, le=1e9, strict=True)]
Quantity = Annotated[float, Field(ge=0.0, le=1e6, strict=True)]


class Device(Section):
    """A client's device."""

    kind: Literal["device"]
    """`device`."""
    title: str
    """What it is, in a few words."""
    compute_gigaflop_per_second: Rate
    """Sustained fp32 speed on convolutions."""
    compute_watt: Quantity | None = None
    """Power of the whole device while it computes; empty = not known."""
    idle_watt: Quantity | None = None
    """Power of the whole device while it does not; empty = not known."""


class Network(Section):
    """What lies between one client and the server."""

    kind: Literal["network"]
    """`network`."""
    title: str
    """What it is, in a few words."""
    up_megabit_per_second: Rate
    """From the client to the server, payload."""
    down_megabit_per_second: Rate
    """From the server to the client, payload."""
    round_trip_millisecond: Quantity
    """There and back for a small packet; each transfer costs half of it once, however many messages it holds."""
    message_overhead_millisecond: Quantity = 0.0
    """Added for each message, in either direction."""
    radio_watt: Quantity | None = None
    """Power of the interface while it sends or receives, on top of the device's; empty = not known."""
    radio_joule_per_megabyte: Quantity | None = None
    """The same per payload instead of per second; name one of the two."""

    @model_validator(mode="after")
    def _one_radio(self) -> Network:
        if self.radio_watt is not None and self.radio_joule_per_megabyte is not None:
            raise ValueError("radio_watt and radio_joule_per_megabyte say the same twice; keep one of them")
        return self


class Server(Section):
    """The main server."""

    kind: Literal["server"]
    """`server`."""
    title: str
    """What it is, in a few words."""
    compute_gigaflop_per_second: Rate
    """Sustained fp32 speed on convolutions."""
    receive_megabit_per_second: Rate | None = None
    """What the server's own link takes in, shared evenly by the pool; empty = no limit."""
    send_megabit_per_second: Rate | None = None
    """What it gives out, shared evenly by the pool; empty = no limit."""


Kind = TypeVar("Kind", Device, Network, Server)


def shipped() -> dict[str, Path]:
    """The profiles inside the package: name to file."""
    folder = Path(str(files("mocosfl_mpi"))) / "profiles"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load(name_or_path: str, kind: type[Kind]) -> Kind:
    """A shipped profile by name, or one of the user's by path.

    Raises
    ------
    BadInput
        No such profile, no readable TOML, an unknown or impossible value, or a profile of another kind.
    """
    known = shipped()
    path = known.get(name_or_path, Path(name_or_path))
    if name_or_path not in known and path.suffix != ".toml":
        raise BadInput(
            f"{name_or_path!r} is neither a shipped profile nor a TOML file; choose one of {', '.join(_named(kind))}, "
            f"or give the path of a .toml"
        )
    values = read_toml(path)
    wanted = _kind(kind)
    if values.get("kind") != wanted:
        raise BadInput(
            f"{name_or_path}: kind = {values.get('kind')!r}, but a {wanted} is wanted here (kind = '{wanted}')"
        )
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"{path}: " + "; ".join(_explain(item, kind) for item in error.errors())) from None


def _explain(item: object, kind: type[Section]) -> str:
    assert isinstance(item, dict)
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown key {name!r}; a {_kind(kind)} has {', '.join(kind.model_fields)}"
    if item["type"] == "missing":
        return f"{name!r} is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{name} = {item['input']!r}: {message}" if name else message


def _kind(kind: type[Section]) -> str:
    return kind.__name__.lower()


def _named(kind: type[Section]) -> list[str]:
    return [name for name, path in shipped().items() if read_toml(path).get("kind") == _kind(kind)]
