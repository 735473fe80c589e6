"""A machine as the plan sees it: what rehearsals took there. A small JSON file, validated, nothing in it executed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.native.compiled import NoKernelsError, cache_directory

FILE_NAME = "profile.json"
LARGEST = 2**20
"""Bytes; a profile has some thousand."""
MOST = 32
"""Rehearsals that the cache keeps."""

Count = Annotated[int, Field(ge=1, lt=2**63)]
Bytes = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0.0, lt=1e18)]
Rate = Annotated[float, Field(gt=0.0, lt=1e18)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Load(_Record):
    """What one step of an experiment asks for, in units that do not depend on a machine."""

    server_flops: Amount
    """Of the main server."""
    client_flops: Amount
    """Of the busiest host's clients, both passes."""
    views: Amount
    """Numbers in the busiest host's views."""
    moved: Amount
    """Bytes of smashed data and gradients that travel."""
    averaged: Amount
    """Numbers that one synchronisation averages."""
    server_row: Rate
    """The server's FLOPs per row: how large its matrices are."""
    client_row: Rate
    """The clients' FLOPs per row."""


class Rehearsal(_Record):
    """Some steps of an experiment with made-up images: what they asked for, and what they took."""

    precision: Literal["bf16", "fp32", "fp64"]
    backend: Literal["fused", "stacked", "loop"]
    ranks: Count
    server_threads: Count
    host_threads: Count
    load: Load
    server: Rate
    """Seconds per step of the main server alone."""
    clients: Rate
    """Seconds per step of the busiest host: momentum update, forward and backward passes."""
    views: Rate
    """Seconds per step of the busiest host."""
    other: Amount
    """Seconds per step that none of these explains: the exchange, waiting for the last of several hosts."""
    synchronisation: Amount
    """Seconds of one synchronisation."""
    encoding: Rate
    """FLOPs per second of the encoder in evaluations."""
    program: list[Bytes]
    """Resident bytes of rank 0, and of a host (where there is one), beyond what the plan counts by itself."""


class Machine(_Record):
    """The hardware."""

    processor: Annotated[str, Field(max_length=200)]
    cores: Count
    memory: Count
    """Bytes."""
    products: Rate
    """FLOPs per second of float32 matrix products on all cores."""
    double_products: Rate
    """FLOPs per second of tall float64 matrix products, as the linear probe has them."""


class Profile(_Record):
    """A machine and what rehearsals took on it, newest first."""

    schema_version: Literal["1"] = "1"
    software_version: Annotated[str, Field(max_length=40)]
    machine: Machine
    precision: Literal["bf16", "fp32"]
    """What `compute.precision = auto` is there."""
    fused: bool
    """Whether the compiled kernels can be had there."""
    rehearsals: Annotated[tuple[Rehearsal, ...], Field(min_length=1, max_length=1000)]

    def near(self, precision: str, backend: str, load: Load, value: Callable[[Rehearsal], float], row: str) -> float:
        """A rate at ``load``, between those of the rehearsals by the size of a row's work (geometric mean).

        The same precision and backend are preferred to others; equal loads give that rehearsal's own rate.
        """
        same = [r for r in self.rehearsals if (r.precision, r.backend) == (precision, backend)] or self.rehearsals
        total = weights = 0.0
        for rehearsal in same:
            apart = distance(rehearsal.load, load, row)
            if apart < 1e-6:
                return value(rehearsal)
            weights += apart**-2
            total += apart**-2 * math.log(max(value(rehearsal), 1e-30))
        return math.exp(total / weights)

    def program(self, *, serves: bool) -> int:
        """Resident bytes of the program on rank 0 or on a host: the median of the rehearsals."""
        found = [r.program[0] if serves else r.program[1] for r in self.rehearsals if serves or len(r.program) > 1]
        found = sorted(found or [r.program[0] for r in self.rehearsals])
        return found[len(found) // 2]

    def joined(self, other: Profile) -> Profile:
        """The same profile with the rehearsals of an older one of the same machine."""
        machine = (other.machine.processor, other.machine.cores, other.software_version)
        if machine != (self.machine.processor, self.machine.cores, self.software_version):
            return self
        kept = [old for old in other.rehearsals if not any(_alike(old, new) for new in self.rehearsals)]
        return self.model_copy(update={"rehearsals": (*self.rehearsals, *kept)[:MOST]})


def distance(a: Load, b: Load, row: str) -> float:
    """How far apart two loads are for a rate that depends on ``row``, in doublings; whole loads count a little."""
    own = abs(math.log2(getattr(a, row) / getattr(b, row)))
    whole = sum(
        abs(math.log2((getattr(a, name) + 1.0) / (getattr(b, name) + 1.0)))
        for name in ("server_flops", "client_flops", "views", "moved")
    )
    return own + 0.1 * whole


def _alike(a: Rehearsal, b: Rehearsal) -> bool:
    names = ("precision", "backend", "ranks", "server_threads", "host_threads", "load")
    return all(getattr(a, name) == getattr(b, name) for name in names)


def read_profile(path: Path) -> Profile:
    """The profile in ``path``.

    Raises
    ------
    BadInput
        It cannot be read, or is no profile.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise BadInput(f"{path} has more than {LARGEST} bytes: no profile is that large")
        return Profile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"cannot read the profile {path}: {error}; write one with --save-profile") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(
            f"{path} is no profile: {where or 'the file'}: {first['msg']}; write one with --save-profile"
        ) from None


def write_profile(profile: Profile, path: Path) -> None:
    """Write ``profile`` to ``path``. BadInput where it cannot be written."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(profile.model_dump_json(indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise BadInput(f"cannot write the profile {path}: {error}") from None


def cached() -> Profile | None:
    """The profile that earlier plans left in the user's cache; None where there is none that can be used."""
    try:
        return read_profile(cache_directory() / FILE_NAME)
    except (BadInput, NoKernelsError):
        return None


def remember(profile: Profile) -> Profile:
    """Keep ``profile`` in the cache, together with what is there; what was kept."""
    old = cached()
    profile = profile.joined(old) if old else profile
    with contextlib.suppress(BadInput, NoKernelsError):  # no cache (see MOCOSFL_CACHE): nothing is kept
        write_profile(profile, cache_directory() / FILE_NAME)
    return profile
