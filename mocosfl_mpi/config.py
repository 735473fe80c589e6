"""The frozen, validated configuration of one experiment.

A configuration is complete before any MPI or training work starts. It holds what determines the result; where
data and results lie (``--data-dir``, ``--out``) and how many ranks compute it are not part of the experiment.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.networks import BLOCKS, LAST_BATCH_NORM, NO_SHORTCUTS, entries

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Method = Literal["mocosfl", "monacosfl", "fl_moco", "fl_byol", "fl_simclr", "fl_simsiam", "central"]
ALIGNED = {
    "mocosfl": "online",
    "monacosfl": "online_and_momentum",
    "fl_moco": "online",
    "fl_byol": "online",
    "fl_simclr": "online",
    "fl_simsiam": "online",
    "central": "online",
}
"""What each method's fed server aligns, as `federation.alignment` would say it."""
MOMENTUM_ALIGNED = frozenset({"online_and_momentum", "momentum_reset"})
"""Values of `federation.alignment` that are about momentum models."""
WHOLE_NETWORK = frozenset({"fl_moco", "fl_byol", "fl_simclr", "fl_simsiam", "central"})
"""Methods whose clients hold the whole network, projector included: there is no cut and no main server."""
IN_BATCH = frozenset({"fl_simclr", "fl_simsiam"})
"""Methods that compare the two views of a batch with each other: both are always needed, a momentum model is not."""
Backbone = Literal[
    "resnet18", "resnet34", "resnet50", "vgg11", "vgg13", "vgg16", "mobilenetv2", "mobilenetv2_published", "vit"
]
DEEPEST = 50
"""Levels of tables in a file that is read."""


Schedule = Literal["cosine", "multi_step", "constant"]


class Section(BaseModel):
    """A frozen group of settings; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Data(Section):
    """Which images, and how many of them."""

    source: Literal["embedded", "fashion-mnist", "cifar10", "cifar100", "svhn", "image-folder"] = "embedded"
    """Data set. `embedded` is a balanced 6,000 + 1,000 subset of Fashion-MNIST inside the package."""
    folder: str = ""
    """`image-folder` only: name of the folder below the data directory that holds `train/` and `val/`."""
    image_size: Annotated[int, Field(ge=8, le=512)] | None = None
    """Pixels per side to which `image-folder` images are resized when read (centre crop); empty = refused there."""
    train_images: Positive | None = None
    """Images of the training split to use, drawn without replacement; empty = all."""
    test_images: Positive | None = None
    """Images of the test split to use, drawn without replacement; empty = all."""
    validation_images: Annotated[int, Field(ge=0)] = 0
    """Training images held out from clients and kNN bank, on which the probe's L2 is chosen; 0 = nothing is chosen."""
    allow_unofficial: bool = False
    """Accept CIFAR files whose md5 differs from the official one (a warning names them)."""


class Partition(Section):
    """How the training images are dealt to clients."""

    kind: Literal["iid", "shards", "shards_full", "classes", "dirichlet", "volumes", "overlapping"] = "shards"
    """`shards`: label shards as published, remainders dropped; `shards_full`: the same with nothing dropped;
    `classes`: exactly k classes per client; `dirichlet`: class mix from Dirichlet(alpha); `volumes`: IID classes,
    client sizes from a power law; `iid`: equal random parts, nothing dropped; `overlapping`: every client draws its
    own images, which others may have too (for more clients than images)."""
    classes_per_client: Positive = 2
    """Shards (or classes) per client for `shards`, `shards_full`, `classes` and `overlapping`."""
    images_per_client: Positive = 20
    """Images that each client draws for `overlapping`."""
    alpha: Annotated[float, Field(gt=0.0)] = 0.5
    """Concentration for `dirichlet`; smaller is more skewed."""
    skew: Annotated[float, Field(ge=0.0, le=3.0)] = 1.0
    """`volumes`: client i's share is proportional to (i+1)^-skew; 0 = equal."""
    min_images: Positive = 1
    """Fewest images a client may own; `dirichlet` is redrawn at most 100 times to reach it."""


