"""The numbers of a run in one JSON-ready object, derived from the rows of its file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.record.cautions import cautions
from mocosfl_mpi.record.protected import protection
from mocosfl_mpi.record.schema import ENTRIES

if TYPE_CHECKING:
    from mocosfl_mpi.record.reader import Run

_RESULTS = (
    "knn_top1", "knn_top1_untrained", "knn_top1_pixels", "knn_projector_top1", "knn_projector_top1_untrained",
    "linear_top1", "linear_top1_untrained", "linear_top1_pixels", "probe_l2", "wall_seconds",
    "classifier_top1", "classifier_top1_untrained",
)  # fmt: skip
_SERIES = ("loss", "accuracy", "feature_std", "effective_rank")


def summarise(run: Run) -> dict[str, Any]:
    """Summarise a run; a number that is not known (yet) is None.

    Keys
    ----
    epochs, steps, syncs
        Whole ones in the file; ``epochs_planned`` is the configuration's.
    knn_*, linear_*, classifier_* (%), probe_l2, wall_seconds
        At the end of the run; ``last_evaluation`` holds the newest look during the run. A classifier is there where the
        method learns from labels.
    further
        What else the configuration asked for, by its name below ``result/`` (%): a number, numbers by share of the
        labels, or mean, standard deviation (n - 1), lowest and highest over the clients that have one, and their count.
    loss, accuracy, feature_std, effective_rank
        Of the last whole epoch; ``loss_first_epoch`` of the first.
    online_momentum_distance, momentum_spread
        Mean over the pool after the last synchronisation, relative.
    own_share
        Of its own model that a client kept there, mean over the pool; None where the method mixes none.
    divergence_online_mean, divergence_online_momentum, divergence_momentum_mean
        At the last synchronisation, before averaging: L2 norms summed over the layers, mean over the pool.
    bytes_per_client, messages_per_client, flops_per_client
        By kind: total of the run over *all* simulated clients, those never drawn included, divided by their number.
    saving
        Where `communication.loss_threshold` is on: epochs by state, ``saved_epochs`` by the published formula
        #C + #B/2, ``saved_epochs_published`` as the published code counts (the states to which epochs led), and
        ``saved_share`` of the bytes of smashed data and gradients that state A would have sent. Else None.
    resistance_ssim
        Similarity of images to what clients' own decoders draw, by epoch, mean over the pool; None where none has one.
    client_memory, rich_client_memory
        Bytes of one client by use; the latter None where no clients are rich.
    failures
        What went wrong, of how much: clients that dropped out of an epoch, synchronisations missed by a client, steps
        in which the server heard nobody, each ``[count, of]``; ``lost_messages`` by kind. None where nothing can fail.
    protection
        ``defences`` by setting, ``sends`` of the image that is sent most often, ``epsilon`` at ``delta`` of them, None
        where there is no guarantee. None where nothing is defended.
    seconds, seconds_mean
        By phase, measured: the sum over epochs of the rank that spent most, and the mean over ranks.
    idle_share, resident_bytes, mpi_bytes
        Measured: mean over epochs of each rank's share; largest sum over ranks; sum over ranks and epochs.
    sessions
        MPI ranks each time that the program was started for this run; None in files before schema 1.1.
    notes, warnings
        What the program remarked while it ran; what a reader should know before quoting a number.
    """
    summary = essentials(run)
    summary |= {
        "further": _further(run),
        "bytes_per_client": _by_kind(run, "simulated/bytes"),
        "messages_per_client": _by_kind(run, "simulated/messages"),
        "flops_per_client": _by_kind(run, "simulated/client_flops"),
        "saving": _saving(run),
        "client_memory": dict(zip(run["memory"].tolist(), run["cost/client_memory"].tolist(), strict=True)),
    }
    rich = run["cost/rich_client_memory"].tolist() if "cost/rich_client_memory" in run.names else None
    summary["rich_client_memory"] = rich and dict(zip(run["memory"].tolist(), rich, strict=True))
    summary["resistance_ssim"] = _similarity(run)
    summary["failures"] = _failures(run)
    summary["protection"] = protection(run)
    summary |= _measured(run) | {"notes": [str(note) for note in run.attrs["notes"]]}
    return summary | {"warnings": cautions(summary)}


def essentials(run: Run) -> dict[str, Any]:
    """Of ``summarise`` what is read in no time, however long the run is: where it stands, and how well."""
    attrs, clients = run.attrs, len(run["client"])
    return {
        "path": str(run.path),
        **{name: attrs[name] for name in ("schema_version", "software_version", "date", "host", "ranks", "launcher")},
        **{name: attrs[name] for name in ("method", "preset", "seed", "config_hash")},
        "completed": run.completed,
        "state_sha256": run.state_sha256,
        "epochs": run.rows["epoch"],
        "epochs_planned": attrs["config"].get("epochs"),
        "steps": run.rows["step"],
        "syncs": run.rows["sync"],
        "sessions": run["sessions/ranks"].tolist() if "sessions/ranks" in run.names else None,
        "clients": clients,
        "pool": len(run["member"]),
        **{name: run.result(name) if f"result/{name}" in run.names else None for name in _RESULTS},
        "last_evaluation": _last_evaluation(run),
        **{name: _number(run.last(f"epochs/{name}")) for name in _SERIES},
        "loss_first_epoch": _number(run["epochs/loss"][:1]),
        **_models(run),
    }


def _further(run: Run) -> dict[str, Any]:
    known = run.names
    names = [n for n, entry in ENTRIES.items() if entry.setting and entry.when == "result" and n in known]
    return {name.removeprefix("result/"): _measure(run, name) for name in names}


def _measure(run: Run, name: str) -> Any:
    values = run[name]
    if ENTRIES[name].dims == ("label_share",):
        return {f"{share:g}": _number(value) for share, value in zip(run["label_share"], values, strict=True)}
    if ENTRIES[name].dims == ("client",):
        known = values[np.isfinite(values)]
        spread = {"mean": known.mean(), "lowest": known.min(), "highest": known.max()} if len(known) else {}
        if len(known) > 1:
            spread["std"] = known.std(ddof=1)
        return {key: _number(spread.get(key)) for key in ("mean", "std", "lowest", "highest")} | {"clients": len(known)}
    return _number(values)


def _saving(run: Run) -> dict[str, Any] | None:
    if "epochs/state" not in run.names:
        return None
    states, led = ([int((run[f"epochs/{name}"] == n).sum()) for n in range(3)] for name in ("state", "next_state"))
    kinds = [place for place, kind in enumerate(run["message"]) if kind in ("query_up", "key_up", "gradient_down")]
    sent = run["simulated/bytes"][:, :, kinds].sum(axis=(1, 2), dtype=np.int64)
    full = sent[run["epochs/state"] == 0]
    return {
        **dict(zip("ABC", states, strict=True)),
        "saved_epochs": states[2] + states[1] / 2,
        "saved_epochs_published": led[2] + led[1] / 2,
        "saved_share": 1.0 - float(sent.sum()) / (float(full.mean()) * len(sent)) if full.any() else None,
    }


def _models(run: Run) -> dict[str, float | None]:
    def last(name: str) -> npt.NDArray[np.float64] | None:
        """Of the clients that took part: the others are NaN."""
        row = run.last(name)
        if row is None or "epochs/present" not in run.names:
            return row
        return np.asarray(row[np.isfinite(row.reshape(len(row), -1)).any(axis=1)])

    values = {name: _number(last(f"after_sync/{name}")) for name in ("online_momentum_distance", "momentum_spread")}
    values["own_share"] = _number(run.last("after_sync/own_share")) if "after_sync/own_share" in run.names else None
    for name in ("online_mean", "online_momentum", "momentum_mean"):
        norms = last(f"divergence/{name}")
        values[f"divergence_{name}"] = None if norms is None else _number(over_layers(norms))
    return values


def over_layers(norms: npt.NDArray[np.float32 | np.float64]) -> npt.NDArray[np.float64]:
    """Norms ``[…, layers]`` summed over the layers that a client has: the others are NaN. NaN where it has none."""
    known = np.isfinite(norms)
    total: npt.NDArray[np.float64] = np.where(known, norms, 0).sum(axis=-1, dtype=np.float64)
    total[~known.any(axis=-1)] = np.nan
    return total


def _similarity(run: Run) -> list[float | None] | None:
    if "resistance/ssim" not in run.names:
        return None
    return [_number(row[np.isfinite(row)]) for row in run["resistance/ssim"]]


def _failures(run: Run) -> dict[str, Any] | None:
    if "simulated/lost" not in run.names:
        return None
    present, epochs = run["epochs/present"], run["syncs/epoch"]
    known = epochs < len(present)  # of an epoch that is not over, nothing says who takes part in it
    expected, found = present[epochs[known]].sum(), run["syncs/present"][known].sum()
    lost = run["simulated/lost"].sum(axis=(0, 1), dtype=np.int64).tolist()
    heard = run["steps/heard"]
    return {
        "dropped_out": [int((present == 0).sum()), present.size],
        "missed_synchronisations": [int(expected - found), int(expected)],
        "unheard_steps": [int((heard == 0).sum()), len(heard)],
        "lost_messages": {kind: count for kind, count in zip(run["message"].tolist(), lost, strict=True) if count},
    }


def _measured(run: Run) -> dict[str, Any]:
    # NaN: a rank that only another session of the run had
    seconds = np.nansum(run["measured/seconds"], axis=0)
    phases = [str(phase) for phase in run["phase"]]
    idle, resident = run["measured/idle_share"], run["measured/resident_bytes"]
    return {
        "seconds": {phase: _number(seconds[:, index].max()) for index, phase in enumerate(phases)},
        "seconds_mean": {phase: _number(seconds[:, index].mean()) for index, phase in enumerate(phases)},
        "idle_share": [_number(share[np.isfinite(share)]) for share in idle.T],
        "resident_bytes": int(resident.sum(axis=1).max()) if len(resident) else None,
        "mpi_bytes": int(run["measured/mpi_bytes"].sum()),
        "rank_clients": run["ranks/clients"].tolist(),
        "hosts": sorted({str(host) for host in run["ranks/host"]} - {""}),
    }


def _last_evaluation(run: Run) -> dict[str, float | None] | None:
    if not run.rows["evaluation"]:
        return None
    names = (
        "epoch", "step", "wall_seconds", "knn_top1", "knn_projector_top1", "feature_std", "effective_rank",
        "classifier_top1",
    )  # fmt: skip
    there = [name for name in names if f"evaluations/{name}" in run.names]
    values = {name: run.last(f"evaluations/{name}") for name in there}
    return {
        name: int(value) if value is not None and name in ("epoch", "step") else _number(value)
        for name, value in values.items()
    }


def _by_kind(run: Run, name: str) -> dict[str, float]:
    """Totals of a dataset ``[epoch, member, kind]``, divided by the number of simulated clients."""
    totals = run[name].sum(axis=(0, 1), dtype=np.int64).tolist()
    kinds, clients = run[ENTRIES[name].dims[-1]].tolist(), len(run["client"])
    return {kind: total / clients for kind, total in zip(kinds, totals, strict=True)}


def _number(value: npt.ArrayLike | None) -> float | None:
    """The mean as a Python number; None for nothing, NaN and infinity, which JSON cannot hold."""
    array = np.asarray([] if value is None else value, dtype=np.float64)
    if not array.size:
        return None
    mean = float(array.mean())
    return mean if np.isfinite(mean) else None
