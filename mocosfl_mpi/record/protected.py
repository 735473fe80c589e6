"""How smashed data of a run were protected, for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mocosfl_mpi.record.schema import setting

if TYPE_CHECKING:
    from mocosfl_mpi.record.reader import Run

DELTA = 1e-5
"""`defence.delta` where a stored configuration leaves it out."""


def protection(run: Run) -> dict[str, Any] | None:
    """Defences by setting, most sends of an image, and ε at δ (None = no guarantee); None without any defence."""
    section = setting(run.attrs["config"], "defence")
    if not isinstance(section, Mapping) or "privacy/epsilon" not in run.names:
        return None
    epsilon, delta = float(run["privacy/epsilon"]), section.get("delta", DELTA)
    return {
        "defences": dict(section),
        "sends": int(run["privacy/sends"]),
        "epsilon": epsilon if np.isfinite(epsilon) and isinstance(delta, float) else None,
        "delta": delta,
    }


def words(found: Mapping[str, Any]) -> str:
    """``protection`` in a line."""
    defences = found["defences"]
    parts = [
        f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}"
        for name, value in defences.items()
        if name != "delta"
    ]
    if found["epsilon"] is not None:
        verdict = (
            f"ε = {found['epsilon']:.4g} at δ = {found['delta']:g} for the exchange of one image, of its smashed data "
            f"alone, sent up to {found['sends']} times"
        )
    elif defences.get("noise") == "gaussian" and "clip" in defences:
        verdict = "no ε is known: see the notes"
    else:
        verdict = "additive noise, no guarantee" if "noise" in defences else "no guarantee"
    return f"{', '.join(parts)}; {verdict}"
