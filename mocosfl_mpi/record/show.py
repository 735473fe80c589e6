"""A run for a person: what it was, what came of it, what it cost; every figure with its unit and meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mocosfl_mpi.methods import METHODS
from mocosfl_mpi.networks import EXPANSION, STAGES
from mocosfl_mpi.record.reader import Run
from mocosfl_mpi.record.schema import setting

_PAIRS = tuple(name for name in STAGES if name not in EXPANSION)
_AVERAGED = {
    "none": "no models are averaged",
    "online": "online models are averaged",
    "online_and_momentum": "online and momentum models are averaged",
    "momentum_reset": "online models are averaged, momentum models reset to their mean",
    "mixed": "online models are averaged, and each client mixes the mean with its own by their divergence",
    "predictor_mixed": "online models are averaged, but a client whose encoder diverges keeps its own predictor",
}
_MESSAGES = {
    "query_up": "query data up", "key_up": "key data up", "gradient_down": "gradients down",
    "weights_up": "online models up", "weights_down": "online models down",
    "momentum_up": "momentum models up", "momentum_down": "momentum models down",
    "velocity_up": "SGD velocities up", "velocity_down": "SGD velocities down",
    "labels_up": "labels up", "features_down": "features down", "gradient_up": "gradients up",
}  # fmt: skip
_FAILURES = {
    "dropped_out": "clients drawn that dropped out of their epoch",
    "missed_synchronisations": "synchronisations missed by a client",
    "unheard_steps": "steps in which the server heard nobody",
}
_WORK = {
    "query_forward": "query forward", "key_forward": "key forward", "backward": "backward",
    "ema": "momentum update", "optimiser": "optimiser",
}  # fmt: skip
_FURTHER = {
    "few_labels_top1": "linear probe", "published_linear_top1": "published linear probe, best epoch on test",
    "published_linear_last_top1": "published linear probe, last epoch",
    "published_few_labels_top1": "published two-layer probe, best epoch on test",
    "published_few_labels_last_top1": "published two-layer probe, last epoch",
    "fine_tuned_top1": "whole encoder fine-tuned", "transfer_knn_top1": "kNN", "transfer_linear_top1": "linear probe",
    "client_knn_top1": "kNN, each client's classes", "personalised_top1": "each client's own probe, its classes",
}  # fmt: skip
_BY_CLIENT = ("client_knn_top1", "personalised_top1")
_OWN = {"own_knn_top1": "kNN", "own_linear_top1": "linear probe"}
_MEMORY = {
    "peak": "peak memory", "weights": "  weights", "momentum_weights": "  momentum weights", "velocity": "  velocity",
    "activations": "  saved activations",
}  # fmt: skip


def show(run: Run, console: Console | None = None) -> None:
    """Print ``render(run)``."""
    (console or Console()).print(render(run))


def render(run: Run) -> RenderableType:
    """Everything ``mocosfl inspect`` prints for a person; works for unfinished runs too."""
    summary = run.summary()
    return Group(
        _header(run, summary), "", quality(summary), "", *_own(summary), *_further(run, summary),
        _training(summary), "", _spending(summary), "", *_failures(summary), _measured(summary), *_remarks(summary), "",
    )  # fmt: skip


def _header(run: Run, summary: Mapping[str, Any]) -> RenderableType:
    config, attrs = run.attrs["config"], run.attrs
    state = "completed" if summary["completed"] else "NOT completed"
    backbone, cut = _value(config, "model", "backbone"), _value(config, "model", "cut_layer")
    # The papers count convolutions, of networks with two in each block.
    papers = f" ({2 * cut - 1} as the papers count)" if isinstance(cut, int) and backbone in _PAIRS else ""
    images, clients = run["partition/counts"].sum(axis=1), summary["clients"]
    classes = len(run["class"])
    each = f"{images.min()}" if images.min() == images.max() else f"{images.min()} to {images.max()}"
    owned = f"partition {_value(config, 'partition', 'kind')!r}, {each} images per client"
    deeper = setting(config, "model.rich_cut_layer")
    place = f"first {cut} layer(s){papers} on the client{f', {deeper} on a rich one' if deeper else ''}"
    if (method := METHODS.get(summary["method"])) is not None:
        owned = f"every client has a piece of each of {each} images" if method.vertical else owned
        place = "whole on the client" if method.whole_network else place
    averaged, sampling = _averaged(config, summary["method"]), _value(config, "client", "sampling")
    drawn = "" if sampling in ("uniform", "?") else f" ({sampling})"
    rows = {
        "Run": f"{summary['preset']}, {state}",
        "Method": f"{summary['method']}{': ' if averaged else ''}{averaged}"
        f"{_often(config, summary['method'])}; seed {summary['seed']}",
        "Data": f"{_value(config, 'data', 'source')}, {classes} classes, {owned}",
        "Clients": f"{clients} simulated, {summary['pool']} take part in an epoch{drawn}, "
        f"{_value(config, 'client', 'batch_size')} images each per step{_rich(config)}",
        "Network": f"{backbone}, width {_value(config, 'model', 'width')}, {place}{_at_the_cut(config)}",
        "Progress": f"{summary['epochs']} of {summary['epochs_planned']} epochs, {summary['steps']} steps, "
        f"{summary['syncs']} synchronisations{_wall(summary)}",
        "Computed": f"{summary['ranks']} MPI rank(s) ({summary['launcher']}) on {', '.join(summary['hosts'])}, "
        f"{attrs['server_threads']} server thread(s), {attrs['host_threads']} per host rank; {summary['date']}",
        "Experiment": f"configuration {str(summary['config_hash'])[:12]}, "
        f"final state {str(summary['state_sha256'] or 'none yet')[:12]}",
        "File": summary["path"],
    }
    sessions = summary["sessions"] or []
    if len(sessions) > 1:
        rows["Computed"] += f"; the last of {len(sessions)} sessions, on {', '.join(map(str, sessions))} ranks"
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows.items():
        table.add_row(name, clean(text))
    return table


def quality(summary: Mapping[str, Any]) -> RenderableType:
    """The verdict: test accuracy of the trained encoder beside the untrained one and raw pixels."""
    title, table = f"Test accuracy in %{_of_whom(summary)}", figures("trained", "untrained", "gain", "raw pixels")
    own = [("the network's own classifier", "classifier_top1")] if _supervised(summary) else []
    for judge, name in (
        *own,
        ("kNN on encoder features", "knn_top1"),
        ("kNN on its logits" if own else "kNN on projections", "knn_projector_top1"),
        ("linear probe on encoder features", "linear_top1"),
    ):
        trained, untrained = summary.get(name), summary.get(f"{name}_untrained")
        gain = None if trained is None or untrained is None else trained - untrained
        cells = (trained, untrained, gain, summary.get(f"{name}_pixels"))
        table.add_row(judge, *(_figure(cell, 1, signed=place == 2) for place, cell in enumerate(cells)))
    newest = summary["last_evaluation"]
    if summary["knn_top1"] is None and newest is not None:
        best = f", classifier {_figure(newest['classifier_top1'], 1)} %" if own else ""
        line = f"Newest kNN during the run: {_figure(newest['knn_top1'], 1)} %{best}, after {newest['epoch']} epochs."
        return section(title, table, clean(line))
    return section(title, table)


def _of_whom(summary: Mapping[str, Any]) -> str:
    """Whose encoder is judged, where there is no common one."""
    method = METHODS.get(summary["method"])
    own = summary["further"].get("own_knn_top1", {"clients": 0})
    apart = method is not None and method.alignment == "none" and own["clients"]
    return f", mean over the models of {own['clients']} client(s)" if apart else ""


def _own(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What clients' own models achieve."""
    table, found = figures("mean", "std", "lowest", "highest"), summary["further"]
    judged = found.get("own_knn_top1", {"clients": 0})["clients"]
    for name, text in _OWN.items():
        if name in found and found[name]["clients"]:
            cells = (found[name][key] for key in ("mean", "std", "lowest", "highest"))
            table.add_row(f"{text} on encoder features", *(_figure(cell, 1) for cell in cells))
    if table.row_count:
        yield section(f"Test accuracy in % of {judged} clients' own models", table)
        yield ""


