"""A run timed again, for a person and for programs; everything is labelled as simulated."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mocosfl_mpi.record.figures import clean
from mocosfl_mpi.retime.model import Retimed, Target
from mocosfl_mpi.retime.profiles import Device, Network, Server

_PARTS = {
    "fetch": "fetching models that are out of date", "compute": "client computes", "upload": "smashed data up",
    "server": "server computes", "download": "gradients down", "latency": "latency",
    "synchronise": "synchronisations",
}  # fmt: skip
_ENERGY = {"compute": "computing", "idle": "waiting and sending", "radio": "network interface, on top"}
_MISSING = {
    "compute": "the device profile has no compute_watt",
    "idle": "the device profile has no idle_watt",
    "radio": "the network profile has neither radio_watt nor radio_joule_per_megabyte",
}
_LONGEST = 24
"""Epochs shown one by one; of a longer run, the first and last dozen."""


@dataclass(frozen=True)
class Setting:
    """What a run was timed on."""

    path: str
    device: Device
    network: Network
    server: Server
    sigma: float
    seed: int


def as_json(setting: Setting, timed: Retimed, target: Target | None) -> dict[str, Any]:
    """What ``mocosfl retime --json`` prints: seconds, joules (of all clients together; null = not known), bytes."""
    joules = timed.joules
    return {
        "simulated": True,
        "path": setting.path,
        "device": setting.device.model_dump(),
        "network": setting.network.model_dump(),
        "server": setting.server.model_dump(),
        "stragglers": {"sigma": setting.sigma, "seed": setting.seed, "slowdown_range": list(timed.slowdown)},
        "epochs": {
            "seconds": timed.seconds.tolist(),
            **{f"{name}_seconds": part.tolist() for name, part in timed.parts.items()},
            "joules": None if joules is None else joules.tolist(),
            "steps": timed.steps.tolist(),
            "syncs": timed.syncs.tolist(),
            "bytes": timed.bytes_used.tolist(),
            "client_flops": timed.flops_used.tolist(),
        },
        "seconds": float(timed.seconds.sum()),
        "parts_seconds": {name: float(part.sum()) for name, part in timed.parts.items()},
        "joules": _total(joules),
        "parts_joules": {name: _total(part) for name, part in timed.energy.items()},
        "time_to_accuracy": None if target is None else asdict(target),
    }


def render(setting: Setting, timed: Retimed, target: Target | None) -> RenderableType:
    """The same for a person."""
    return Group(
        Text("SIMULATED time and energy: a model applied to the recorded ledger, not a measurement", style="bold"),
        _header(setting, timed), "", _parts(timed), "", _epochs(timed), "", _energy(timed), "", _accuracy(target),
    )  # fmt: skip


def duration(seconds: float) -> str:
    """Seconds in a unit that a person can grasp: ``4.2 s``, ``1:02:03``, ``3 d 4:05:06``."""
    if seconds < 100:
        return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    days, rest = divmod(whole, 86400)
    text = f"{rest // 3600}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days:,} d {text}" if days else text


def energy(joules: float) -> str:
    """Joules in decimal units."""
    if joules < 1:
        return f"{joules * 1000:.3g} mJ"
    for unit in ("J", "kJ", "MJ"):
        if joules < 1000:
            return f"{joules:.1f} {unit}"
        joules /= 1000
    return f"{joules:,.1f} GJ"


def _header(setting: Setting, timed: Retimed) -> RenderableType:
    low, high = timed.slowdown
    some = f"log-normal factors, sigma {setting.sigma:g}, seed {setting.seed}: {low:.2f} to {high:.2f} times slower"
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in {
        "Run": setting.path,
        "Device": f"{setting.device.title}, {setting.device.compute_gigaflop_per_second:g} GFLOP/s",
        "Network": f"{setting.network.title}, {setting.network.up_megabit_per_second:g} Mbit/s up, "
        f"{setting.network.down_megabit_per_second:g} down, round trip {setting.network.round_trip_millisecond:g} ms",
        "Server": f"{setting.server.title}, {setting.server.compute_gigaflop_per_second:g} GFLOP/s",
        "Stragglers": some if setting.sigma else "none",
    }.items():
        table.add_row(name, clean(text))
    return table


def _parts(timed: Retimed) -> RenderableType:
    total = float(timed.seconds.sum())
    table = _table("simulated", "share")
    for name, part in timed.parts.items():
        seconds = float(part.sum())
        table.add_row(_PARTS[name], duration(seconds), _share(seconds, total))
    table.add_section()
    table.add_row(f"all {len(timed.seconds)} epochs", duration(total), _share(total, total))
    return Group(Text("Simulated wall time by the slowest client, for whom all wait", style="bold"), table)


def _epochs(timed: Retimed) -> RenderableType:
    table = _table("steps", "synchronisations", "simulated", "since the start")
    since = np.cumsum(timed.seconds)
    shown: npt.NDArray[np.int64] = np.arange(len(since))
    if len(shown) > _LONGEST:
        shown = np.concatenate([shown[: _LONGEST // 2], shown[-_LONGEST // 2 :]])
    for place, epoch in enumerate(shown.tolist()):
        if place and epoch != shown[place - 1] + 1:
            table.add_row("…", "", "", "", "")
        seconds = float(timed.seconds[epoch])
        cells = (str(timed.steps[epoch]), str(timed.syncs[epoch]), duration(seconds), duration(float(since[epoch])))
        table.add_row(f"epoch {epoch + 1}", *cells)
    return Group(Text("Simulated wall time by epoch", style="bold"), table)


def _energy(timed: Retimed) -> RenderableType:
    table = _table("simulated", "mean of a client in an epoch")
    times = timed.members * len(timed.seconds)

    def row(name: str, joules: float | None, missing: str) -> None:
        cells = ("not known", missing) if joules is None else (energy(joules), energy(joules / times))
        table.add_row(name, *cells)

    for name, part in timed.energy.items():
        row(_ENERGY[name], _total(part), _MISSING[name])
    table.add_section()
    row("together", _total(timed.joules), "some of its parts is not known")
    title = "Simulated energy of the clients that took part, all together"
    return Group(Text(title, style="bold"), table)


def _accuracy(target: Target | None) -> RenderableType:
    title = Text("Simulated time to accuracy", style="bold")
    if target is None:
        line = "not known: the run has no evaluations (evaluation.every)"
    elif target.seconds is None:
        line = f"kNN {target.accuracy:.1f} % was not reached"
    elif not target.epoch:
        line = f"kNN {target.accuracy:.1f} %: the untrained network has it already ({target.reached:.1f} %)"
    else:
        line = (
            f"kNN {target.accuracy:.1f} % (reached: {target.reached:.1f} %) after {target.epoch} epochs, "
            f"{duration(target.seconds)}"
        )
    return Group(title, Text(line))


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", header_style="dim")
    return table


def _total(values: npt.NDArray[np.float64] | None) -> float | None:
    return None if values is None else float(values.sum())


def _share(part: float, total: float) -> str:
    return f"{100 * part / total:.1f} %" if total else "–"