class Views(Section):
    """Augmentation that makes the two views of an image."""

    pipeline: Literal["mocov1", "mocov2"] = "mocov2"
    """`mocov2`: crop, colour jitter, greyscale, blur, flip; `mocov1`: crop, flip, colour jitter, greyscale."""
    exact: bool = False
    """Run every operation on uint8 images with PIL, as torchvision does, instead of batched tensors (slow)."""
    size: Annotated[int, Field(ge=8, le=512)] | None = None
    """Pixels per side of a view; empty = the data set's own size."""
    crop_scale_min: Fraction = 0.08
    """Smallest share of the image's area that a random crop keeps (published: 0.08)."""
    jitter_probability: Probability = 0.8
    """Chance that a view's brightness, contrast, saturation (±0.4) and hue (±0.1) are jittered."""
    grey_probability: Probability = 0.2
    """Chance that a view is turned grey."""
    blur_probability: Probability = 0.5
    """Chance of a Gaussian blur with radius U(0.1, 2.0) pixels; used by `mocov2` only."""
    flip_probability: Probability = 0.5
    """Chance of a horizontal flip."""


class Model(Section):
    """The network and where it is cut."""

    backbone: Backbone = "resnet18"
    """Convolutions are weight-standardised and followed by GroupNorm (4 channels per group). `mobilenetv2` has the
    ReLUs that the published code forgets and GroupNorm in its shortcuts; `mobilenetv2_published` neither, but BatchNorm
    there. `vit` is a small vision transformer, with LayerNorm."""
    width: Annotated[int, Field(ge=4, le=256, multiple_of=4)] = 64
    """Size of the network: 64 is the published one, 8 a small one. Channels are in proportion (`mobilenetv2`: rounded
    to multiples of 4; `vit`: 3·width per token)."""
    cut_layer: Positive = 1
    """Entries of the network that live on the client. ResNet: stem, blocks (the papers count 2·cut_layer - 1 layers);
    VGG: convolutions and poolings; MobileNetV2: stem, stages, last convolution; ViT: patches, blocks, last norm.
    Methods whose clients hold the whole network (`fl_...`, `central`) have no cut, and this says nothing there."""
    head: Literal["V1", "smallV2", "V2", "largeV2"] = "V2"
    """Projector: V1 linear; smallV2, V2 two-layer MLP; largeV2 MLP with 4096 hidden units and BatchNorm."""
    key_dim: Positive | None = None
    """Dimensions of queries and keys; empty = the head's published value (128, 512, 1024, 2048)."""
    hidden_dim: Positive | None = None
    """Hidden units of the MLP heads; empty = the head's published value."""
    bottleneck: str = ""
    """Compression at the cut, `[K<k>]C<channels>[S<stride>][noRELU]`, for example `C4S2`; empty = none."""
    client_residual: bool = True
    """False removes the shortcuts of the blocks that live on clients (`mobilenetv2_published`: of all blocks)."""
    weight_standardization: bool = True
    """False uses plain convolutions (in ResNets inside the blocks only: the stem stays standardised, as published)."""


class Contrast(Section):
    """Momentum contrast: memory, temperature, momentum encoders."""

    memory_length: Positive = 6000
    """Keys in the feature memory, over all clients; `fl_moco` and `central`: of each client."""
    share_features: bool = True
    """False gives every client a memory of its own with memory_length // clients keys. Memories of `fl_moco` and
    `central` are private whatever stands here."""
    temperature: Annotated[float, Field(gt=0.0)] = 0.1
    """Divides the cosine similarities."""
    momentum: Annotated[float, Field(ge=0.0, le=1.0)] = 0.99
    """Weight of the old momentum model in each exponential moving average, client and server side."""
    symmetric: Literal["published", "both_views", "off"] = "published"
    """`published`: l12 + l21 (a sum), client gradient from l12 only; `both_views`: 2B rows per client, one mean,
    gradient for both views; `off`: l12 only. Without a main server (`fl_...`) `published` is the sum over both views'
    roles, with gradients for both, and `both_views` its half."""


class Server(Section):
    """The main server's optimiser (SGD)."""

    lr: Annotated[float, Field(ge=0.0)] = 0.06
    """Initial learning rate; the schedule steps once per epoch."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """SGD momentum."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 5e-4
    """L2 penalty on all parameters."""
    schedule: Schedule = "cosine"
    """`cosine` to 0; `multi_step` ×0.1 at 60 % and 80 % of the epochs; `constant`."""
    micro_batch: Positive | None = None
    """Rows per forward pass; gradients are summed, the result is that of the whole batch. Empty = equal parts of at
    most about 64 rows."""


