"""The frozen, validated configuration of one experiment.

A configuration is complete before any MPI or training work starts. It holds what determines the result; where
data and results lie (``--data-dir``, ``--out``) and how many ranks compute it are not part of the experiment.
"""

from mocosfl_mpi.config.experiment import Config
from mocosfl_mpi.config.reading import apply_settings, flat, overlay, parse, read_toml, refusal
from mocosfl_mpi.config.sections import (
    Backbone,
    Client,
    Communication,
    Compute,
    Data,
    Defence,
    Evaluation,
    Federation,
    Method,
    Model,
    Partition,
    Pretraining,
    Reliability,
    Section,
    Views,
)
from mocosfl_mpi.config.writing import settings, to_toml

__all__ = [
    "Backbone",
    "Client",
    "Communication",
    "Compute",
    "Config",
    "Data",
    "Defence",
    "Evaluation",
    "Federation",
    "Method",
    "Model",
    "Partition",
    "Pretraining",
    "Reliability",
    "Section",
    "Views",
    "apply_settings",
    "flat",
    "overlay",
    "parse",
    "read_toml",
    "refusal",
    "settings",
    "to_toml",
]
