"""What is left of the images by depth of the cut, and what accuracy and traffic cost in leakage."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from mocosfl_mpi.algorithms import ALGORITHMS
from mocosfl_mpi.attacks.findings import clipped_at_floor, gather, strongest
from mocosfl_mpi.audit.material import Material
from mocosfl_mpi.errors import BadInput, RunFailed
from mocosfl_mpi.record.attacks import Outcome
from mocosfl_mpi.record.schema import FILE_NAME

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE, FRONT = "privacy-depth", "pareto"
MARKERS = "os^Dv<>Pp*hHdX"
_NO_MATPLOTLIB = "pictures need matplotlib: pip install 'mocosfl-mpi[analysis]'"


@dataclass(frozen=True)
class Point:
    """One run, trained or not: a row of the curve's table."""

    run: str
    method: str
    cut: int
    seed: int
    trained: bool
    attack: str
    """With which most was learnt by SSIM."""
    seeds: int
    """Of the attack."""
    ssim: float
    """Of that attack, mean over its seeds, but never less than the floor."""
    ssim_floor: float
    mse: float
    """Of the attack with the smallest, mean over its seeds, but never more than the floor."""
    mse_floor: float
    knn_top1: float | None
    """% of these very weights."""
    linear_top1: float | None
    mebibytes: float
    """MiB (2^20 bytes) that a client has sent and received, on average; 0 for untrained networks."""


def points(material: Material, outcomes: Sequence[Outcome]) -> Iterator[Point]:
    """The points of one run: its checkpoint, and its control. BadInput where no reconstruction could be mounted."""
    findings = [finding for finding in gather(outcomes) if finding.first.kind == "reconstruction"]
    for trained in (True, False):
        own = [finding for finding in findings if finding.first.trained == trained]
        best, closest = strongest(own, "ssim"), strongest(own, "mse")
        if best is None or closest is None:
            reason = own[0].reason if own else "no attack of the kind was asked for"
            raise BadInput(f"{material.name}: images cannot be rebuilt from this run: {reason}; leave it out")
        utility = material.utility if trained else {name: material.beside.get(f"{name}_untrained") for name in _UTILITY}
        yield Point(
            material.name,
            material.config.method,
            material.config.model.cut_layer,
            material.config.seed,
            trained,
            best.first.attack,
            len(best.outcomes),
            clipped_at_floor(best, "ssim"),
            best.blind("ssim") or 0.0,
            clipped_at_floor(closest, "mse"),
            closest.blind("mse") or 0.0,
            utility.get("knn_top1"),
            utility.get("linear_top1"),
            material.mebibytes if trained else 0.0,
        )


_UTILITY = ("knn_top1", "linear_top1")


def front(found: Sequence[Point]) -> list[Point]:
    """Trained runs of which no other is at least as good in accuracy (kNN), traffic and leakage, and better in one."""
    known = [point for point in found if point.trained and point.knn_top1 is not None]

    def figures(point: Point) -> tuple[float, float, float]:
        return -(point.knn_top1 or 0.0), point.mebibytes, point.ssim

    def beaten(point: Point) -> bool:
        own = figures(point)
        return any(
            all(a <= b for a, b in zip(figures(other), own, strict=True)) and figures(other) != own for other in known
        )

    return [point for point in known if not beaten(point)]


def runs_of(paths: Sequence[Path]) -> list[Path]:
    """Directories of runs: those that are named, and those inside of a named directory, as a grid leaves them.

    Raises
    ------
    BadInput
        There is no run in one of them.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(file.parent for file in path.glob(f"*/{FILE_NAME}")) if path.is_dir() else []
        own = [path] if (path / FILE_NAME).is_file() else inside
        if not own:
            raise BadInput(f"no run at {path}: expected directories of runs, or the directory of a grid's results")
        found += [run for run in own if run not in found]
    return found


def check_pictures() -> None:
    """Refuse to begin what could not be drawn at the end (BadInput)."""
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError:
        raise BadInput(_NO_MATPLOTLIB) from None


def write(directory: Path, found: Sequence[Point]) -> list[Path]:
    """Tables and pictures of curve and front; their paths. RunFailed where the disk refuses."""
    kept = front(found)
    texts = {f"{CURVE}.csv": table(found), f"{FRONT}.csv": table(kept)}
    written = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (directory / name).write_text(text, encoding="utf-8")
            written.append(directory / name)
        for name, figure in ((CURVE, _curve(found)), (FRONT, _pareto(found, kept))):
            for kind in ("png", "svg"):
                path = directory / f"{name}.{kind}"
                figure.savefig(path, dpi=150, bbox_inches="tight")
                written.append(path)
    except OSError as error:
        raise RunFailed(f"cannot write to {directory}: {error}; what attacks found is safe with each run") from None
    return written


def table(found: Sequence[Point]) -> str:
    """Points as CSV, with a header; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Point)]
    writer.writerow(names)
    for point in sorted(found, key=lambda one: (one.method, one.cut, one.seed, not one.trained)):
        values = [getattr(point, name) for name in names]
        writer.writerow(
            ["" if value is None else round(value, 6) if isinstance(value, float) else value for value in values]
        )
    return text.getvalue()


