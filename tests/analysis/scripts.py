"""All scripts, and a way to run one in this process."""

from __future__ import annotations

import importlib
from pathlib import Path

from mocosfl_mpi import figures

ANALYSIS = Path(__file__).parents[2] / "analysis"
MODULES = Path(figures.__file__).parent
SCRIPTS = sorted(path.stem for path in ANALYSIS.glob("*.py"))
FIGURES = {
    "accuracy_by_cut": {"accuracy-by-cut"},
    "accuracy_curves": {"accuracy-epochs", "accuracy-images", "accuracy-bytes"},
    "client_cost": {"cost-bytes", "cost-computation", "cost-image", "cost-memory"},
    "comparison": {"comparison", "differences"},
    "divergence_frequency": {"divergence-frequency"},
    "divergence_map": {f"divergence-{method}-cut-{cut}" for method in ("MocoSFL", "MonAcoSFL") for cut in (1, 4, 8)},
    "health": {"health"},
    "leakage": {"leakage-reconstruction", "leakage-linkage"},
    "partition_picture": {"partition-MocoSFL-cut-1"},
    "plan_against_actual": {"plan"},
    "rank_timeline": {
        f"timeline-{method}-cut{cut}-seed{seed}"
        for method in ("mocosfl", "monacosfl")
        for cut in (1, 4, 8)
        for seed in range(2)
    },
    "scaling": {"scaling-ranks"},
    "tradeoff": {"tradeoff"},
}
"""Of two seeds of the grid; of ``scaling``, of runs on different numbers of ranks."""


def draw(script: str, *arguments: object) -> int:
    return importlib.import_module(f"mocosfl_mpi.figures.{script}").main([str(argument) for argument in arguments])
