"""The one table of what a run records; writer, reader, documentation and tests derive from it.

``python -m mocosfl_mpi.record.schema`` prints it as ``docs/file-format.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mocosfl_mpi.methods import METHODS, MIXING, Method
from mocosfl_mpi.record.form import Dimension, Entry, Form

SCHEMA: Final = "mocosfl-run"
SCHEMA_VERSION: Final = "1.2"
FILE_NAME: Final = "run.h5"
COMMITTED: Final = "committed"
"""Dataset with the number of whole rows per growing dimension; advanced only after the rows are written."""

MESSAGES: Final = (
    "query_up", "key_up", "gradient_down", "weights_up", "weights_down", "momentum_up", "momentum_down",
    "velocity_up", "velocity_down", "labels_up", "features_down", "gradient_up",
)  # fmt: skip
WORK: Final = ("query_forward", "key_forward", "backward", "ema", "optimiser")
FURTHER_WORK: Final = ("alignment", "codec", "defence")
"""Behind those in ``work``, where a configuration has clients do it."""
SEGMENTS: Final = ("client", "server")
MEMORY: Final = ("weights", "momentum_weights", "velocity", "gradients", "input", "activations", "peak")
GROWING: Final = ("step", "sync", "epoch", "evaluation", "session")
"""In the order of ``committed``; a later version may only append."""
RESISTS: Final = "defence.resistance"
RICH_RESISTS: Final = "defence.resistance and client.rich_share"
PRETRAINED: Final = "client.pretrained"
MIXES: Final = "method = fedu or fedema"
OWN_MODELS: Final = "evaluation.own_models"

DIMENSIONS: Final = {
    dimension.name: dimension
    for dimension in (
        Dimension("step", "number", "training step, counted from 0 over the whole run", growing=True),
        Dimension(
            "sync", "number", "synchronisation by the fed server, counted from 0 over the whole run", growing=True
        ),
        Dimension("epoch", "number", "epoch, counted from 0", growing=True),
        Dimension("evaluation", "number", "evaluation of the encoder, counted from 0", growing=True),
        Dimension(
            "session", "number", "start of the program: the first one, then each resumption", since=1, growing=True
        ),
        Dimension("client", "number", "simulated client"),
        Dimension("member", "number", "position in the pool of participating clients, by client number"),
        Dimension("class", "text", "class of the data set"),
        Dimension("layer", "text", "parameter tensor of the client's part of the network"),
        Dimension("rank", "number", "MPI rank; rank 0 is main server and fed server; those of the largest session"),
        Dimension("phase", "text", "part of an epoch on which a rank spends its time"),
        Dimension("age", "number", "bin of keys in the feature memory by age, newest first, equal numbers of updates"),
        Dimension("message", "text", "what a simulated client sends (up) or receives (down)", MESSAGES),
        Dimension("work", "text", f"computation: {', '.join(WORK)}; if there is any, {', '.join(FURTHER_WORK)}"),
        Dimension("segment", "text", "side of the cut", SEGMENTS),
        Dimension("memory", "text", "use of a client's memory; peak is the largest sum at one time", MEMORY),
        Dimension("label_share", "share", "share of the training labels", since=2, setting="evaluation.label_shares"),
        Dimension("series", "text", "dimension along which rows are appended", GROWING),
    )
}

_TRAINING: Final = (
    Entry("steps/epoch", ("step",), "int64", "1", "epoch of the step"),
    Entry("steps/loss", ("step",), "float64", "1",
          "contrastive loss over all rows of the pool, before the update; with labels, cross-entropy"),
    Entry("steps/accuracy", ("step",), "float64", "1",
          "share of queries whose own key scores highest; with labels, of images whose own class does"),
    Entry("steps/heard", ("step",), "int64", "1",
          "clients whose query and key data arrived; 0 = the server did nothing, and loss and accuracy are NaN",
          since=2, setting="reliability"),
    Entry("steps/learning_rate_server", ("step",), "float64", "1", "learning rate of the main server"),
    Entry("epochs/clients", ("epoch", "member"), "int64", "1", "numbers of the clients that were drawn, and took part"),
    Entry("epochs/present", ("epoch", "member"), "uint8", "1",
          "1 = the client took part, 0 = it dropped out: its other numbers are 0 or NaN", since=2,
          setting="reliability"),
    Entry("epochs/loss", ("epoch",), "float64", "1", "loss, mean over the steps"),
    Entry("epochs/accuracy", ("epoch",), "float64", "1", "top-1 accuracy of the steps, their mean"),
    Entry("epochs/learning_rate_server", ("epoch",), "float64", "1",
          "learning rate of the main server, last step"),
    Entry("epochs/learning_rate_client", ("epoch", "member"), "float64", "1",
          "learning rate of the client, last step"),
    Entry("resistance/ssim", ("epoch", "member"), "float64", "1",
          "similarity (zero-padded SSIM) of images to what the client's own decoder draws from its smashed data, mean "
          "over the epoch's steps; NaN where there was none", since=2, setting=RESISTS),
    Entry("epochs/state", ("epoch",), "int64", "1",
          "what travelled at the cut: 0 = A, everything; 1 = B, no gradients down; 2 = C, nothing, a replay",
          since=2, setting="communication.loss_threshold"),
    Entry("epochs/next_state", ("epoch",), "int64", "1", "state to which the epoch's loss leads",
          since=2, setting="communication.loss_threshold"),
    Entry("epochs/feature_std", ("epoch",), "float64", "1",
          "spread of the last step's queries: 1 = all directions alike, 0 = collapsed to one; "
          "mean standard deviation of the normalised queries' coordinates times sqrt(dimensions)"),
    Entry("epochs/effective_rank", ("epoch",), "float64", "1",
          "dimensions that the last step's queries use: exp(entropy of their singular values)"),
)  # fmt: skip

_FEDERATION: Final = (
    Entry("syncs/epoch", ("sync",), "int64", "1", "epoch of the synchronisation"),
    Entry("syncs/step", ("sync",), "int64", "1",
          "step, counted over the run, after which models were averaged"),
    Entry("syncs/clients", ("sync", "member"), "int64", "1",
          "numbers of the clients whose models were averaged"),
    Entry("syncs/present", ("sync", "member"), "uint8", "1",
          "1 = the client's models were averaged, 0 = it missed the synchronisation, or had dropped out", since=2,
          setting="reliability"),
    Entry("divergence/online_mean", ("sync", "member", "layer"), "float32", "1",
          "L2 norm of online model minus mean of the online models, before averaging; this and the next two NaN for "
          "layers that the client has not", compress=True),
    Entry("divergence/online_momentum", ("sync", "member", "layer"), "float32", "1",
          "L2 norm of online model minus own momentum model, before averaging", compress=True),
    Entry("divergence/momentum_mean", ("sync", "member", "layer"), "float32", "1",
          "L2 norm of momentum model minus mean of the momentum models, before averaging; NaN, too, where nobody who "
          "was averaged has the layer and momentum models are not aligned", compress=True),
    Entry("after_sync/online_momentum_distance", ("sync", "member"), "float64", "1",
          "L2 norm of online minus momentum model over norm of the online model, after averaging"),
    Entry("after_sync/momentum_spread", ("sync", "member"), "float64", "1",
          "L2 norm of momentum model minus mean of the momentum models over norm of that mean, after averaging; NaN "
          "where that has layers of nobody"),
    Entry("after_sync/own_share", ("sync", "member"), "float64", "1",
          "share of its own model that the client kept when it mixed in the mean, mu; fedu: of its predictor",
          since=2, setting=MIXES),
)  # fmt: skip

_HARDNESS: Final = (
    Entry("hardness/similarity", ("epoch", "age"), "float64", "1",
          "mean of exp((cosine - 1) / temperature), last step's queries and keys of this age"),
    Entry("hardness/eta", ("epoch",), "float64", "1",
          "similarity of queries with the newest keys, eta of the fit eta gamma^age"),
    Entry("hardness/gamma", ("epoch",), "float64", "1",
          "factor by which the similarity decays per update, gamma"),
    Entry("hardness/total", ("epoch",), "float64", "1", "B eta gamma (1 - gamma^floor(M/B)) / (1 - gamma)"),
    Entry("hardness/batch_keys", (), "int64", "1", "keys that enter the memory per update, B", "fixed"),
    Entry("hardness/memory_keys", (), "int64", "1", "keys that the memory holds, M", "fixed"),
)  # fmt: skip

_COST: Final = (
    Entry("simulated/bytes", ("epoch", "member", "message"), "int64", "byte",
          "payload a real client would send or receive", compress=True),
    Entry("simulated/messages", ("epoch", "member", "message"), "int64", "1",
          "messages a real client would send or receive", compress=True),
    Entry("simulated/lost", ("epoch", "member", "message"), "int64", "1",
          "messages among them that did not arrive", compress=True, since=2, setting="reliability"),
    Entry("simulated/client_flops", ("epoch", "member", "work"), "int64", "flop",
          "floating-point operations a real client would compute", compress=True),
    Entry("measured/seconds", ("epoch", "rank", "phase"), "float64", "s",
          "wall time of this run; in the epoch of a resumption, of the part since then"),
    Entry("measured/idle_share", ("epoch", "rank"), "float64", "1",
          "share of the epoch in which the rank waited"),
    Entry("measured/resident_bytes", ("epoch", "rank"), "int64", "byte",
          "largest resident memory of the rank's process so far"),
    Entry("measured/mpi_bytes", ("epoch", "rank"), "int64", "byte", "payload that the rank moved by MPI messages"),
    Entry("partition/counts", ("client", "class"), "int64", "1",
          "training images of the client per class", "fixed"),
    Entry("cost/flops_per_image", ("segment", "work"), "int64", "flop",
          "work that grows with the images; of codecs and defences the clients', these in steps in which the decoder "
          "learns", "fixed"),
    Entry("cost/macs_per_image", ("segment", "work"), "int64", "mac",
          "multiply-accumulates of convolutions and matrix products in flops_per_image; 1 MAC = 2 FLOPs", "fixed"),
    Entry("cost/flops_per_step", ("segment", "work"), "int64", "flop",
          "work once per step: EMA and optimiser; defence: in steps in which the client's decoder learns", "fixed"),
    Entry("cost/client_memory", ("memory",), "int64", "byte", "memory of one real client", "fixed"),
    Entry("cost/rich_client_memory", ("memory",), "int64", "byte", "memory of one real rich client", "fixed", since=2,
          setting="client.rich_share"),
    Entry("cost/rich_flops_per_image", ("segment", "work"), "int64", "flop",
          "cost/flops_per_image of a rich client, which is cut deeper, and of the main server for its images", "fixed",
          since=2, setting="model.rich_cut_layer"),
    Entry("cost/rich_flops_per_step", ("work",), "int64", "flop",
          "the clients' part of cost/flops_per_step, of a rich client", "fixed", since=2,
          setting="model.rich_cut_layer"),
    Entry("cost/client_feature_memory", (), "int64", "byte",
          "past keys that one real client keeps, beside cost/client_memory", "fixed", since=2),
    Entry("privacy/sends", (), "int64", "1",
          "samples of smashed data that are sent in the run of the image that is sent most often", "fixed", since=2,
          setting="defence"),
    Entry("privacy/epsilon", (), "float64", "1",
          "epsilon of all of them at defence.delta, for an exchange of that image; NaN = no guarantee, or not computed",
          "fixed", since=2, setting="defence"),
    Entry("cost/defence_memory", (), "int64", "byte",
          "decoder of one real client, its optimiser and its step, beside cost/client_memory", "fixed", since=2,
          setting=RESISTS),
    Entry("cost/rich_defence_memory", (), "int64", "byte", "the same of one real rich client", "fixed", since=2,
          setting=RICH_RESISTS),
    Entry("pretrained/sha256", (), "sha256", "1", "hash of the expert's file with which clients began", "fixed",
          since=2, setting=PRETRAINED),
    Entry("ranks/host", ("rank",), "text", "1", "machine on which the rank of the latest session runs", "fixed"),
    Entry("ranks/threads", ("rank",), "int64", "1", "torch threads of the rank, latest session", "fixed"),
    Entry("ranks/clients", ("rank",), "int64", "1", "simulated clients that the rank hosts, latest session", "fixed"),
)  # fmt: skip

_SESSIONS: Final = (
    Entry("sessions/epoch", ("session",), "int64", "1", "epoch with which the session began", since=1),
    Entry("sessions/step", ("session",), "int64", "1", "steps completed before it", since=1),
    Entry("sessions/ranks", ("session",), "int64", "1", "MPI ranks", since=1),
    Entry("sessions/start", ("session",), "float64", "s",
          "start in seconds since 1970-01-01 00:00 UTC", since=1),
)  # fmt: skip

_QUALITY: Final = (
    Entry("evaluations/epoch", ("evaluation",), "int64", "1", "epochs completed; 0 = untrained"),
    Entry("evaluations/step", ("evaluation",), "int64", "1", "steps completed"),
    Entry("evaluations/wall_seconds", ("evaluation",), "float64", "s", "wall time since the run started"),
    Entry("evaluations/knn_top1", ("evaluation",), "float64", "%",
          "weighted kNN accuracy on encoder features"),
    Entry("evaluations/knn_projector_top1", ("evaluation",), "float64", "%",
          "weighted kNN accuracy on projections; with labels, on the classifier's logits"),
    Entry("evaluations/classifier_top1", ("evaluation",), "float64", "%",
          "test accuracy of the network's own classifier", since=2, supervised=True),
    Entry("evaluations/feature_std", ("evaluation",), "float64", "1",
          "as epochs/feature_std, of the projections of test images"),
    Entry("evaluations/effective_rank", ("evaluation",), "float64", "1",
          "as epochs/effective_rank, of the projections of test images"),
    Entry("result/completed", (), "uint8", "1", "1 = the run reached its normal end", "result"),
    Entry("result/state_sha256", (), "sha256", "1", "hash of all trained state, clients in order", "result"),
    Entry("result/knn_top1", (), "float64", "%", "kNN test accuracy, trained encoder", "result"),
    Entry("result/knn_projector_top1", (), "float64", "%", "kNN test accuracy, projections", "result"),
    Entry("result/knn_top1_untrained", (), "float64", "%", "kNN test accuracy, untrained encoder", "result"),
    Entry("result/knn_projector_top1_untrained", (), "float64", "%",
          "kNN accuracy, untrained projections", "result"),
    Entry("result/classifier_top1", (), "float64", "%", "test accuracy of the network's own classifier", "result",
          since=2, supervised=True),
    Entry("result/classifier_top1_untrained", (), "float64", "%", "the same, untrained network", "result",
          since=2, supervised=True),
    Entry("result/knn_top1_pixels", (), "float64", "%", "kNN test accuracy, raw pixels", "result"),
    Entry("result/linear_top1", (), "float64", "%", "linear-probe test accuracy, trained encoder", "result"),
    Entry("result/linear_top1_untrained", (), "float64", "%",
          "linear-probe accuracy, untrained encoder", "result"),
    Entry("result/linear_top1_pixels", (), "float64", "%", "linear-probe accuracy, raw pixels", "result"),
    Entry("result/probe_l2", (), "float64", "1", "L2 penalty of the linear probe", "result"),
    Entry("result/online_momentum_distance", (), "float64", "1",
          "mean over the last pool of after_sync/online_momentum_distance, at the end", "result"),
    Entry("result/wall_seconds", (), "float64", "s", "wall time of the whole run", "result"),
)  # fmt: skip


def _further(name: str, dims: tuple[str, ...], setting: str, long_name: str) -> tuple[Entry, Entry]:
    """A further measure of the encoder at the end, in % of test images, trained and untrained."""
    return (
        Entry(f"result/{name}", dims, "float64", "%", long_name, "result", since=2, setting=setting),
        Entry(f"result/{name}_untrained", dims, "float64", "%", "the same, untrained encoder", "result",
              since=2, setting=setting),
    )  # fmt: skip


_FURTHER: Final = (
    *_further("few_labels_top1", ("label_share",), "evaluation.label_shares",
              "linear-probe accuracy, fitted with a share of the labels, equally many of each class"),
    *_further("published_linear_top1", (), "evaluation.published_probe",
              "published linear probe, best of 100 epochs chosen on the test images (optimistic)"),
    *_further("published_linear_last_top1", (), "evaluation.published_probe",
              "published linear probe, last epoch"),
    *_further("published_few_labels_top1", ("label_share",), "evaluation.published_probe",
              "published semi-supervised probe, best of 100 epochs chosen on the test images (optimistic)"),
    *_further("published_few_labels_last_top1", ("label_share",), "evaluation.published_probe",
              "published semi-supervised probe, last epoch"),
    *_further("fine_tuned_top1", (), "evaluation.fine_tune_share",
              "whole encoder fine-tuned on a share of the labels, last epoch; NaN where that diverged"),
    *_further("transfer_knn_top1", (), "evaluation.transfer", "kNN accuracy on another data set"),
    *_further("transfer_linear_top1", (), "evaluation.transfer", "linear-probe accuracy on another data set"),
    *_further("client_knn_top1", ("client",), "evaluation.per_client",
              "kNN accuracy on test images of the client's classes"),
    *_further("personalised_top1", ("client",), "evaluation.per_client",
              "probe fitted on the client's images, test images of its classes; NaN below two classes"),
    *(
        Entry(f"result/own_{name}", ("client",), "float64", "%",
              f"{judge}, the client's own trained model; NaN for clients that were not judged",
              "result", since=2, setting=OWN_MODELS)
        for name, judge in (("knn_top1", "kNN test accuracy"), ("linear_top1", "linear-probe test accuracy"))
    ),
)  # fmt: skip

ENTRIES: Final = {
    entry.name: entry
    for entry in (
        *_TRAINING, *_FEDERATION, *_HARDNESS, *_COST, *_SESSIONS, *_QUALITY, *_FURTHER,
        Entry(COMMITTED, ("series",), "int64", "1", "whole rows in the file; ignore later ones", "fixed"),
    )
}  # fmt: skip

ATTRIBUTES: Final[dict[str, tuple[type[str] | type[int], str]]] = {
    "schema": (str, f"always `{SCHEMA}`"),
    "schema_version": (str, "major.minor; a reader accepts its own major version"),
    "software": (str, "always `mocosfl_mpi`"),
    "software_version": (str, "version of this package"),
    "versions": (str, "JSON object: Python, libraries and MPI library"),
    "date": (str, "start of the latest session, ISO 8601 with time zone; so are the next five about it"),
    "host": (str, "machine of rank 0"),
    "ranks": (int, "MPI ranks"),
    "launcher": (str, "what started the ranks"),
    "command": (str, "command line"),
    "server_threads": (int, "torch threads of the main server"),
    "host_threads": (int, "torch threads of each rank that hosts clients"),
    "method": (str, "algorithm"),
    "preset": (str, "name of the preset or configuration file"),
    "seed": (int, "seed of every random stream"),
    "config": (str, "configuration, canonical JSON; settings that came later only where they differ from the default"),
    "config_toml": (str, "the same, complete, as commented TOML that `mocosfl run` accepts"),
    "config_hash": (str, "sha256 of `config`"),
    "notes": (str, "JSON list of warnings in plain words"),
}
"""Attributes of the root group: type and meaning."""

RUN: Final = Form(
    SCHEMA,
    SCHEMA_VERSION,
    FILE_NAME,
    "run",
    "Rows flushed before are safe and `mocosfl inspect` reads them; free some space or choose another --out, and start "
    "again in a new directory",
    DIMENSIONS,
    ENTRIES,
    ATTRIBUTES,
    {"config": dict, "versions": dict, "notes": list},
)


def setting(config: Mapping[str, Any], name: str) -> Any:
    """The value of the setting ``section.key`` in a stored configuration, or what that implies; None for neither."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if name == OWN_MODELS and value is None:
        return _method(config).own_models
    if name == RICH_RESISTS:
        return setting(config, RESISTS) and setting(config, "client.rich_share")
    if name == RESISTS and setting(config, "client.frozen"):
        return None
    return _method(config).alignment in MIXING if name == MIXES else value


def _method(config: Mapping[str, Any]) -> Method:
    """What is known of the method of a stored configuration; nothing special of another version's."""
    return METHODS.get(str(setting(config, "method")), Method())


def supervised(config: Mapping[str, Any]) -> bool:
    """Whether the run of a stored configuration learns from labels; not where its method is of another version."""
    method = METHODS.get(str(config.get("method")))
    return method is not None and method.supervised


def present(config: Mapping[str, Any], minor: int | None = None, form: Form = RUN) -> list[str]:
    """Scales and datasets in the file of a run with this configuration, of schema 1.``minor`` (None = this one)."""
    kinds: dict[str, Dimension | Entry] = {**form.dimensions, **form.entries}

    def there(kind: Dimension | Entry) -> bool:
        axes = [form.dimensions[name] for name in kind.dims] if isinstance(kind, Entry) else []
        settings = {part.setting for part in (kind, *axes)} - {""}
        if isinstance(kind, Entry) and kind.supervised and not supervised(config):
            return False
        return all(setting(config, name) for name in settings) and (minor is None or kind.since <= minor)

    return [name for name, kind in kinds.items() if there(kind)]


if __name__ == "__main__":
    from mocosfl_mpi.record.markdown import markdown

    print(markdown(), end="")