class Client(Section):
    """The simulated clients and their optimiser (SGD)."""

    count: Positive = 20
    """Simulated clients."""
    batch_size: Positive = 20
    """Images per client and step."""
    sampling_ratio: Fraction = 1.0
    """Share of the clients that takes part in an epoch, drawn afresh for each."""
    sampling: Literal["uniform", "by_data", "round_robin", "trace"] = "uniform"
    """Who takes part. `uniform`: drawn alike; `by_data`: one after the other with probabilities proportional to image
    counts; `round_robin`: in turns, in one shuffled order; `trace`: drawn alike from those that `availability`
    allows."""
    availability: tuple[Annotated[str, Field(pattern="^[01]+$")], ...] = ()
    """`trace` only: rows of 1 (there) and 0 (away), all as long; client i follows row i modulo their number, epoch e
    reads column e modulo their length. For example ["110", "011"]."""
    lr: Annotated[float, Field(ge=0.0)] = 0.06
    """Initial learning rate."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """SGD momentum."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 5e-4
    """L2 penalty on all parameters."""
    schedule: Schedule = "cosine"
    """`cosine` to 0; `multi_step` ×0.2 at 60 % and 80 %; `constant`."""
    schedule_step: Literal["epoch", "published"] = "epoch"
    """`epoch`: once per epoch; `published`: once per step of the client, so that the cosine oscillates."""
    gradient_scale: Literal["published", "own_rows"] = "published"
    """`published`: gradient of the mean over all rows of the pool, 1/P of a client's own; `own_rows`: times P."""
    velocity_at_sync: Literal["kept", "reset", "averaged"] = "kept"
    """What becomes of the clients' SGD velocity when models are averaged (published: kept)."""
    local_epochs: Positive = 1
    """Passes over the mean client's images in one epoch of the run: the local epochs of a round (FL)."""
    frozen: bool = False
    """Clients never learn: no gradient is computed or sent, no model is synchronised."""


class Federation(Section):
    """When and how the fed server averages."""

    sync_freq: Positive = 10
    """Synchronisations per epoch; one more at the end where it does not divide the steps (as published)."""
    weighting: Literal["uniform", "data"] = "uniform"
    """`uniform`: plain mean over the pool; `data`: weighted by the clients' image counts."""
    alignment: Literal["method", "none", "online", "online_and_momentum", "momentum_reset"] = "method"
    """What becomes common to all clients. `method`: as the method says; `none`: nothing; `online`: online models;
    `online_and_momentum`: momentum models too; `momentum_reset`: momentum models become the mean online model."""
    momentum_every: Positive = 1
    """Momentum models are aligned at every so-manieth synchronisation of the run."""
    momentum_compression: Literal["none", "int8", "topk"] = "none"
    """How updates of momentum models travel, with error feedback both ways: in full, as 8-bit integers, or the largest
    numbers only."""
    momentum_topk: Fraction = 0.05
    """`topk` only: share of each parameter tensor's numbers that travels."""
    aligned_layers: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Layers of the client's part that are aligned, for example ["stem", "block1"]; the others stay with each client.
    Empty = all."""


class Evaluation(Section):
    """How the encoder is judged. Features are those of the global client model and the main server."""

    every: Annotated[int, Field(ge=0)] = 1
    """Epochs between kNN evaluations; 0 = only at the end."""
    neighbours: Positive = 200
    """Neighbours of the weighted kNN classifier."""
    knn_temperature: Annotated[float, Field(gt=0.0)] = 0.1
    """Votes are weighted by exp(similarity / this)."""
    bank_images: Positive | None = None
    """Training images in the kNN bank of the evaluations during the run; empty = all. The last one uses all."""
    linear_probe: bool = True
    """Train a linear classifier on frozen features at the end."""
    probe_l2: tuple[Annotated[float, Field(gt=0.0)], ...] = (1e-3,)
    """L2 penalties of the probe; more than one needs `data.validation_images` to choose by."""
    probe_iterations: Positive = 200
    """L-BFGS iterations of the probe."""
    label_shares: tuple[Fraction, ...] = ()
    """At the end, linear probes fitted with these shares of the training labels only, equally many of each class, for
    example [0.01, 0.1]; empty = none. The penalty is chosen as for `probe_l2`."""
    published_probe: bool = False
    """At the end, the published probes too: linear on all labels, and a two-layer head on each of `label_shares`. They
    report the best test accuracy of 100 epochs, which is optimistic, and the last one's beside it."""
    fine_tune_share: Fraction | None = None
    """At the end, fine-tune the whole encoder with a linear head on this share of the labels, and the untrained one;
    empty = not. Takes as long as supervised training; with more than one rank see `--patience`."""
    fine_tune_epochs: Positive = 20
    """Epochs of fine-tuning (SGD, momentum 0.9, batches of 64, no augmentation, cosine to 0)."""
    fine_tune_lr: Annotated[float, Field(gt=0.0)] = 0.05
    """Initial learning rate of fine-tuning."""
    transfer: Literal["", "embedded", "fashion-mnist", "cifar10", "cifar100", "svhn"] = ""
    """At the end, kNN and linear probe of the encoder on this other data set, resized to the views; empty = none."""
    per_client: bool = False
    """At the end, accuracy by client: kNN on test images of its classes, and a linear probe fitted on its images."""

    @property
    def further(self) -> tuple[str, ...]:
        """Settings that ask for more than kNN and linear probe."""
        names = ("label_shares", "published_probe", "fine_tune_share", "transfer", "per_client")
        return tuple(f"evaluation.{name}" for name in names if getattr(self, name))

    def plain(self) -> Evaluation:
        """The same without these."""
        return Evaluation(**{name: value for name, value in self if f"evaluation.{name}" not in self.further})


