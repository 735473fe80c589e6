"""Does synchronising more often keep the clients' models together, and do deeper cuts drift more (MocoSFL Fig. 3a)?

Run:           python analysis/divergence_frequency.py RUN… [--published jobs/configs/fig3a.toml]
Figure:        divergence-frequency: MocoSFL eq. 4, mean over synchronisations and clients of the L2 distances from
               the mean online model, summed over layers, against synchronisations an epoch; mean over seeds ± one
               standard deviation
Look for:      lines that fall to the right, and lie the higher the deeper the cut.
Bear in mind:  norms grow with the network: at a width of 8 they are no match for the published ones of width 64.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from mocosfl_mpi.figures.common import Drawing, parser, script
from mocosfl_mpi.figures.published import add_published
from mocosfl_mpi.figures.study import Study
from mocosfl_mpi.figures.sweeps import paint, sweep
from mocosfl_mpi.record.reader import Run

KEY = "federation.sync_freq"


def divergence(run: Run, _: Mapping[str, Any]) -> Iterator[dict[str, float]]:
    """MocoSFL eq. 4; nothing of a run without synchronisations."""
    norms = run["divergence/online_mean"].astype(np.float64).sum(axis=-1)
    known = norms[np.isfinite(norms)]
    if known.size:
        yield {"divergence": float(known.mean())}


def draw(study: Study, options: argparse.Namespace) -> Iterator[Drawing]:
    study, frame = study.collect(divergence)
    table = sweep(study, KEY, frame, "divergence", options, "divergence")
    labels = ("synchronisations an epoch", "client divergence (L2 norm)")
    yield Drawing("divergence-frequency", table, partial(paint, study, KEY, table, labels))


def arguments() -> argparse.ArgumentParser:
    made = parser(__doc__)
    add_published(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return script(arguments(), draw, argv)
