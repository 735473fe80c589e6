"""What several commands share: reading the configuration, finding the data."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TypeAlias

from mocosfl_mpi.config import Config, apply_settings, parse
from mocosfl_mpi.presets import give_way, load, presets

DATA_VARIABLE = "MOCOSFL_DATA"

Subcommands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_configuration(command: argparse.ArgumentParser) -> None:
    """The arguments of every command that takes an experiment: CONFIG, ``--set``, ``--data-dir``."""
    command.add_argument("config", metavar="CONFIG", help="a preset's name (see `mocosfl presets`) or a TOML file")
    add_settings(command)
    add_data_dir(command)


def add_settings(command: argparse.ArgumentParser) -> None:
    """The argument ``--set``."""
    command.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="a.b=v",
        help="override one setting; may be repeated",
    )


def add_data_dir(command: argparse.ArgumentParser) -> None:
    """The argument ``--data-dir``."""
    command.add_argument("--data-dir", type=Path, help=f"where data sets lie (default: ${DATA_VARIABLE})")


def configuration(options: argparse.Namespace) -> tuple[str, Config]:
    """Name of the preset or file, and the validated configuration with the user's settings."""
    name, values = load(options.config)
    values = apply_settings(values, options.settings)
    if options.config in presets():
        values = give_way(values, {assignment.partition("=")[0].strip() for assignment in options.settings})
    return name, parse(values, name)


def add_stage(command: argparse._ActionsContainer) -> None:
    """The argument ``--stage``."""
    command.add_argument(
        "--stage",
        choices=["run", "pretrain"],
        default="run",
        help="of `mocosfl run` (default), or of the first stage, `mocosfl pretrain`, with the same CONFIG",
    )


def configuration_of_stage(options: argparse.Namespace) -> tuple[str, Config]:
    """The same of the stage that ``options`` (of ``add_stage``) name."""
    name, config = configuration(options)
    return expert_of(name, config) if options.stage == "pretrain" else (name, config)


def expert_of(name: str, config: Config) -> tuple[str, Config]:
    """Name and configuration of an experiment's first stage. BadInput where it has none."""
    from mocosfl_mpi.config.expert import first_stage

    return f"{name}-expert", first_stage(config, name)


def data_dir(options: argparse.Namespace) -> Path | None:
    """Where data sets lie, as given or from the environment."""
    return data_folder(options.data_dir)


def data_folder(given: str | os.PathLike[str] | None) -> Path | None:
    """``given``, or the place that the environment names."""
    if given is not None:
        return Path(given)
    return Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None
