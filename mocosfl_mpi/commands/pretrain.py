"""``mocosfl pretrain``: the first stage of an experiment, which ends in an expert's file."""

from __future__ import annotations

import argparse

from mocosfl_mpi.commands.common import Subcommands, add_configuration, configuration, expert_of
from mocosfl_mpi.commands.run import add_conduct, carry_out
from mocosfl_mpi.config import Config


def add(commands: Subcommands) -> None:
    """Declare the command."""
    pretrain = commands.add_parser(
        "pretrain",
        help="train the expert with which an experiment begins",
        description="Train the expert of an experiment's first stage ([pretraining], [defence]) into "
        "OUT/expert.safetensors; `mocosfl run CONFIG --set client.pretrained=OUT` begins with it.",
    )
    add_configuration(pretrain)
    add_conduct(pretrain)
    pretrain.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    return carry_out(options, _first_stage)


def _first_stage(options: argparse.Namespace) -> tuple[str, Config]:
    return expert_of(*configuration(options))
