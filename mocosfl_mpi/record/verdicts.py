"""What the trained encoder is worth: test accuracies of a run, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from mocosfl_mpi.methods import METHODS
from mocosfl_mpi.record.figures import clean, figures, number, percent, section
from mocosfl_mpi.record.reader import Run
from mocosfl_mpi.record.schema import setting

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


def quality(summary: Mapping[str, Any]) -> RenderableType:
    """The verdict: test accuracy of the trained encoder beside the untrained one and raw pixels."""
    title, table = f"Test accuracy in %{_of_whom(summary)}", figures("trained", "untrained", "gain", "raw pixels")
    own = [("the network's own classifier", "classifier_top1")] if supervised(summary) else []
    for judge, name in (
        *own,
        ("kNN on encoder features", "knn_top1"),
        ("kNN on its logits" if own else "kNN on projections", "knn_projector_top1"),
        ("linear probe on encoder features", "linear_top1"),
    ):
        trained, untrained = summary.get(name), summary.get(f"{name}_untrained")
        gain = None if trained is None or untrained is None else trained - untrained
        cells = (trained, untrained, gain, summary.get(f"{name}_pixels"))
        table.add_row(judge, *(number(cell, 1, signed=place == 2) for place, cell in enumerate(cells)))
    newest = summary["last_evaluation"]
    if summary["knn_top1"] is None and newest is not None:
        best = f", classifier {number(newest['classifier_top1'], 1)} %" if own else ""
        line = f"Newest kNN during the run: {number(newest['knn_top1'], 1)} %{best}, after {newest['epoch']} epochs."
        return section(title, table, clean(line))
    return section(title, table)


def _of_whom(summary: Mapping[str, Any]) -> str:
    """Whose encoder is judged, where there is no common one."""
    method = METHODS.get(summary["method"])
    own = summary["further"].get("own_knn_top1", {"clients": 0})
    apart = method is not None and method.alignment == "none" and own["clients"]
    return f", mean over the models of {own['clients']} client(s)" if apart else ""


def own_models(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What clients' own models achieve."""
    table, found = figures("mean", "std", "lowest", "highest"), summary["further"]
    judged = found.get("own_knn_top1", {"clients": 0})["clients"]
    for name, text in _OWN.items():
        if name in found and found[name]["clients"]:
            cells = (found[name][key] for key in ("mean", "std", "lowest", "highest"))
            table.add_row(f"{text} on encoder features", *(number(cell, 1) for cell in cells))
    if table.row_count:
        yield section(f"Test accuracy in % of {judged} clients' own models", table)
        yield ""


def further(run: Run, summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Whatever else the configuration asked of the encoder."""
    found, config = summary["further"], run.attrs["config"]
    table, spreads = figures("trained", "untrained", "gain"), []
    for name, text in _FURTHER.items():
        if name not in found:
            continue
        trained, untrained = found[name], found[f"{name}_untrained"]
        if name in _BY_CLIENT:
            low, high, count = (trained[key] for key in ("lowest", "highest", "clients"))
            spreads.append(f"{text}: {number(low, 1)} to {number(high, 1)} over {count} clients.")
            table.add_row(f"{text}, mean", *_gained(trained["mean"], untrained["mean"]))
        elif isinstance(trained, Mapping):
            for share, value in trained.items():
                table.add_row(f"{text}, {percent(float(share))} of the labels", *_gained(value, untrained[share]))
        else:
            extra = {
                "fine_tuned_top1": f", {percent(setting(config, 'evaluation.fine_tune_share'))} of the labels",
                "transfer_knn_top1": f" on {setting(config, 'evaluation.transfer')}",
                "transfer_linear_top1": f" on {setting(config, 'evaluation.transfer')}",
            }
            table.add_row(clean(text + extra.get(name, "")), *_gained(trained, untrained))
    if table.row_count:
        yield section("Further test accuracy in %", table, *map(clean, spreads))
        yield ""


def supervised(summary: Mapping[str, Any]) -> bool:
    """Whether the run learnt from labels; not where its method is of another version."""
    method = METHODS.get(str(summary["method"]))
    return method is not None and method.supervised


def _gained(trained: float | None, untrained: float | None) -> tuple[str, str, str]:
    gain = None if trained is None or untrained is None else trained - untrained
    return number(trained, 1), number(untrained, 1), number(gain, 1, signed=True)
