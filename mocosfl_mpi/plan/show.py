"""A plan for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from mocosfl_mpi.record.figures import figures, operations, section, size

SHOWN = 8
"""Ranks that are listed one by one."""
_LINKS = {
    "smashed data up": ("query_up", "key_up"),
    "labels up": ("labels_up",),
    "features down": ("features_down",),
    "gradients up": ("gradient_up",),
    "gradients down": ("gradient_down",),
    "client states up": ("weights_up", "momentum_up", "velocity_up"),
    "client states down": ("weights_down", "momentum_down", "velocity_down"),
}
_SOME = ("labels up", "features down", "gradients up")
"""What only some methods send."""
_PARTS = {
    "server": "main server", "clients": "clients, forward and backward (busiest host)", "views": "views (busiest host)",
    "other": "exchange and waiting", "synchronisation": "one synchronisation",
}  # fmt: skip


def render(plan: Mapping[str, Any], remedies: Sequence[tuple[str, int]], solution: str = "") -> RenderableType:
    """Everything ``mocosfl plan`` prints for a person, from ``Plan.summary``."""
    parts = [_memory(plan), "", _time(plan), "", _simulated(plan), "", *(_line("Note", note) for note in plan["notes"])]
    if plan["protection"]:
        parts += [_line("Smashed data", plan["protection"]["text"]), ""]
    if solution:
        parts += [_line("Solution", solution), ""]
    return Group(*parts, *_verdict(plan, remedies), "")


def _memory(plan: Mapping[str, Any]) -> RenderableType:
    lines = figures("memory", "clients", "mostly")
    lines.columns[3].justify = "left"
    for rank, resident in enumerate(plan["resident_bytes"][:SHOWN]):
        uses = {"program": plan["program_bytes"][rank], **plan["memory_by_use"][rank]}
        most = sorted(uses.items(), key=lambda item: -item[1])[:3]
        text = ", ".join(f"{name} {size(count)}" for name, count in most)
        lines.add_row(f"rank {rank}", size(resident), str(plan["rank_clients"][rank]), text)
    if plan["ranks"] > SHOWN:
        lines.add_row(f"… {plan['ranks'] - SHOWN} more", "", "", "")
    lines.add_row("all ranks", size(plan["memory_bytes"]), str(plan["pool"]), "what ranks share counted once")
    disk = f"On the disk: run.h5 {size(plan['record_bytes'])}, a checkpoint {size(plan['checkpoint_bytes'])}."
    return section("Memory at its peak (1 MiB = 2^20 byte)", lines, Text(disk))


def _time(plan: Mapping[str, Any]) -> RenderableType:
    lines = figures("seconds")
    for part, seconds in plan["seconds_per_step_by_part"].items():
        lines.add_row(_PARTS[part], f"{seconds:.4f}")
    lines.add_row("a step", f"{plan['seconds_per_step']:.4f}", end_section=True)
    lines.add_row(
        f"{plan['steps']:,} steps, {plan['syncs']:,} synchronisations", _clock(plan["seconds_per_step"] * plan["steps"])
    )
    lines.add_row("evaluations, roughly", _clock(plan["seconds_evaluating"]))
    lines.add_row("the run", _clock(plan["seconds"]))
    best = (
        f"Waiting: rank 0 {100 * plan['idle_share_server']:.0f} %, hosts {100 * plan['idle_share_hosts']:.0f} %. "
        f"Quickest on these {plan['cores']} cores: {plan['best_ranks']} rank(s) with {plan['best_host_threads']} "
        f"thread(s) per host, {plan['best_seconds_per_step']:.4f} s a step."
    )
    title = (
        f"Time with {plan['ranks']} rank(s), {plan['server_threads']} server thread(s), "
        f"{plan['host_threads']} per host; "
        f"{plan['precision']}, {plan['backend']}; {plan['processor']}"
    )
    return section(title, lines, Text(best))


def _simulated(plan: Mapping[str, Any]) -> RenderableType:
    lines = figures("all clients", "one client, mean")
    for name, kinds in _LINKS.items():
        total = sum(plan["simulated_bytes"][kind] for kind in kinds)
        if not total and name in _SOME:
            continue
        lines.add_row(name, size(total), size(total / plan["clients"]))
    total = sum(plan["simulated_bytes"].values())
    lines.add_row("all messages", size(total), size(total / plan["clients"]), end_section=True)
    work = sum(plan["client_flops"].values())
    lines.add_row("computation of clients", operations(work), operations(work / plan["clients"]))
    lines.add_row("computation of the main server", operations(sum(plan["server_flops"].values())), "")
    title = f"Simulated: what {plan['participants']} of {plan['clients']} clients and the main server spend in the run"
    return section(title, lines)


def _verdict(plan: Mapping[str, Any], remedies: Sequence[tuple[str, int]]) -> list[RenderableType]:
    memory, limit = size(plan["memory_bytes"]), size(plan["memory_limit_bytes"])
    if plan["fits"]:
        return [_line("Verdict", f"it fits: {memory} of {limit}.")]
    lines: list[RenderableType] = [_line("Verdict", f"it does NOT fit: {memory}, and there are {limit}.")]
    for change, left in remedies:
        fits = "fits" if left <= plan["memory_limit_bytes"] else "still too much"
        lines.append(Text(f"  {change}: {size(left)}, {fits}"))
    return lines


def _line(name: str, text: str) -> RenderableType:
    return Text.assemble((f"{name}: ", "bold"), text)


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f}"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"