ADDED: Final = (
    "evaluation.label_shares", "evaluation.published_probe", "evaluation.fine_tune_share",
    "evaluation.fine_tune_epochs", "evaluation.fine_tune_lr", "evaluation.transfer", "evaluation.per_client",
    "client.local_epochs",
)  # fmt: skip
"""Settings that files of schema 1.1 and earlier lack. At its default such a setting has no place in the canonical text:
the hash of an experiment outlives new settings, and a run begun before them can be continued."""


class Compute(Section):
    """How the experiment is computed. These settings can change the last bits of a result, never its meaning."""

    precision: Literal["auto", "bf16", "fp32", "fp64"] = "auto"
    """Number format. `bf16`: activations and exchange in bfloat16, weights, logits and loss in float32; `auto`: `bf16`
    where the processor computes in it, otherwise `fp32`."""
    backend: Literal["auto", "fused", "stacked", "loop"] = "auto"
    """`fused`: compiled kernels, a block of clients at once; `stacked`: the same through torch; `loop`: one client
    after the other; `auto`: `fused` where a compiler is found and the network fits, otherwise `stacked`."""
    block_size: Positive | None = None
    """Clients per block, whoever computes it; empty = a sixteenth of the pool, at least 1 and at most 16."""
    server_threads: Positive | None = None
    """Torch threads of the main server; empty = all cores that rank 0 may use."""
    host_threads: Positive = 1
    """Torch threads of each rank that hosts clients."""


