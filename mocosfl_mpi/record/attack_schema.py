"""The one table of what attacks on a run record; writer, reader, documentation, commands and tests derive from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mocosfl_mpi.record.form import Dimension, Entry, Form
from mocosfl_mpi.record.schema import COMMITTED

SCHEMA: Final = "mocosfl-attacks"
SCHEMA_VERSION: Final = "1.1"
FILE_NAME: Final = "attacks.h5"


@dataclass(frozen=True)
class Metric:
    """One number that says how much was learnt."""

    title: str
    units: str
    more: int
    """1: more of it = more was learnt; -1: less of it; 0: it says nothing of that."""
    long_name: str
    digits: int = 3
    brief: bool = True
    """Whether it stands in short tables too."""


METRICS: Final[dict[str, Metric]] = {
    "mse": Metric("MSE", "1", -1, "mean squared error of pixels in [0, 1], mean over images", 4),
    "mse_worst_decile": Metric("MSE, worst tenth", "1", -1,
                               "what the tenth of the images that is rebuilt best has at most", 4, brief=False),
    "psnr": Metric("PSNR", "dB", 1, "peak signal-to-noise ratio, mean over images", 2),
    "psnr_of_mean_mse": Metric("PSNR of the mean", "dB", 1, "the same of the mean MSE: never above the former", 2,
                               brief=False),
    "ssim": Metric("SSIM", "1", 1, "structural similarity without padding, mean over images"),
    "ssim_published": Metric("SSIM, published", "1", 1, "structural similarity on the papers' scale, zero-padded",
                             brief=False),
    "top1": Metric("first", "1", 1, "share of what was sent whose own candidate comes first"),
    "top10": Metric("first ten", "1", 1, "share whose own candidate is among the first ten"),
    "mrr": Metric("MRR", "1", 1, "mean of one over the own candidate's place"),
    "auc": Metric("AUC", "1", 1, "area under the ROC curve: the chance that one inside scores above one outside"),
    "tpr_at_1e-2": Metric("found at 1 %", "1", 1, "share found of those inside, with 1 % false alarms"),
    "tpr_at_1e-3": Metric("found at 0.1 %", "1", 1, "share found of those inside, with 0.1 % false alarms",
                          brief=False),
    "top2": Metric("classes named", "1", 1, "share of each client's two most frequent classes that were named"),
    "distance": Metric("distance", "1", -1, "total variation between the classes' true shares and those inferred",
                       brief=False),
    "auc_error": Metric("error of AUC", "1", 0, "standard error of the area with so many inside and outside"),
    "smallest_fpr": Metric("smallest share", "1", 0, "smallest share of false alarms that so many outside can show", 4),
    "positives": Metric("inside", "1", 0, "how many inside were asked about", 0),
    "negatives": Metric("outside", "1", 0, "how many outside were asked about", 0),
}  # fmt: skip
"""By the name under which scenes return it."""

_PIXELS: Final = ("mse", "mse_worst_decile", "psnr", "psnr_of_mean_mse", "ssim", "ssim_published")
_SCORES: Final = ("auc", "tpr_at_1e-2", "tpr_at_1e-3")
TELLS: Final[dict[str, tuple[str, ...]]] = {
    "reconstruction": _PIXELS, "inversion": _PIXELS, "linkage": ("top1", "top10", "mrr"), "membership": _SCORES,
    "target_membership": _SCORES, "source_membership": _SCORES,
    "composition": ("top2", "distance"), "labels": _SCORES, "probing": _SCORES,
}  # fmt: skip
"""By kind of attack, the metrics that say how much was learnt."""

PRINCIPAL: Final[dict[str, str]] = {
    "reconstruction": "ssim", "inversion": "ssim", "linkage": "top1", "membership": "auc",
    "target_membership": "auc", "source_membership": "auc", "composition": "top2",
    "labels": "auc", "probing": "auc",
}  # fmt: skip
"""By kind of attack, the metric by which attacks are compared."""


@dataclass(frozen=True)
class Floor:
    """A guesser to compare with."""

    title: str
    long_name: str
    blind: bool = True
    """It sees nothing of what was sent and is told nothing; False: a reference that has been told something."""


FLOORS: Final[dict[str, Floor]] = {
    "constant_mean": Floor("mean colour", "one mean colour for every image, that of the adversary's own images"),
    "own_mean": Floor("own mean colour", "each image's own mean colour, told by an oracle that knows no structure",
                      blind=False),
    "chance": Floor("chance", "a guesser who sees nothing"),
    "mean_client": Floor("mean client", "the mixture of classes of all these clients together, for each of them",
                         blind=False),
    "raw_pixels": Floor("raw pixels", "no floor: the same attack on the pixels, as if there were no cut", blind=False),
    "class_prior": Floor("class prior", "the shares of classes among the adversary's own images, for every client"),
}  # fmt: skip
"""By the name under which scenes return them; new ones come last, since earlier files are carried over by place."""

DIMENSIONS: Final = {
    dimension.name: dimension
    for dimension in (
        Dimension("job", "number", "one attack by one adversary with one seed, in the order of their ends",
                  growing=True),
        Dimension("metric", "text", "how much was learnt", tuple(METRICS)),
        Dimension("floor", "text", "guesser to compare with, who has seen nothing of what was sent", tuple(FLOORS)),
        Dimension("series", "text", "dimension along which rows are appended", ("job",)),
    )
}  # fmt: skip

ENTRIES: Final = {
    entry.name: entry
    for entry in (
        Entry("jobs/key", ("job",), "sha256", "1", "hash of everything that decides the job's numbers"),
        Entry("jobs/state", ("job",), "sha256", "1", "hash of the attacked checkpoint's files"),
        Entry("jobs/steps", ("job",), "int64", "1", "training steps completed at that checkpoint"),
        Entry("jobs/trained", ("job",), "uint8", "1",
              "1 = the checkpoint's networks, 0 = the control: random networks of the same layers"),
        Entry("jobs/attack", ("job",), "text", "1", "name of the attack", width=40),
        Entry("jobs/kind", ("job",), "text", "1", "what it tries to learn", width=40),
        Entry("jobs/adversary", ("job",), "text", "1", "who attacks", width=40),
        Entry("jobs/adaptive", ("job",), "int64", "1",
              "1 = the adversary knows the defence, 0 = it does not, -1 = there is none"),
        Entry("jobs/protocol", ("job",), "text", "1", "`ours`, or `published` for the papers' protocol", width=40),
        Entry("jobs/client", ("job",), "int64", "1", "number of the attacked client"),
        Entry("jobs/images", ("job",), "int64", "1", "images of the victim's that are asked for, at most"),
        Entry("jobs/effort", ("job",), "float64", "1", "effort over that of the attack's own settings"),
        Entry("jobs/seed", ("job",), "int64", "1", "seed of the scene and of the attack"),
        Entry("jobs/seconds", ("job",), "float64", "s", "wall time of the attack, measured"),
        Entry("jobs/macs", ("job",), "float64", "mac",
              "multiply-accumulates of the attack's decoder for one image; NaN where it has none"),
        Entry("jobs/reason", ("job",), "text", "1", "why it cannot be mounted here; empty = it was", width=600),
        Entry("jobs/notes", ("job",), "text", "1", "JSON object of the attack's own numbers", width=2000),
        Entry("jobs/picture", ("job",), "text", "1", "file of sample pictures below `attacks/`; empty = none",
              width=200),
        Entry("scores/value", ("job", "metric"), "float64", "1",
              "how much was learnt, in the metric's own unit; NaN where the metric does not apply"),
        Entry("scores/floor", ("job", "floor", "metric"), "float64", "1",
              "the same of a guesser to compare with"),
        Entry(COMMITTED, ("series",), "int64", "1", "whole rows in the file; ignore later ones", "fixed"),
    )
}  # fmt: skip

ATTRIBUTES: Final[dict[str, tuple[type[str] | type[int], str]]] = {
    "schema": (str, f"always `{SCHEMA}`"),
    "schema_version": (str, "major.minor; a reader accepts its own major version"),
    "software": (str, "always `mocosfl_mpi`"),
    "software_version": (str, "version of this package"),
    "versions": (str, "JSON object: Python, libraries and MPI library"),
    "date": (str, "when the latest command began, ISO 8601 with time zone; so are the next five about it"),
    "host": (str, "machine of rank 0"),
    "ranks": (int, "MPI ranks"),
    "launcher": (str, "what started the ranks"),
    "command": (str, "command line"),
    "threads": (int, "torch threads of each rank"),
    "config": (str, "configuration of the attacked run, canonical JSON"),
    "config_hash": (str, "sha256 of `config`"),
}

ATTACKS: Final = Form(
    SCHEMA,
    SCHEMA_VERSION,
    FILE_NAME,
    "file of attacks",
    "Attacks recorded before are safe; free some space and give the same command again: it does what is missing",
    DIMENSIONS,
    ENTRIES,
    ATTRIBUTES,
    {"config": dict, "versions": dict},
)
