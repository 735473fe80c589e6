"""The page of several runs: one table and common figures, single runs on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mocosfl_mpi.record.figures import number
from mocosfl_mpi.record.standing import MEANINGS
from mocosfl_mpi.report import pictures, privacy
from mocosfl_mpi.report.common import again, album_remarks, duration, settings, text, warnings
from mocosfl_mpi.report.parts import Bullets, Code, Facts, Fold, Part, Section, Sheet, Words
from mocosfl_mpi.report.pictures import Album, groups_of
from mocosfl_mpi.report.reading import Reading, Seen
from mocosfl_mpi.report.results import cost_table, final_table, members
from mocosfl_mpi.report.single import provenance

_SHOWN = 8
"""Of different values (machines, versions), how many are named."""


def lead(reading: Reading, album: Album) -> str:
    """How many there are, and how they stand, in a sentence."""
    counts = Counter(seen.standing for seen in reading.runs)
    states = ", ".join(f"{counts[state]} {state}" for state in MEANINGS if counts[state])
    groups = len(album.study().groups)
    epochs = sum(seen.summary["epochs"] for seen in reading.runs)
    planned = sum(int(seen.summary["epochs_planned"] or 0) for seen in reading.runs)
    lost = f"; {len(reading.unreadable)} more cannot be read" if reading.unreadable else ""
    kinds = f"{groups} configuration{'s' if groups > 1 else ''}"
    return f"{len(reading.runs)} runs of {kinds}: {states}{lost}. {epochs} of {planned} epochs are done."


def sections(reading: Reading, album: Album) -> Iterator[Section]:
    """From top to bottom."""
    runs = reading.runs
    yield Section("warnings", "Warnings", list(warnings(reading)))
    yield Section("run", "What was run", list(_what(runs, album)))
    results: list[Part] = [final_table(album, runs), *album.galleries(pictures.COMPARED)]
    yield Section("results", "Results", results)
    yield Section("figures", "Figures", list(album.galleries(pictures.PROGRESS)))
    cost: list[Part] = [cost_table(album, runs), *album.galleries(pictures.COST)]
    yield Section("cost", "Cost ledger of a simulated client", cost)
    attacked = [seen for seen in runs if privacy.attacked(seen.path.parent)]
    if attacked:
        folds = [Fold(seen.name, list(privacy.audit(seen.path.parent, brief=True))) for seen in attacked]
        yield Section("privacy", "Privacy audit", [*album.galleries(pictures.PRIVACY), *folds])
    computation = [_machines(runs), *album.galleries(pictures.COMPUTATION)]
    yield Section("computation", "These computations", [*computation, *album_remarks(album)])
    yield Section("runs", "Runs", list(_runs(runs, album)))
    yield Section("reproduce", "Do it again", list(_again(runs, album)))


def _what(runs: Sequence[Seen], album: Album) -> Iterator[Part]:
    study = album.study()
    groups = members(study, runs)
    if study.keys:
        rows = [
            [group.label, *(text(group.values[key]) for key in study.keys), ", ".join(_seeds(groups[group.label]))]
            for group in study.groups
        ]
        yield Sheet("In what the configurations differ", ["configuration", *study.keys, "seeds"], rows, figures=False)
    first = runs[0]
    differing = {name for seen in runs for name in seen.settings if _differs(name, runs)}
    yield Facts([(name, first.facts[name]) for name in ("Data", "Network") if _alike(name, runs)])
    common = settings(first, "What they have in common, and differs from the defaults", [*differing, "seed"])
    yield Fold(f"{common.title} ({len(common.rows)})", [replace(common, title="")])


def _seeds(runs: Sequence[Seen]) -> list[str]:
    return [str(seen.summary["seed"]) for seen in runs]


def _differs(name: str, runs: Sequence[Seen]) -> bool:
    return len({repr(seen.settings.get(name)) for seen in runs}) > 1


def _alike(fact: str, runs: Sequence[Seen]) -> bool:
    return len({seen.facts[fact] for seen in runs}) == 1


def _machines(runs: Sequence[Seen]) -> Part:
    hosts = Counter(host for seen in runs for host in seen.summary["hosts"])
    ranks = Counter(f"{seen.summary['ranks']} ({seen.summary['launcher']})" for seen in runs)
    versions = Counter(", ".join(f"{name} {version}" for name, version in seen.versions.items()) for seen in runs)
    seconds = [seen.summary["wall_seconds"] for seen in runs if seen.summary["wall_seconds"] is not None]
    rows = [("Machines", _counted(hosts)), ("MPI ranks", _counted(ranks)), ("Versions", _counted(versions))]
    if seconds:
        spent = f"{duration(sum(seconds))} for {len(seconds)} complete runs, {duration(max(seconds))} the longest"
        rows.append(("Wall time", spent))
    return Facts(rows)


def _counted(found: Counter[str]) -> str:
    named = found.most_common(_SHOWN)
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    if len(found) == 1:
        return named[0][0]
    return "; ".join(f"{name}: {count} runs" for name, count in named) + more


def _runs(runs: Sequence[Seen], album: Album) -> Iterator[Part]:
    groups = groups_of(album.study())
    rows = [
        [
            seen.name, groups.get(seen.path.resolve(), "– (counted once)"), str(seen.summary["seed"]), seen.standing,
            f"{seen.summary['epochs']}/{seen.summary['epochs_planned']}", number(seen.summary["linear_top1"], 1),
            number(_newest(seen), 1), number(seen.summary["wall_seconds"], 0), str(seen.summary["config_hash"])[:12],
            str(seen.summary["state_sha256"] or "–")[:12],
        ]
        for seen in runs
    ]  # fmt: skip
    header = [
        "run", "configuration", "seed", "state", "epochs", "linear, %", "kNN, % (newest)", "seconds",
        "configuration hash", "state hash",
    ]  # fmt: skip
    tones = ["good" if seen.standing == "complete" else "bad" for seen in runs]
    links = [f"#{seen.anchor}" for seen in runs]
    table = Sheet("", header, rows, figures=False, tones=tones, links=links)
    states = {seen.standing for seen in runs}
    yield Bullets([(f"{state}:", words) for state, words in MEANINGS.items() if state in states])
    yield Fold(f"All {len(runs)} runs in a table", [table], anchor="table-of-runs")
    yield Words("Each run on its own:")
    for seen in runs:
        yield Fold(f"{seen.name}: {seen.standing}, seed {seen.summary['seed']}", list(_one(seen)), anchor=seen.anchor)


def _newest(seen: Seen) -> float | None:
    last = seen.summary["last_evaluation"] or {}
    found: float | None = seen.summary["knn_top1"]
    return last.get("knn_top1") if found is None else found


def _one(seen: Seen) -> Iterator[Part]:
    yield Facts(list(seen.facts.items()))
    if seen.remarks:
        yield Bullets([("Warning:" if remark.warning else "Note:", remark.text) for remark in seen.remarks])
    yield from (*seen.results, *seen.health, *seen.ledger, *seen.computation, provenance(seen))
    yield from again(seen)


def _again(runs: Sequence[Seen], album: Album) -> Iterator[Part]:
    yield Words(
        "Each run above has its command and its configuration. A grid is computed again, or what is missing of it, by "
        "the description that made it:"
    )
    grid = album.published or "GRID.toml"
    yield Code("The whole grid", f"mocosfl grid {grid} --run -n {runs[0].summary['ranks']}")
    yield Code("This page", f"mocosfl report {album.named}")