class Config(Section):
    """One experiment, complete."""

    method: Method = "mocosfl"
    """Published method: `mocosfl` averages the clients' online models, `monacosfl` their momentum models too;
    `fl_moco`, `fl_byol`, `fl_simclr`, `fl_simsiam` average whole networks; `central` is one client with all images."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1234
    """Seed of every random stream."""
    epochs: Positive = 10
    """Epochs. In one epoch each client of the pool passes once over a mean client's images."""
    steps_per_epoch: Positive | None = None
    """Steps per epoch; empty = images per client (mean, rounded up) / batch size (rounded up), times
    `client.local_epochs`."""
    data: Data = Data()
    partition: Partition = Partition()
    views: Views = Views()
    model: Model = Model()
    contrast: Contrast = Contrast()
    server: Server = Server()
    client: Client = Client()
    federation: Federation = Federation()
    evaluation: Evaluation = Evaluation()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        self._consistent_model()
        pool = self.pool_size
        if pool < 1:
            raise ValueError(
                f"client.sampling_ratio = {self.client.sampling_ratio} of client.count = {self.client.count} clients "
                f"leaves an empty pool; raise one of them"
            )
        if self.whole_network:
            self._without_server()
        elif not self.contrast.share_features and self.contrast.memory_length < self.client.count:
            raise ValueError(
                f"contrast.memory_length = {self.contrast.memory_length} shared out among client.count = "
                f"{self.client.count} private memories leaves them empty; raise memory_length to at least "
                f"{self.client.count}, or set contrast.share_features = true"
            )
        micro_batch = self.server.micro_batch
        if not self.contrast.share_features and micro_batch and micro_batch % self.rows_per_client:
            raise ValueError(
                f"server.micro_batch = {micro_batch} must hold whole clients when memories are private; choose "
                f"a multiple of {self.rows_per_client} rows"
            )
        if len(self.evaluation.probe_l2) > 1 and self.data.validation_images == 0:
            raise ValueError(
                f"evaluation.probe_l2 = {list(self.evaluation.probe_l2)} needs a choice; data.validation_images = 0 "
                f"leaves nothing to choose by; hold out some images or name one penalty"
            )
        if not self.evaluation.probe_l2:
            raise ValueError("evaluation.probe_l2 is empty; name at least one penalty, for example [1e-3]")
        self._check_alignment()
        self._check_sampling(pool)
        shares = self.evaluation.label_shares
        if len(set(shares)) < len(shares):
            raise ValueError(f"evaluation.label_shares = {list(shares)} names a share twice; name each once")
        if self.evaluation.transfer == self.data.source:
            raise ValueError(
                f"evaluation.transfer = {self.evaluation.transfer!r} is data.source itself; name another data set, or "
                f"leave it empty"
            )
        if self.data.source == "image-folder" and not (self.data.folder and self.data.image_size):
            raise ValueError("data.source = image-folder needs data.folder and data.image_size")
        return self

    def _consistent_model(self) -> None:
        model, last = self.model, entries(self.model.backbone)
        if model.cut_layer > last:
            raise ValueError(
                f"model.cut_layer = {model.cut_layer} lies beyond {model.backbone}, which has {last} entries; "
                f"choose 1 to {last}"
            )
        if not model.client_residual and model.backbone in NO_SHORTCUTS:
            raise ValueError(
                f"model.client_residual = false changes nothing: {model.backbone} has no shortcuts; leave it true"
            )
        if not model.weight_standardization and model.backbone in BLOCKS:
            raise ValueError(
                f"model.weight_standardization = false changes nothing: {model.backbone} has no standardised "
                f"convolutions; leave it true"
            )
        if self.server.micro_batch is None:
            return
        if model.head == "largeV2":
            raise ValueError(
                "server.micro_batch changes the statistics of the BatchNorm in model.head = largeV2; "
                "leave it empty, or use head V2"
            )
        if model.client_residual and model.cut_layer < LAST_BATCH_NORM.get(model.backbone, 0):
            raise ValueError(
                f"server.micro_batch changes the statistics of the BatchNorm in {model.backbone}; leave it empty, "
                f"or use mobilenetv2"
            )

    def _without_server(self) -> None:
        name = f"method = {self.method}: clients hold the whole network"
        if self.model.bottleneck:
            raise ValueError(
                f"{name}, and there is no cut for model.bottleneck = {self.model.bottleneck!r}; leave it out"
            )
        if self.client.frozen:
            raise ValueError(f"{name}, and nothing would learn with client.frozen = true; leave it out")
        if self.client.gradient_scale != "published":
            raise ValueError(f"{name}, and their losses are their own; leave client.gradient_scale out")
        if self.method in IN_BATCH and self.contrast.symmetric == "off":
            raise ValueError(
                f"method = {self.method} compares two views; contrast.symmetric = off is impossible with it"
            )
        if self.method == "fl_simclr" and self.client.batch_size == 1:
            raise ValueError("method = fl_simclr has the batch as negatives; raise client.batch_size to 2 or more")
        if self.method == "central" and self.client.count != 1:
            raise ValueError(
                f"method = central is one client that owns all images, not client.count = {self.client.count}; "
                f"set client.count = 1 and partition.kind = iid"
            )

    def _check_alignment(self) -> None:
        """Refuse settings of the alignment that would have no effect (ValueError)."""
        federation = self.federation
        strategy = ALIGNED[self.method] if federation.alignment == "method" else federation.alignment
        changes = [
            f"federation.{name} = {getattr(federation, name)!r}"
            for name in ("momentum_every", "momentum_compression")
            if getattr(federation, name) != Federation.model_fields[name].default
        ]
        if self.method in IN_BATCH and (changes or strategy in MOMENTUM_ALIGNED):
            named = [*([f"federation.alignment = {strategy!r}"] if strategy in MOMENTUM_ALIGNED else []), *changes]
            raise ValueError(
                f"{' and '.join(named)} speaks of momentum models, and clients of method = {self.method!r} have none; "
                f"set federation.alignment to online or none and leave momentum_every and momentum_compression out, or "
                f"choose method = fl_moco or fl_byol"
            )
        if changes and strategy != "online_and_momentum":
            raise ValueError(
                f"{' and '.join(changes)} of momentum models that are not averaged (method = {self.method!r}, "
                f"federation.alignment = {federation.alignment!r}); set federation.alignment = online_and_momentum"
            )
        if federation.aligned_layers and strategy == "none":
            raise ValueError(
                "federation.aligned_layers of federation.alignment = none; name what is aligned with "
                "federation.alignment, or leave aligned_layers empty"
            )
        if strategy == "none" and self.client.velocity_at_sync != "kept":
            raise ValueError(
                f"client.velocity_at_sync = {self.client.velocity_at_sync!r} belongs to the averaging of models, and "
                f"federation.alignment = none averages none; set velocity_at_sync = kept"
            )
        if self.client.frozen and (changes or federation.aligned_layers or federation.alignment != "method"):
            raise ValueError(
                "client.frozen = true synchronises no model, so nothing in federation can choose what is aligned; set "
                "client.frozen = false, or leave alignment, momentum_every, momentum_compression and aligned_layers out"
            )

    def _check_sampling(self, pool: int) -> None:
        """Refuse a trace that is missing, unused, ragged, or leaves a pool short in any epoch (ValueError)."""
        rows, trace = self.client.availability, self.client.sampling == "trace"
        if trace != bool(rows):
            raise ValueError(
                'client.sampling = trace needs client.availability, for example ["110", "011"]'
                if trace
                else f"client.availability is for client.sampling = trace, which is {self.client.sampling!r}"
            )
        if not trace:
            return
        if len({len(row) for row in rows}) > 1:
            raise ValueError("client.availability has rows of different lengths; write one character per epoch in each")
        if len(rows) > self.client.count:
            raise ValueError(
                f"client.availability has {len(rows)} rows for client.count = {self.client.count} clients; "
                f"leave out those that nobody follows"
            )
        followers = [len(range(index, self.client.count, len(rows))) for index in range(len(rows))]
        for epoch in range(min(self.epochs, len(rows[0]))):
            there = sum(count for row, count in zip(rows, followers, strict=True) if row[epoch] == "1")
            if there < pool:
                raise ValueError(
                    f"client.availability leaves {there} of {self.client.count} clients in epoch {epoch}, and a pool "
                    f"takes {pool}; lower client.sampling_ratio to at most {there / self.client.count:.4g}, or "
                    f"let more clients be there"
                )

    @property
    def whole_network(self) -> bool:
        """Whether clients hold the whole network: no cut, no main server."""
        return self.method in WHOLE_NETWORK

    @property
    def both_roles(self) -> bool:
        """Whether each client feeds both views to both of its encoders."""
        return self.contrast.symmetric == "both_views" or (self.whole_network and self.contrast.symmetric != "off")

    @property
    def transfer_data(self) -> Data | None:
        """The data set of ``evaluation.transfer``, whole; None where no transfer is wanted."""
        if not self.evaluation.transfer:
            return None
        return Data(source=self.evaluation.transfer, allow_unofficial=self.data.allow_unofficial)

    @property
    def pool_size(self) -> int:
        """Clients that take part in an epoch: P = int(ratio · N), as published."""
        return int(round(self.client.sampling_ratio * self.client.count, 9))

    @property
    def block_size(self) -> int:
        """Lanes of a block: set, or derived from the pool alone, so that it never depends on the ranks."""
        return self.compute.block_size or min(16, max(1, self.pool_size // 16))

    @property
    def rows_per_client(self) -> int:
        """Rows that one client sends per step and encoder: B, or 2B when both views take both roles."""
        return self.client.batch_size * (2 if self.both_roles else 1)

    def computed(self, precision: str, backend: str) -> Config:
        """The same configuration with `auto` replaced by what the machine gave: what is recorded with the results."""
        return self.model_copy(
            update={"compute": self.compute.model_copy(update={"precision": precision, "backend": backend})}
        )

    def hash(self) -> str:
        """sha256 of the canonical JSON text of this configuration."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def canonical(self) -> str:
        """The configuration as JSON with sorted keys: what is hashed and stored with the results.

        It is complete but for settings of ``ADDED`` at their defaults.
        """
        values = self.model_dump(mode="json")
        for name in ADDED:
            section, key = name.split(".")
            group = getattr(self, section)
            if getattr(group, key) == type(group).model_fields[key].default:
                del values[section][key]
        return json.dumps(values, sort_keys=True, separators=(",", ":"))


# ---------------------------------------------------------------------------------------------------- reading


def parse(values: Mapping[str, Any], origin: str) -> Config:
    """Validate nested values into a Config.

    Raises
    ------
    BadInput
        Naming each offending key, its value and the remedy.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise BadInput(f"{origin}: " + "; ".join(lines)) from None


def _explain(item: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in item["loc"] if not str(part).startswith("function-"))
    if item["type"] == "extra_forbidden":
        known = [name for name, _, _ in settings()] + list(Config.model_fields)
        close = difflib.get_close_matches(path, known, n=1, cutoff=0.5) or [
            name for name in known if name.rpartition(".")[2] == path.rpartition(".")[2]
        ]
        hint = f"; did you mean {close[0]!r}?" if close else "; `mocosfl presets quickstart` lists all keys"
        return f"unknown key {path!r}{hint}"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{path} = {item['input']!r}: {message}" if path else message


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file into nested values; a syntax error or unreadable file is bad input."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the configuration {path}: {error}") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError; huge numbers raise a plain one
        raise BadInput(f"{path} is not valid TOML: {error}") from None
    if _deeper(values, DEEPEST):
        raise BadInput(f"{path} has tables in tables over more than {DEEPEST} levels; a configuration has two")
    return values


def _deeper(values: Any, most: int) -> bool:
    """Whether there are more than ``most`` levels of tables and lists: what recurses over them would fail."""
    level = [values]
    for _ in range(most):
        insides = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in insides if isinstance(inner, dict | list)]
    return bool(level)


