"""A run for a person: what it was, what came of it, what it cost; every figure with its unit and meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mocosfl_mpi.methods import METHODS
from mocosfl_mpi.networks import EXPANSION, STAGES
from mocosfl_mpi.record.figures import clean, figures, number, operations, section, size
from mocosfl_mpi.record.protected import words
from mocosfl_mpi.record.reader import Run
from mocosfl_mpi.record.schema import setting
from mocosfl_mpi.record.verdicts import further, own_models, quality, supervised
from mocosfl_mpi.record.wording import at_the_cut, how_often, stored, what_is_averaged, who_is_rich

_PAIRS = tuple(name for name in STAGES if name not in EXPANSION)
_MESSAGES = {
    "query_up": "query data up", "key_up": "key data up", "gradient_down": "gradients down",
    "weights_up": "online models up", "weights_down": "online models down",
    "momentum_up": "momentum models up", "momentum_down": "momentum models down",
    "velocity_up": "SGD velocities up", "velocity_down": "SGD velocities down",
    "labels_up": "labels up", "features_down": "features down", "gradient_up": "gradients up",
}  # fmt: skip
FAILURES = {
    "dropped_out": "clients drawn that dropped out of their epoch",
    "missed_synchronisations": "synchronisations missed by a client",
    "unheard_steps": "steps in which the server heard nobody",
}
"""By name in a summary, in words."""
_WORK = {
    "query_forward": "query forward", "key_forward": "key forward", "backward": "backward",
    "ema": "momentum update", "optimiser": "optimiser", "alignment": "mixing or compressing models",
    "codec": "compression at the cut", "defence": "defence at the cut",
}  # fmt: skip
_MEMORY = {
    "peak": "peak memory", "weights": "  weights", "momentum_weights": "  momentum weights", "velocity": "  velocity",
    "activations": "  saved activations",
}  # fmt: skip
EPOCHS_SHOWN = 12
"""Of a series by epoch, about so many rows."""


def show(run: Run, console: Console | None = None) -> None:
    """Print ``render(run)``."""
    (console or Console()).print(render(run))


def render(run: Run) -> RenderableType:
    """Everything ``mocosfl inspect`` prints for a person; works for unfinished runs too."""
    summary = run.summary()
    return Group(
        _header(run, summary), "", quality(summary), "", *own_models(summary), *further(run, summary),
        training(summary), "", *similarity(summary), spending(summary), "", *failures(summary), measured(summary),
        *_remarks(summary), "",
    )  # fmt: skip


def facts(run: Run, summary: Mapping[str, Any]) -> dict[str, str]:
    """What it was, on what, and how far it got: by name, a line each."""
    config, attrs = run.attrs["config"], run.attrs
    state = "completed" if summary["completed"] else "NOT completed"
    backbone, cut = stored(config, "model", "backbone"), stored(config, "model", "cut_layer")
    # The papers count convolutions, of networks with two in each block.
    papers = f" ({2 * cut - 1} as the papers count)" if isinstance(cut, int) and backbone in _PAIRS else ""
    images, clients = run["partition/counts"].sum(axis=1), summary["clients"]
    classes = len(run["class"])
    each = f"{images.min()}" if images.min() == images.max() else f"{images.min()} to {images.max()}"
    owned = f"partition {stored(config, 'partition', 'kind')!r}, {each} images per client"
    deeper = setting(config, "model.rich_cut_layer")
    place = f"first {cut} layer(s){papers} on the client{f', {deeper} on a rich one' if deeper else ''}"
    if (method := METHODS.get(summary["method"])) is not None:
        owned = f"every client has a piece of each of {each} images" if method.vertical else owned
        place = "whole on the client" if method.whole_network else place
    averaged, sampling = what_is_averaged(config, summary["method"]), stored(config, "client", "sampling")
    drawn = "" if sampling in ("uniform", "?") else f" ({sampling})"
    rows = {
        "Run": f"{summary['preset']}, {state}",
        "Method": f"{summary['method']}{': ' if averaged else ''}{averaged}"
        f"{how_often(config, summary['method'])}; seed {summary['seed']}",
        "Data": f"{stored(config, 'data', 'source')}, {classes} classes, {owned}",
        "Clients": f"{clients} simulated, {summary['pool']} take part in an epoch{drawn}, "
        f"{stored(config, 'client', 'batch_size')} images each per step{who_is_rich(config)}",
        "Network": f"{backbone}, width {stored(config, 'model', 'width')}, {place}{at_the_cut(config)}",
        "Progress": f"{summary['epochs']} of {summary['epochs_planned']} epochs, {summary['steps']} steps, "
        f"{summary['syncs']} synchronisations{_wall(summary)}",
        "Computed": f"{summary['ranks']} MPI rank(s) ({summary['launcher']}) on {', '.join(summary['hosts'])}, "
        f"{attrs['server_threads']} server thread(s), {attrs['host_threads']} per host rank; {summary['date']}",
        "Experiment": f"configuration {str(summary['config_hash'])[:12]}, "
        f"final state {str(summary['state_sha256'] or 'none yet')[:12]}",
        "File": summary["path"],
    }
    if summary["protection"]:
        rows["Defences"] = words(summary["protection"])
    sessions = summary["sessions"] or []
    if len(sessions) > 1:
        rows["Computed"] += f"; the last of {len(sessions)} sessions, on {', '.join(map(str, sessions))} ranks"
    return rows


def _header(run: Run, summary: Mapping[str, Any]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in facts(run, summary).items():
        table.add_row(name, clean(text))
    return table


def training(summary: Mapping[str, Any]) -> RenderableType:
    """Loss, health and distances of the last epoch."""
    table = figures("value", "meaning")
    loss = f"{number(summary['loss_first_epoch'], 3)} → {number(summary['loss'], 3)}"
    share, method = summary["accuracy"], METHODS.get(summary["method"])
    accuracy = number(None if share is None else 100 * share, 1) + " %"
    first = [
        ("loss", loss, "contrastive, mean of the first → last epoch"),
        ("contrastive accuracy", accuracy, "queries whose own key scores above all keys in the memory"),
    ]
    if supervised(summary):
        first = [
            ("loss", loss, "cross-entropy, mean of the first → last epoch"),
            ("training accuracy", accuracy, "images of the steps whose own class scores highest"),
        ]
    models = [
        ("online–momentum distance", number(summary["online_momentum_distance"], 4),
         "client's two models, relative, after the last averaging; small is good"),
        ("momentum spread", number(summary["momentum_spread"], 4),
         "momentum models around their mean, relative; 0 where they are averaged"),
    ]  # fmt: skip
    for name, value, meaning in (
        *first,
        ("feature spread", number(summary["feature_std"], 2), "1 = in all directions, near 0 = collapsed"),
        ("effective rank", number(summary["effective_rank"], 1), "dimensions that the features really use"),
        *(models if method is None or method.momentum else []),
        ("client divergence", number(summary["divergence_online_mean"], 3),
         "online models from their mean before the last averaging (L2, summed over layers)"),
        *_mixing(summary),
    ):  # fmt: skip
        table.add_row(name, clean(value), clean(meaning))
    table.columns[2].justify = "left"
    return section("Training and health, last epoch", table)


def similarity(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What clients' own decoders reached: every epoch, or of many some at equal distances and the last."""
    found = summary["resistance_ssim"]
    if not found:
        return
    every = -(-len(found) // EPOCHS_SHOWN)
    table = figures("SSIM")
    for epoch in sorted({*range(0, len(found), every), len(found) - 1}):
        table.add_row(f"epoch {epoch + 1}", number(found[epoch], 3))
    line = "1 = the image itself. A training signal of one decoder, no audit: `mocosfl audit` asks fresh attackers."
    yield section("Similarity of images to what clients' own decoders draw, by epoch", table, Text(line))
    yield ""


def _mixing(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    share = summary["own_share"]
    meaning = "of its own model (fedu: predictor) that a client kept at the last synchronisation, mean"
    return [] if share is None else [("own share", number(share, 2), meaning)]


def spending(summary: Mapping[str, Any]) -> RenderableType:
    """What a simulated client sends, computes and holds."""
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


def failures(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What failed, where anything could."""
    found = summary["failures"]
    if found is None:
        return
    table = figures("failed", "of", "share")
    rows = {FAILURES[name]: counts for name, counts in found.items() if name in FAILURES}
    messages = summary["messages_per_client"]
    for kind, lost in found["lost_messages"].items():
        rows[f"{_MESSAGES.get(kind, kind)}, lost"] = [lost, round(messages[kind] * summary["clients"])]
    for name, (count, of) in rows.items():
        if count:
            table.add_row(clean(name), f"{count:,}", f"{of:,}", f"{100 * count / of:.1f} %" if of else "–")
    nothing = [] if table.row_count else [Text("Nothing failed.")]
    yield section("Clients and links that failed", *([table] if table.row_count else nothing))
    yield ""


def measured(summary: Mapping[str, Any]) -> RenderableType:
    """Seconds, memory and waiting of this computation."""
    table = figures("busiest rank", "mean of ranks")
    for phase, most in summary["seconds"].items():
        table.add_row(clean(phase.replace("_", " ")), number(most, 1), number(summary["seconds_mean"][phase], 1))
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


def _wall(summary: Mapping[str, Any]) -> str:
    seconds = summary["wall_seconds"]
    return "" if seconds is None else f", {seconds:.0f} s"
