"""What runs came to, in one table: mean ± standard deviation over seeds, with published numbers beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mocosfl_mpi.figures.published import published
from mocosfl_mpi.figures.study import Study
from mocosfl_mpi.record.figures import operations, size, spread
from mocosfl_mpi.report.parts import Sheet
from mocosfl_mpi.report.pictures import Album
from mocosfl_mpi.report.reading import Seen

METRICS = {
    "linear_top1": ("linear probe, %", 2),
    "knn_top1": ("kNN, %", 2),
    "knn_projector_top1": ("kNN on projections, %", 2),
    "classifier_top1": ("own classifier, %", 2),
}
"""By name in a summary and in a grid's description: title and digits."""
_ELSEWHERE = ("divergence",)
"""Metrics of published numbers that only a figure shows."""


def members(study: Study, runs: Sequence[Seen]) -> dict[str, list[Seen]]:
    """The runs of each group, in the order of the figures."""
    by_path = {seen.path.resolve(): seen for seen in runs}
    return {group.label: [by_path[member.path.resolve()] for member in group.members] for group in study.groups}


def known(values: Sequence[float | None]) -> list[float]:
    """Without those that are not there yet."""
    return [value for value in values if value is not None]


def final_table(album: Album, runs: Sequence[Seen]) -> Sheet:
    """A row for each configuration."""
    beside, source = numbers(album)
    printed = {metric for _, metric in beside}
    shown = [name for name in METRICS if name in printed or any(seen.summary[name] is not None for seen in runs)]
    header = ["configuration"]
    for name in shown:
        header += [METRICS[name][0], *(["published"] if name in printed else [])]
    rows = []
    for label, own in members(album.study(), runs).items():
        row = [label]
        for name in shown:
            row.append(spread(known([seen.summary[name] for seen in own]), METRICS[name][1]))
            if name in printed:
                number = beside.get((label, name))
                row.append("–" if number is None else f"{number:g}")
        rows.append([*row, f"{sum(seen.summary['completed'] for seen in own)}/{len(own)}"])
    how = "Mean ± standard deviation (n − 1) over the seeds that are complete, at the last step; no epoch is selected."
    said = [how, source] if source else [how]
    return Sheet("Test accuracy at the end", [*header, "complete"], rows, remarks=said)


def published_table(album: Album) -> Iterator[Sheet]:
    """Published numbers of one run's cell, if the grid has any."""
    beside, source = numbers(album)
    rows = [[METRICS[metric][0], f"{value:g}"] for (_, metric), value in beside.items() if metric in METRICS]
    if rows:
        yield Sheet("Published", ["", "published"], rows, remarks=[source])


def numbers(album: Album) -> tuple[Mapping[tuple[str, str], float], str]:
    """Published numbers by group and metric, and where they stand. BadInput where none belongs to these runs."""
    if album.published is None:
        return {}, ""
    said: list[str] = []
    study = album.study()
    frame = published(
        album.published, Study(study.keys, study.groups, study.legend, said.append), [*METRICS, *_ELSEWHERE]
    )
    found = {(row["group"], row["metric"]): float(row["published"]) for row in frame.to_dict("records")}
    source = " ".join(said).removeprefix("published: ").rstrip(".")
    return found, f"Published: {source}. Runs here may differ in what the grid holds fixed: for orientation."


def cost_table(album: Album, runs: Sequence[Seen]) -> Sheet:
    """What a simulated client sends, receives, computes and holds, by configuration."""
    rows = []
    for label, own in members(album.study(), runs).items():
        spent = [seen.summary for seen in own]
        up, down = (
            _mean([_towards(summary["bytes_per_client"], way) for summary in spent]) for way in ("_up", "_down")
        )
        work = _mean([sum(summary["flops_per_client"].values()) for summary in spent])
        memory = _mean([float(summary["client_memory"].get("peak", 0)) for summary in spent])
        epochs = sorted({summary["epochs"] for summary in spent})
        until = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
        rows.append([label, size(up), size(down), size(up + down), operations(work), size(memory), until])
    header = ["configuration", "sent", "received", "both", "computed", "peak memory", "epochs"]
    how = (
        "Of the run so far, mean over all simulated clients, those never drawn included, and over seeds. 1 MiB = 2^20 "
        "bytes of payload (1 MB would be 10^6); 1 GFLOP = 10^9 operations, 2 for each multiply-accumulate."
    )
    return Sheet("A simulated client", header, rows, remarks=[how])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _towards(sent: Mapping[str, float], way: str) -> float:
    return sum(count for kind, count in sent.items() if kind.endswith(way))
