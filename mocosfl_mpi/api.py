"""Simulating from Python: ``from mocosfl_mpi import Config, simulate, open_run``. See ``docs/python.md``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import PrivateAttr, ValidationError

from mocosfl_mpi import config as configuration
from mocosfl_mpi.cadence import Cadence
from mocosfl_mpi.comm.environment import launcher
from mocosfl_mpi.commands.common import data_folder
from mocosfl_mpi.commands.run import completed
from mocosfl_mpi.config import overlay, refusal, to_toml
from mocosfl_mpi.errors import BAD_INPUT, STOPPED, BadInput, RunFailed, Stopped
from mocosfl_mpi.presets import give_way, load, presets
from mocosfl_mpi.record.output import GIVEN, Resume, free_directory, give_back, prepare_output
from mocosfl_mpi.signals import asked, listening

if TYPE_CHECKING:
    from mocosfl_mpi.record.reader import Run

PathLike: TypeAlias = "str | os.PathLike[str]"
INTERRUPTED = 130
"""Exit code of a command that a second Ctrl-C has ended."""
LAST_LINES = 20
"""Lines of what ranks said that are quoted when they end in another way than with a message."""


class Config(configuration.Config):
    """One experiment, complete, validated and frozen; ``simulate`` computes it.

    Parameters
    ----------
    source
        A preset's name (``mocosfl presets`` lists them), the path of a TOML file, nested values, or another
        configuration; nothing = the defaults.
    changes
        Settings laid over it by dotted name, ``{"model.cut_layer": 2}``, or nested, ``{"model": {"cut_layer": 2}}``.
    sections
        The same as keywords: ``epochs=3``, ``model={"cut_layer": 2}``. They come last.

    Raises
    ------
    BadInput
        Unknown preset, unreadable file, unknown setting, or impossible value; the message names it and the remedy.

    Examples
    --------
    >>> base = Config("smoke", {"model.cut_layer": 3}, epochs=1)
    >>> base.model.cut_layer, base.epochs, base.name
    (3, 1, 'smoke')
    >>> [Config(base, seed=seed).seed for seed in (1, 2)]
    [1, 2]
    """

    _name: str = PrivateAttr(default="python")

    def __init__(
        self,
        source: PathLike | Mapping[str, Any] | configuration.Config | None = None,
        changes: Mapping[str, Any] | None = None,
        /,
        **sections: Any,
    ) -> None:
        name, values = _source(source)
        values, typed = overlay(values, changes or {})
        values, more = overlay(values, sections)
        if isinstance(source, str) and source in presets():
            values = give_way(values, typed | more)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise refusal(error, name) from None
        self._name = name

    @property
    def name(self) -> str:
        """What the preset or file is called that it came from; runs are named after it, ``runs/NAME-001``."""
        return self._name

    def to_toml(self) -> str:
        """The complete configuration as commented TOML, which ``mocosfl run`` and ``Config`` read."""
        return to_toml(self, self.name)


def _source(source: PathLike | Mapping[str, Any] | configuration.Config | None) -> tuple[str, dict[str, Any]]:
    """Name and values of what a configuration starts from."""
    if source is None:
        return "python", {}
    if isinstance(source, Config):
        return source.name, source.model_dump(mode="json")
    if isinstance(source, configuration.Config):
        return "python", source.model_dump(mode="json")
    if isinstance(source, Mapping):
        return "python", overlay({}, source)[0]
    if isinstance(source, str | os.PathLike):
        return load(os.fspath(source))
    raise BadInput(f"{source!r} is no configuration: give a preset's name, the path of a TOML file, values or a Config")


def simulate(
    config: configuration.Config | PathLike | Mapping[str, Any],
    out: PathLike | None = None,
    *,
    ranks: int = 1,
    data_dir: PathLike | None = None,
    quiet: bool = False,
    resume: Resume = "auto",
    checkpoint_every: str = "10min",
    max_hours: float | None = None,
) -> Run:
    """Compute a run to its end, or continue the one that lies in ``out``, and return it opened.

    One rank computes in this process, so in a notebook, too; more are started with the MPI launcher, and this process
    passes on what they say. The result is the same, bit for bit, and the same as that of ``mocosfl run``. One Ctrl-C
    (a notebook's stop button) saves a checkpoint and raises ``Stopped``; a second one raises ``KeyboardInterrupt``.

    Parameters
    ----------
    config
        What to compute; anything that ``Config`` takes.
    out
        The run's directory (default: the first free one of ``runs/NAME-001``, ``runs/NAME-002``, …). A run of the same
        configuration that lies there is continued, or just opened where it is complete.
    ranks
        MPI ranks; more than one needs an MPI launcher (``pip install 'mocosfl-mpi[mpich]'``).
    data_dir
        Where data sets lie (default: the environment's ``MOCOSFL_DATA``); `data.source = "embedded"` needs none.
    quiet
        Print nothing; otherwise the same as ``mocosfl run``, tables at the end included.
    resume
        ``auto``: continue a run if there is one; ``never``: refuse it; ``must``: refuse its absence.
    checkpoint_every
        ``10min``, ``2epochs``, ``500steps``, or ``off``: only at the end and when stopped.
    max_hours
        Stop in time, with a checkpoint, and raise ``Stopped``.

    Returns
    -------
    Run
        The run's file, open for reading: ``run.summary()``, ``run.curves()``, ``run["steps/loss"]``. Close it with
        ``run.close()`` or ``with``.

    Raises
    ------
    BadInput
        Configuration, data, directory or number of ranks cannot be used; nothing was changed.
    RunFailed
        The run cannot go on (loss not finite, disk full, a rank that died); whole rows and checkpoints are safe.
    Stopped
        It was asked to stop, and did, with a checkpoint; the same call continues it.
    """
    from mocosfl_mpi.record.reader import open_run

    given = config if isinstance(config, configuration.Config) else Config(config)
    name = given.name if isinstance(given, Config) else "python"
    place = Path(out) if out is not None else free_directory(name)
    folder = data_folder(data_dir)
    cadence = _check(given, ranks, folder, checkpoint_every, max_hours)
    prepare_output(place, resume)
    with listening():
        if ranks == 1:
            from mocosfl_mpi.session import run_here
            from mocosfl_mpi.simulation import Conduct

            conduct = Conduct(
                preset=name,
                out=place,
                data_dir=folder,
                quiet=quiet,
                resume=resume,
                cadence=cadence,
                max_hours=max_hours,
                command=f"mocosfl_mpi.simulate(config, out={str(place)!r})",
            )
            run_here(given, conduct)
        else:
            options = ["--resume", resume, "--checkpoint-every", checkpoint_every]
            options += ["--data-dir", str(folder)] if folder else []
            options += ["--max-hours", str(max_hours)] if max_hours is not None else []
            options += ["--quiet"] if quiet else []
            _launch(given, name, place, ranks, options)
    return open_run(place)


def _check(
    config: configuration.Config, ranks: int, folder: Path | None, checkpoint_every: str, max_hours: float | None
) -> Cadence:
    """Refuse (BadInput) what can be told at once."""
    from mocosfl_mpi.data.check import check_all
    from mocosfl_mpi.record.expert import locate

    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise BadInput(f"ranks = {ranks!r}: at least one rank is needed; 1 computes in this process")
    if ranks > 1 and (started := launcher()):
        raise BadInput(
            f"ranks = {ranks}: this process was itself started by {started.name}, and launchers cannot be nested; "
            f"compute with ranks=1 in each of its processes, each with its own out, or start Python without it"
        )
    if max_hours is not None and not max_hours > 0:
        raise BadInput(f"max_hours = {max_hours!r}: expected a number above 0")
    check_all(config, folder)
    locate(config)
    return Cadence.parse(checkpoint_every)


def _launch(config: configuration.Config, name: str, out: Path, ranks: int, options: Sequence[str]) -> None:
    """Compute with ranks of their own, which read the configuration from ``out``; raise what became of them."""
    from mocosfl_mpi.launch import start
    from mocosfl_mpi.record.reader import open_run
    from mocosfl_mpi.record.schema import FILE_NAME
    from mocosfl_mpi.resumption import refuse_another

    if (out / FILE_NAME).exists():
        with open_run(out) as earlier:
            refuse_another(earlier, config)
    file = out / GIVEN / f"{name}.toml"
    said: list[str] = []

    def tell(line: str, complaint: bool) -> None:
        if complaint:
            said.append(line)
        if not (complaint and line.startswith("mocosfl: ")):  # that is for the exception
            print(line, file=sys.stderr if complaint else sys.stdout, flush=True)

    try:
        file.parent.mkdir(exist_ok=True)
        file.write_text(to_toml(config, name), encoding="utf-8")
        code = start(["run", str(file), "-n", str(ranks), "--out", str(out), *options], ranks, tell=tell)
    finally:
        if not (out / FILE_NAME).exists():
            file.unlink(missing_ok=True)
            give_back(file.parent)
            give_back(out)
    if code and not (asked() and completed(out)):
        raise _ending(code, said)


def _ending(code: int, said: Sequence[str]) -> BaseException:
    """The exception for the exit code of ranks that said these lines."""
    if code == INTERRUPTED:
        return KeyboardInterrupt()
    kind = {BAD_INPUT: BadInput, STOPPED: Stopped}.get(code, RunFailed)
    told = [line.removeprefix("mocosfl: ") for line in said if line.startswith("mocosfl: ")]
    if told:
        return kind(told[-1])
    return kind("\n".join([f"the ranks ended with exit code {code}; they said last:", *said[-LAST_LINES:]]))