def apply_settings(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return ``values`` with ``a.b=v`` assignments laid over them.

    v is TOML, or a bare word taken as a string; ``a.b=`` returns a setting to its default.
    """
    result = copy.deepcopy(dict(values))
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip():
            raise BadInput(f"--set {assignment!r}: expected section.key=value, for example --set model.cut_layer=2")
        value = _value(text)
        if isinstance(value, dict):
            raise BadInput(f"--set {assignment!r}: set one key at a time, for example --set client.count=4")
        *sections, key = name.strip().split(".")
        target = result
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise BadInput(f"--set {assignment!r}: {section!r} is a value, not a section")
        if value is None:
            target.pop(key, None)
        else:
            target[key] = value
    return result


def _value(text: str) -> Any:
    """A TOML value, a bare word as a string, or None for nothing (the setting's default)."""
    if not text.strip():
        return None
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text.strip()
    return parsed["value"] if len(parsed) == 1 else text


# --------------------------------------------------------------------------------------------------- printing


def settings() -> Iterator[tuple[str, str, Any]]:
    """Every setting as ``(dotted name, description, default)``, in the order of the file."""
    for name, field in Config.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Section):
            for key, inner in type(default).model_fields.items():
                yield f"{name}.{key}", " ".join((inner.description or "").split()), inner.default
        else:
            yield name, " ".join((field.description or "").split()), default


def to_toml(config: Config, title: str = "") -> str:
    """The complete configuration as commented TOML that ``mocosfl run`` accepts; unset values stand commented out."""
    lines = [f"# {line}" for line in title.splitlines()]
    section = ""
    for name, description, _ in settings():
        head, _, key = name.rpartition(".")
        if head != section:
            section = head
            group = getattr(config, head)
            lines += ["", f"# {(type(group).__doc__ or '').splitlines()[0]}", f"[{head}]"]
        value = getattr(getattr(config, head), key) if head else getattr(config, key)
        lines.append(f"# {description}")
        lines.append(f"# {key} =" if value is None else f"{key} = {_toml_value(value)}")
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