def _further(run: Run, summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Whatever else the configuration asked of the encoder."""
    found, config = summary["further"], run.attrs["config"]
    table, spreads = figures("trained", "untrained", "gain"), []
    for name, text in _FURTHER.items():
        if name not in found:
            continue
        trained, untrained = found[name], found[f"{name}_untrained"]
        if name in _BY_CLIENT:
            low, high, count = (trained[key] for key in ("lowest", "highest", "clients"))
            spreads.append(f"{text}: {_figure(low, 1)} to {_figure(high, 1)} over {count} clients.")
            table.add_row(f"{text}, mean", *_gained(trained["mean"], untrained["mean"]))
        elif isinstance(trained, Mapping):
            for share, value in trained.items():
                table.add_row(f"{text}, {_percent(float(share))} of the labels", *_gained(value, untrained[share]))
        else:
            extra = {
                "fine_tuned_top1": f", {_percent(setting(config, 'evaluation.fine_tune_share'))} of the labels",
                "transfer_knn_top1": f" on {setting(config, 'evaluation.transfer')}",
                "transfer_linear_top1": f" on {setting(config, 'evaluation.transfer')}",
            }
            table.add_row(clean(text + extra.get(name, "")), *_gained(trained, untrained))
    if table.row_count:
        yield section("Further test accuracy in %", table, *map(clean, spreads))
        yield ""


def _supervised(summary: Mapping[str, Any]) -> bool:
    method = METHODS.get(str(summary["method"]))
    return method is not None and method.supervised


def _gained(trained: float | None, untrained: float | None) -> tuple[str, str, str]:
    gain = None if trained is None or untrained is None else trained - untrained
    return _figure(trained, 1), _figure(untrained, 1), _figure(gain, 1, signed=True)


def _percent(share: object) -> str:
    return f"{100 * share:g} %" if isinstance(share, float) else "?"


def _training(summary: Mapping[str, Any]) -> RenderableType:
    table = figures("value", "meaning")
    loss = f"{_figure(summary['loss_first_epoch'], 3)} → {_figure(summary['loss'], 3)}"
    share, method = summary["accuracy"], METHODS.get(summary["method"])
    accuracy = _figure(None if share is None else 100 * share, 1) + " %"
    first = [
        ("loss", loss, "contrastive, mean of the first → last epoch"),
        ("contrastive accuracy", accuracy, "queries whose own key scores above all keys in the memory"),
    ]
    if _supervised(summary):
        first = [
            ("loss", loss, "cross-entropy, mean of the first → last epoch"),
            ("training accuracy", accuracy, "images of the steps whose own class scores highest"),
        ]
    models = [
        ("online–momentum distance", _figure(summary["online_momentum_distance"], 4),
         "client's two models, relative, after the last averaging; small is good"),
        ("momentum spread", _figure(summary["momentum_spread"], 4),
         "momentum models around their mean, relative; 0 where they are averaged"),
    ]  # fmt: skip
    for name, value, meaning in (
        *first,
        ("feature spread", _figure(summary["feature_std"], 2), "1 = in all directions, near 0 = collapsed"),
        ("effective rank", _figure(summary["effective_rank"], 1), "dimensions that the features really use"),
        *(models if method is None or method.momentum else []),
        ("client divergence", _figure(summary["divergence_online_mean"], 3),
         "online models from their mean before the last averaging (L2, summed over layers)"),
        *_mixing(summary),
    ):  # fmt: skip
        table.add_row(name, clean(value), clean(meaning))
    table.columns[2].justify = "left"
    return section("Training and health, last epoch", table)


def _mixing(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    share = summary["own_share"]
    meaning = "of its own model (fedu: predictor) that a client kept at the last synchronisation, mean"
    return [] if share is None else [("own share", _figure(share, 2), meaning)]


def _spending(summary: Mapping[str, Any]) -> RenderableType:
    table = figures("amount", "messages")
    sent, messages = summary["bytes_per_client"], summary["messages_per_client"]
    for kind, count in messages.items():
        if count:
            table.add_row(clean(_MESSAGES.get(kind, kind)), size(sent[kind]), f"{count:,.1f}")
    table.add_row("all messages", size(sum(sent.values())), f"{sum(messages.values()):,.1f}", end_section=True)
    flops = summary["flops_per_client"]
    for kind, count in flops.items():
        if count:
            table.add_row(clean(_WORK.get(kind, kind)), operations(count), "")
    table.add_row("all computation", operations(sum(flops.values())), "", end_section=True)
    for kind, text in _MEMORY.items():
        if kind in summary["client_memory"]:
            table.add_row(text, size(summary["client_memory"][kind]), "")
    if summary["rich_client_memory"]:
        table.add_row("peak memory, rich client", size(summary["rich_client_memory"]["peak"]), "")
    title = f"What one simulated client spends in the run, mean of {summary['clients']} clients (1 MiB = 2^20 byte)"
    return section(title, table, *_saved(summary))


def _saved(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    saving = summary["saving"]
    if saving is None:
        return
    share = "" if saving["saved_share"] is None else f"; {100 * saving['saved_share']:.1f} % of the bytes at the cut"
    states = ", ".join(f"{saving[state]} in state {state}" for state in "ABC")
    yield clean(
        f"Saved by the loss: {saving['saved_epochs']:g} of {summary['epochs']} epochs of traffic by the published "
        f"formula C + B/2, with {states} (as the published code counts: {saving['saved_epochs_published']:g}){share}."
    )


def _failures(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What failed, where anything could."""
    found = summary["failures"]
    if found is None:
        return
    table = figures("failed", "of", "share")
    rows = {_FAILURES[name]: counts for name, counts in found.items() if name in _FAILURES}
    messages = summary["messages_per_client"]
    for kind, lost in found["lost_messages"].items():
        rows[f"{_MESSAGES.get(kind, kind)}, lost"] = [lost, round(messages[kind] * summary["clients"])]
    for name, (count, of) in rows.items():
        if count:
            table.add_row(clean(name), f"{count:,}", f"{of:,}", f"{100 * count / of:.1f} %" if of else "–")
    nothing = [] if table.row_count else [Text("Nothing failed.")]
    yield section("Clients and links that failed", *([table] if table.row_count else nothing))
    yield ""


def _measured(summary: Mapping[str, Any]) -> RenderableType:
    table = figures("busiest rank", "mean of ranks")
    for phase, most in summary["seconds"].items():
        table.add_row(clean(phase.replace("_", " ")), _figure(most, 1), _figure(summary["seconds_mean"][phase], 1))
    resident = summary["resident_bytes"]
    memory = "–" if resident is None else size(resident)
    shares = [f"{100 * share:.0f} %" for share in summary["idle_share"] if share is not None]
    waiting = f"{', '.join(shares[:8])}{', …' if len(shares) > 8 else ''}" if shares else "–"
    line = f"Memory of all ranks {memory}; sent by MPI {size(summary['mpi_bytes'])}; waiting, by rank: {waiting}."
    return section("What this computation took, in seconds per phase", table, clean(line))


def _remarks(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    for title, style, lines in (("Warning", "bold yellow", summary["warnings"]), ("Note", "bold", summary["notes"])):
        for line in lines:
            yield Padding(Text.assemble((f"{title}: ", style), clean(line)), (1, 0, 0, 0))


# ------------------------------------------------------------------------------------------------------ pieces


def section(title: str, *parts: RenderableType) -> RenderableType:
    """A title over its parts."""
    return Group(Text(title, style="bold"), *parts)


def figures(*columns: str) -> Table:
    """A table of figures: names at the left, ``columns`` at the right."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", header_style="dim")
    return table


def clean(text: object) -> Text:
    """Text from a file without markup and terminal control sequences."""
    return Text("".join(letter if letter.isprintable() else "?" for letter in str(text)))


def size(count: float) -> str:
    """Bytes in binary units: ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1024
    return f"{count:,.1f} TiB"


def operations(count: float) -> str:
    """FLOPs in powers of ten: ``1.5 GFLOP``."""
    for unit in ("FLOP", "kFLOP", "MFLOP", "GFLOP"):
        if count < 1000:
            return f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TFLOP"


def _figure(value: float | None, digits: int, signed: bool = False) -> str:
    return "–" if value is None else f"{value:{'+' if signed else ''}.{digits}f}"


def _strategy(config: Mapping[str, Any], method: Any) -> Any:
    """What `federation.alignment` says, or the method; None for a method of another version."""
    strategy = _value(config, "federation", "alignment")
    if strategy not in ("method", "?"):
        return strategy
    return METHODS[method].alignment if method in METHODS else None


def _often(config: Mapping[str, Any], method: Any) -> str:
    """How often that happens, if it does."""
    times = _value(config, "federation", "sync_freq")
    if method in METHODS and METHODS[method].one_at_a_time:
        return ", an epoch is one client's turn"
    return "" if _strategy(config, method) == "none" else f", {times} times per epoch"


def _rich(config: Mapping[str, Any]) -> str:
    """Who has more, in words."""
    share, factor, data = (
        setting(config, name) for name in ("client.rich_share", "client.rich_batch_factor", "partition.rich_data")
    )
    if not isinstance(share, float):
        return ""
    words = [
        f"batches {factor} times as large" if isinstance(factor, int) else "",
        f"{_percent(data)} of the images" if isinstance(data, float) else "",
        "more layers" if setting(config, "model.rich_cut_layer") else "",
    ]
    return f"; {_percent(share)} of them are rich: {' and '.join(word for word in words if word)}"


def _averaged(config: Mapping[str, Any], method: Any) -> str:
    """What synchronisations make common, in words; nothing for a method of another version."""
    strategy = _strategy(config, method)
    every, compression = (_value(config, "federation", f"momentum_{name}") for name in ("every", "compression"))
    layers = config["federation"].get("aligned_layers") if isinstance(config.get("federation"), Mapping) else None
    turns = method in METHODS and METHODS[method].one_at_a_time and strategy == "online"
    words = [
        "the client's part is handed to the next" if turns else _AVERAGED.get(str(strategy), ""),
        "" if every in (1, "?") else f"momentum one time in {every}",
        "" if compression in ("none", "?") else f"momentum sent by {compression}",
        f"layers {', '.join(map(str, layers))} only" if isinstance(layers, list) and layers else "",
    ]
    return ", ".join(word for word in words if word)


def _at_the_cut(config: Mapping[str, Any]) -> str:
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


def _value(config: Mapping[str, Any], *names: str) -> Any:
    value: Any = config
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return "?" if value is None or (isinstance(value, Mapping | Sequence) and not isinstance(value, str)) else value


def _wall(summary: Mapping[str, Any]) -> str:
    seconds = summary["wall_seconds"]
    return "" if seconds is None else f", {seconds:.0f} s"
