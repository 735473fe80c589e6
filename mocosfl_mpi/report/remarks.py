"""What a reader of a page should know of a run: what `inspect` warns of and notes, failures, imbalance."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mocosfl_mpi.methods import METHODS
from mocosfl_mpi.record.reader import Run
from mocosfl_mpi.record.show import FAILURES

LARGER = 10
"""A client with so many times the images of another makes a partition imbalanced."""
APART = 0.3
"""Hosts whose shares of waiting are so far apart are unevenly loaded."""
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@dataclass(frozen=True)
class Remark:
    """One sentence; a note is less than a warning."""

    text: str
    warning: bool


def remarks(run: Run, summary: Mapping[str, Any]) -> Iterator[Remark]:
    """Those of one run."""
    yield from (Remark(str(text), warning=True) for text in summary["warnings"])
    yield from (Remark(text, warning=True) for text in _failed(summary))
    yield from (Remark(text, warning=True) for text in _imbalance(run, summary))
    yield from (Remark(str(text), warning=False) for text in summary["notes"])


def _failed(summary: Mapping[str, Any]) -> Iterator[str]:
    found = summary["failures"]
    if found is None:
        return
    for name, words in FAILURES.items():
        count, of = found[name]
        if count:
            yield f"Simulated failures: {count} of {of} {words}."
    for kind, count in found["lost_messages"].items():
        yield f"Simulated failures: {count:.0f} messages lost, {kind.replace('_', ' ')}."


def _imbalance(run: Run, summary: Mapping[str, Any]) -> Iterator[str]:
    images = run["partition/counts"].sum(axis=1)
    method = METHODS.get(str(summary["method"]))
    vertical = method is not None and method.vertical
    if len(images) > 1 and not vertical and images.max() >= LARGER * max(1, images.min()):
        yield f"Clients are imbalanced: the smallest has {images.min()} images, the largest {images.max()}."
    hosts = [(rank, share) for rank, share in enumerate(summary["idle_share"]) if rank and share is not None]
    if len(hosts) > 1:
        (least, low), (most, high) = (pick(hosts, key=lambda one: one[1]) for pick in (min, max))
        if high - low > APART:
            yield (
                f"Ranks are imbalanced: rank {most} waited {100 * high:.0f} % of its time, rank {least} "
                f"{100 * low:.0f} %; other numbers of ranks may be quicker (`mocosfl plan … --solve ranks`)."
            )


def gather(found: Sequence[tuple[str, Remark]], *, warning: bool, named: bool) -> list[tuple[str, list[str]]]:
    """Remarks of many runs, ``(run, remark)``, that differ in numbers alone put into one, with those of each run.

    ``named``: what is said of one run alone names it.
    """
    alike: dict[str, list[tuple[str, str]]] = {}
    for name, remark in found:
        if remark.warning == warning:
            alike.setdefault(_NUMBER.sub("#", remark.text), []).append((name, remark.text))
    gathered = []
    for each in alike.values():
        lines = [f"{name}: {one}" if named else one for name, one in each]
        gathered.append((_together([one for _, one in each]), lines) if len(each) > 1 else (lines[0], []))
    return gathered


def _together(texts: Sequence[str]) -> str:
    """Texts that differ in numbers alone as one, with a range where they differ."""
    words = _NUMBER.split(texts[0])
    ranges = []
    for numbers in zip(*map(_NUMBER.findall, texts), strict=True):
        ordered = sorted(set(numbers), key=float)
        ranges.append(ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}")
    return "".join(word + number for word, number in zip(words, [*ranges, ""], strict=True))
