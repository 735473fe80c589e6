"""Runs as one local page that loads itself again: no script, nothing from elsewhere, whole or not there at all."""

from __future__ import annotations

import contextlib
import html
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mocosfl_mpi.errors import BadInput, RunFailed
from mocosfl_mpi.record.figures import number
from mocosfl_mpi.speaker import clock
from mocosfl_mpi.watch.curves import svg
from mocosfl_mpi.watch.facts import counts, facts, idle, knn, latest, remarks, times
from mocosfl_mpi.watch.glance import STATES, Glance

MARK = '<meta name="generator" content="mocosfl watch">'
_SHEETS = 8
"""So many runs have a sheet of their own; more of them share a table."""
_STYLE = """
:root { color-scheme: light dark;
  --ink: #1b1f24; --paper: #ffffff; --soft: #57606a; --line: #d0d7de; --curve: #0a5ea8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #12161b; --soft: #a5b0bb; --line: #3a424b; --curve: #6cb6ff; }
}
body { margin: 0 auto; padding: 1rem; max-width: 76rem; font: 1rem/1.45 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); overflow-wrap: anywhere; }
h1 { font-size: 1.3rem; margin: 0; } h2 { font-size: 1.1rem; margin: 0; }
p { margin: .3rem 0; } .soft { color: var(--soft); font-size: .9rem; }
article { border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; margin: 1rem 0; }
progress { width: 100%; max-width: 30rem; height: .9rem; accent-color: var(--curve); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .8rem 1.5rem;
  margin: .8rem 0 0; }
dt { color: var(--soft); font-size: .9rem; } dd { margin: 0; } dd b { display: block; font-size: 1.15rem; }
svg { display: block; width: 13.75rem; max-width: 100%; height: 2.75rem; }
svg polyline { fill: none; stroke: var(--curve); stroke-width: 1.6; } svg circle { fill: var(--curve); }
td svg { width: 7rem; height: 1.5rem; display: inline-block; vertical-align: middle; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; margin: 1rem 0; }
th, td { padding: .25rem .7rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
.warning { border-left: .3rem solid #b7791f; padding-left: .6rem; }
"""


def check(file: Path) -> None:
    """Refuse a file that is not a page of ours, or that cannot be written (BadInput)."""
    try:
        if file.is_dir():
            raise BadInput(f"--html {file} is a directory; name a file in it")
        if file.exists() and MARK not in file.read_text(encoding="utf-8", errors="replace")[:1000]:
            raise BadInput(f"--html {file} exists and is no page of `mocosfl watch`; it stays: name another file")
        part = _part(file)
        part.touch()
        part.unlink()
    except OSError as error:
        raise BadInput(f"cannot write --html {file}: {error}; name another file") from None


def write(file: Path, text: str) -> None:
    """Put ``text`` in the file's place in one step. RunFailed where the disk refuses."""
    part = _part(file)
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise RunFailed(f"cannot write {file}: {error}; the runs go on undisturbed") from None


def _part(file: Path) -> Path:
    return file.with_name(f".{file.name}.part")


def page(glances: Sequence[Glance], interval: float | None) -> str:
    """The whole page; browsers load it again after ``interval`` seconds, or not at all."""
    again = "" if interval is None else f'<meta http-equiv="refresh" content="{max(1, round(interval))}">\n'
    one = glances[0].label if len(glances) == 1 else f"{len(glances)} runs"
    body = "\n".join(_body(glances, live=interval is not None))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{again}'
        f'<link rel="icon" href="data:,">\n<title>{_text(one)} – mocosfl watch</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _text(words: object) -> str:
    """Words from a file, without control characters and markup."""
    return html.escape("".join(letter if letter.isprintable() else "?" for letter in str(words)))


def _body(glances: Sequence[Glance], *, live: bool) -> Iterator[str]:
    when = time.strftime("%Y-%m-%d %H:%M:%S")
    yield f"<main>\n<h1>{len(glances)} run{'s' * (len(glances) != 1)}: {_text(counts(glances))}</h1>"
    yield f'<p class="soft">As of {when}{"; this page loads itself again" if live else ", the last look"}.</p>'
    for kind, text, of in remarks(glances):
        named = "note" if kind == "Note" else "warning"
        yield f'<p class="{named}"><strong>{kind}{f" ({_text(of)})" if of else ""}:</strong> {_text(text)}</p>'
    if len(glances) <= _SHEETS:
        for glance in glances:
            yield from _sheet(glance)
    else:
        yield from _table(glances)
    yield "</main>"


def _sheet(glance: Glance) -> Iterator[str]:
    yield f"<article>\n<h2>{_text(glance.label)} – {glance.state}</h2>"
    content = glance.content
    if content is None:
        yield f'<p class="soft">{STATES[glance.state]}</p>\n</article>'
        return
    summary, share = content.summary, glance.share or 0.0
    what = f"{summary['preset']}: {summary['method']}, seed {summary['seed']}, {summary['ranks']} rank(s)"
    yield f'<p class="soft">{_text(what)}; {STATES[glance.state]}</p>'
    yield f'<p><progress max="1" value="{share:.4f}" aria-label="share of steps done"></progress></p>'
    words = [f"{100 * share:.0f} %", glance.progress, times(glance)]
    yield f"<p>{_text(', '.join(word for word in words if word))}</p>\n<dl>"
    for fact in facts(content):
        drawing = svg(fact.curve, f"{fact.name} over the run so far, now {fact.value}")
        yield (
            f"<div><dt>{_text(fact.name)}</dt><dd><b>{_text(fact.value)}</b>{drawing}"
            f'<span class="soft">{_text(fact.meaning)}</span></dd></div>'
        )
    yield "</dl>\n</article>"


def _table(glances: Sequence[Glance]) -> Iterator[str]:
    names = ("run", "state", "done", "left", "loss", "kNN %", "divergence", "distance", "idle", "warnings")
    yield '<div class="wide" tabindex="0" role="region" aria-label="runs">\n<table>\n<thead><tr>'
    yield "".join(f'<th scope="col">{name}</th>' for name in names) + "</tr></thead>\n<tbody>"
    for glance in glances:
        cells = "".join(f"<td>{cell}</td>" for cell in _cells(glance))
        yield f'<tr><th scope="row">{_text(glance.label)}</th><td>{glance.state}</td>{cells}</tr>'
    yield "</tbody>\n</table>\n</div>"


def _cells(glance: Glance) -> Iterator[str]:
    content = glance.content
    if content is None:
        yield from [""] * 7
    else:
        summary = content.summary
        yield f"{100 * (glance.share or 0.0):.0f} %"
        yield "" if glance.left is None else clock(glance.left)
        yield f"{svg(content.loss, 'loss', 112, 24)} {number(latest(content.loss, summary['loss']), 3)}"
        yield f"{svg(content.knn, 'kNN accuracy', 112, 24)} {number(knn(content), 1)}"
        yield number(summary["divergence_online_mean"], 3)
        yield number(summary["online_momentum_distance"], 4)
        yield idle(content)
    yield str(len(glance.warnings)) if glance.warnings else ""