def _curve(found: Sequence[Point]) -> Figure:
    """SSIM and MSE of the best attack by cut; trained full, untrained dashed, the floor dotted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4))
    for place, (name, title) in enumerate(
        (("ssim", "SSIM (higher = more is left)"), ("mse", "MSE (lower = more is left)"))
    ):
        axes = figure.add_subplot(1, 2, place + 1)
        untrained = _untrained(found)
        for number, method in enumerate(sorted({point.method for point in found})):
            curves = [(True, f"{ALGORITHMS[method].title}, trained")]
            if method in untrained:
                curves.append((False, untrained[method]))
            for trained, label in curves:
                own = [point for point in found if point.method == method and point.trained == trained]
                cuts, means, spreads = _by_cut(own, name)
                axes.errorbar(
                    cuts, means, yerr=spreads, label=label, color=f"C{number}", capsize=2,
                    linestyle="-" if trained else "--", marker=MARKERS[number % len(MARKERS)],
                    alpha=1.0 if trained else 0.6,
                )  # fmt: skip
        cuts, floors, _ = _by_cut(found, f"{name}_floor")
        axes.plot(cuts, floors, ":", color="black", label="floor: sees nothing")
        axes.set_xlabel("cut: layers on the client")
        axes.set_ylabel(title)
        axes.set_xticks(cuts)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.suptitle("Best of the attacks on the images of a client, by depth of the cut")
    figure.tight_layout()
    return figure


def _untrained(found: Sequence[Point]) -> dict[str, str]:
    """Of which methods the untrained network is drawn, and under which name: what several have alike is drawn once."""
    kept: dict[tuple[object, ...], list[str]] = {}
    for method in sorted({point.method for point in found}):
        own = [point for point in found if point.method == method and not point.trained]
        key = tuple(sorted((point.cut, point.seed, round(point.ssim, 6)) for point in own))
        kept.setdefault(key, []).append(method)
    titles = {key: ", ".join(ALGORITHMS[name].title for name in names) for key, names in kept.items()}
    return {names[0]: f"{titles[key]}: untrained" for key, names in kept.items() if key}


def _by_cut(found: Sequence[Point], name: str) -> tuple[list[int], list[float], list[float]]:
    """Cuts, and means and standard deviations over runs."""
    cuts = sorted({point.cut for point in found})
    values = [[float(getattr(point, name)) for point in found if point.cut == cut] for cut in cuts]
    spreads = [statistics.stdev(some) if len(some) > 1 else 0.0 for some in values]
    return cuts, [statistics.fmean(some) for some in values], spreads


def _pareto(found: Sequence[Point], kept: Sequence[Point]) -> Figure:
    """Accuracy over traffic, leakage as colour; members of the front ringed, every point with its cut."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5))
    axes = figure.add_subplot()
    known = [point for point in found if point.trained and point.knn_top1 is not None]
    markers = dict(zip(sorted({point.method for point in known}), MARKERS, strict=False))
    drawn = None
    low, high = min((p.ssim for p in known), default=0.0), max((p.ssim for p in known), default=1.0)
    for method, marker in markers.items():
        own = [point for point in known if point.method == method]
        drawn = axes.scatter(
            [point.mebibytes for point in own], [point.knn_top1 or 0.0 for point in own], c=[p.ssim for p in own],
            marker=marker, label=method, cmap="viridis_r", vmin=low, vmax=high, s=70,
        )  # fmt: skip
    for point in known:
        axes.annotate(
            str(point.cut), (point.mebibytes, point.knn_top1 or 0.0), (5, 4), textcoords="offset points", fontsize=8
        )
    for point in kept:
        axes.scatter(point.mebibytes, point.knn_top1 or 0.0, s=190, facecolors="none", edgecolors="red", linewidths=1.2)
    axes.set_xlabel("MiB (2^20 bytes) that a client sends and receives")
    axes.set_ylabel("kNN test accuracy, %")
    axes.set_title("Accuracy, traffic, leakage; red rings: not beaten in all three; numbers: cut", fontsize=10)
    axes.grid(alpha=0.3)
    if drawn is not None:
        figure.colorbar(drawn, label="SSIM of the best attack (lower = less leaks)")
        axes.legend(fontsize=8)
    figure.tight_layout()
    return figure
