"""A stored configuration in words, also that of another version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mocosfl_mpi.methods import METHODS
from mocosfl_mpi.record.figures import percent
from mocosfl_mpi.record.schema import setting

_AVERAGED = {
    "none": "no models are averaged",
    "online": "online models are averaged",
    "online_and_momentum": "online and momentum models are averaged",
    "momentum_reset": "online models are averaged, momentum models reset to their mean",
    "mixed": "online models are averaged, and each client mixes the mean with its own by their divergence",
    "predictor_mixed": "online models are averaged, but a client whose encoder diverges keeps its own predictor",
}


def stored(config: Mapping[str, Any], *names: str) -> Any:
    """The setting of these names; a question mark where there is none, or no single value."""
    value: Any = config
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return "?" if value is None or (isinstance(value, Mapping | Sequence) and not isinstance(value, str)) else value


def what_is_averaged(config: Mapping[str, Any], method: Any) -> str:
    """What synchronisations make common, in words; nothing for a method of another version."""
    strategy = _strategy(config, method)
    every, compression = (stored(config, "federation", f"momentum_{name}") for name in ("every", "compression"))
    layers = config["federation"].get("aligned_layers") if isinstance(config.get("federation"), Mapping) else None
    turns = method in METHODS and METHODS[method].one_at_a_time and strategy == "online"
    words = [
        "the client's part is handed to the next" if turns else _AVERAGED.get(str(strategy), ""),
        "" if every in (1, "?") else f"momentum one time in {every}",
        "" if compression in ("none", "?") else f"momentum sent by {compression}",
        f"layers {', '.join(map(str, layers))} only" if isinstance(layers, list) and layers else "",
    ]
    return ", ".join(word for word in words if word)


def _strategy(config: Mapping[str, Any], method: Any) -> Any:
    """What `federation.alignment` says, or the method; None for a method of another version."""
    strategy = stored(config, "federation", "alignment")
    if strategy not in ("method", "?"):
        return strategy
    return METHODS[method].alignment if method in METHODS else None


def how_often(config: Mapping[str, Any], method: Any) -> str:
    """How often that happens, if it does."""
    times = stored(config, "federation", "sync_freq")
    if method in METHODS and METHODS[method].one_at_a_time:
        return ", an epoch is one client's turn"
    return "" if _strategy(config, method) == "none" else f", {times} times per epoch"


def who_is_rich(config: Mapping[str, Any]) -> str:
    """Who has more, in words."""
    share, factor, data = (
        setting(config, name) for name in ("client.rich_share", "client.rich_batch_factor", "partition.rich_data")
    )
    if not isinstance(share, float):
        return ""
    words = [
        f"batches {factor} times as large" if isinstance(factor, int) else "",
        f"{percent(data)} of the images" if isinstance(data, float) else "",
        "more layers" if setting(config, "model.rich_cut_layer") else "",
    ]
    return f"; {percent(share)} of them are rich: {' and '.join(word for word in words if word)}"


def at_the_cut(config: Mapping[str, Any]) -> str:
    """How smashed data and gradients travel, in words; nothing where it is in full and in every step."""
    smashed, gradient, every, threshold = (
        setting(config, f"communication.{name}") for name in ("smashed", "gradient", "download_every", "loss_threshold")
    )
    words = [
        f"smashed data by {smashed}" if smashed not in (None, "none") else "",
        f"gradients by {gradient}" if gradient not in (None, "none") else "",
        f"gradients one step in {every}" if every not in (None, 1) else "",
        f"three-state saving at {threshold}" if threshold else "",
    ]
    return "".join(f", {word}" for word in words if word)
