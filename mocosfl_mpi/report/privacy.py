"""What attacks on a run came to, as its audit says it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mocosfl_mpi.config import parse
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.attack_schema import FILE_NAME
from mocosfl_mpi.record.attacks import PICTURES, read_outcomes
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.report.parts import Bullets, Heading, Part, Picture, Sheet, Words
from mocosfl_mpi.report.pictures import uri

if TYPE_CHECKING:
    from mocosfl_mpi.audit import document
    from mocosfl_mpi.audit.report import Audit


def attacked(directory: Path) -> bool:
    """Whether anything is recorded of attacks on the run there."""
    return (directory / FILE_NAME).is_file()


def audit(directory: Path, *, brief: bool) -> Iterator[Part]:
    """The audit of a run's newest attacked checkpoint: all of it, or what each adversary learns. Loads torch.

    What cannot be read is said, and is no reason to hide the rest of a page.
    """
    try:
        found = _audit(directory)
        if found is None:
            yield Words(f"{FILE_NAME} has no attack yet.")
            return
        from mocosfl_mpi.audit.report import brief as shortened
        from mocosfl_mpi.audit.report import parts

        yield from _translated(shortened(found) if brief else list(parts(found))[1:])
    except BadInput as error:
        yield Words(f"The attacks on this run cannot be shown: {error}")


def _audit(directory: Path) -> Audit | None:
    from mocosfl_mpi.attacks.registry import ATTACKS
    from mocosfl_mpi.audit.material import collect
    from mocosfl_mpi.audit.report import audit as judge

    outcomes = [outcome for outcome in read_outcomes(directory) if outcome.attack in ATTACKS]
    if not outcomes:
        return None
    newest = max(outcomes, key=lambda outcome: outcome.steps).steps
    outcomes = [outcome for outcome in outcomes if outcome.steps == newest]
    with open_run(directory) as run:
        config = parse(run.attrs["config"], str(run.path))
    attacks = {outcome.attack: ATTACKS[outcome.attack] for outcome in outcomes}
    return judge(collect(directory, config, newest), outcomes, [], attacks, directory / PICTURES)


def _translated(found: list[document.Part]) -> Iterator[Part]:
    from mocosfl_mpi.audit import document

    for part in found:
        if isinstance(part, document.Heading):
            yield Heading(part.level + 1, part.text)
        elif isinstance(part, document.Paragraph):
            yield Words(part.text)
        elif isinstance(part, document.Bullets):
            yield Bullets(part.items)
        elif isinstance(part, document.Picture):
            yield Picture(uri(part.path), part.caption, part.caption, pixels=True)
        else:
            yield Sheet("", part.header, part.rows, figures=False)
