"""The groups of settings: every field with its unit, its meaning and its default."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Chance = Annotated[float, Field(ge=0.0, lt=1.0)]
Method = Literal[
    "mocosfl", "monacosfl", "fl_moco", "fl_byol", "fl_simclr", "fl_simsiam", "fedu", "fedema", "standalone", "central",
    "fedavg", "sfl_v1", "sfl_v2", "split_vanilla", "split_u_shaped", "split_vertical", "taressfl", "ressfl",
]  # fmt: skip
Backbone = Literal[
    "resnet18", "resnet34", "resnet50", "vgg11", "vgg13", "vgg16", "mobilenetv2", "mobilenetv2_published", "vit"
]


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
    """How the training images are dealt to clients. `split_vertical` gives a piece of every image to each."""

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
    rich_data: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Share of the images that the rich clients (`client.rich_share`) own together; they and the poor are dealt their
    images by `kind` among themselves. Empty = all clients are dealt images alike."""
    rich_deal: Literal["groups", "published"] = "groups"
    """`groups`: nothing is dropped but what `kind` drops; `published`: `iid` and `shards` as MocoSFL's code deals them
    to rich and poor; of `shards` that drops half of the images and more."""
    min_images: Positive = 1
    """Fewest images a client may own; `dirichlet` is redrawn at most 100 times to reach it."""


class Views(Section):
    """Augmentation that makes the two views of an image. Methods that learn from labels take one view instead: a crop
    of the image padded by an eighth of its side (4 of 32 pixels), and a flip; only `size` and `flip_probability` count
    there.
    """

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
    Methods whose clients hold the whole network (`fl_...`, `fedu`, `fedema`, `standalone`, `central`, `fedavg`) have no
    cut, and this says nothing there."""
    rich_cut_layer: Positive | None = None
    """Entries that live on rich clients (`client.rich_share`), more than `cut_layer`, which counts those of the others;
    empty = all clients have the same cut. `mocosfl` and `monacosfl` only."""
    head: Literal["V1", "smallV2", "V2", "largeV2"] = "V2"
    """Projector: V1 linear; smallV2, V2 two-layer MLP; largeV2 MLP with 4096 hidden units and BatchNorm. Methods that
    learn from labels have a linear classifier instead, and `head`, `key_dim` and `hidden_dim` say nothing there."""
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

    @property
    def between_cuts(self) -> int:
        """Entries that rich clients have and the others have not; 0 = there is one cut."""
        return self.rich_cut_layer - self.cut_layer if self.rich_cut_layer else 0


class Contrast(Section):
    """Momentum contrast: memory, temperature, momentum encoders. Says nothing to methods that learn from labels."""

    memory_length: Positive = 6000
    """Keys in the feature memory, over all clients; `fl_moco`, `standalone` and `central`: of each client."""
    share_features: bool = True
    """False gives every client a memory of its own with memory_length // clients keys. Memories of `fl_moco`,
    `standalone` and `central` are private whatever stands here."""
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
    most about 64 rows, on a GPU 256."""
    pretrained: bool = True
    """Where `client.pretrained` names an expert, begin with its main server too; false = from random weights."""


class Client(Section):
    """The simulated clients and their optimiser (SGD)."""

    count: Positive = 20
    """Simulated clients."""
    batch_size: Positive = 20
    """Images per client and step."""
    sampling_ratio: Fraction = 1.0
    """Share of the clients that takes part in an epoch, drawn afresh for each. `split_vanilla` and `split_u_shaped`
    have one client an epoch, in turns, and `split_vertical` all of them, whatever stands here."""
    sampling: Literal["uniform", "by_data", "round_robin", "trace"] = "uniform"
    """Who takes part. `uniform`: drawn alike; `by_data`: one after the other with probabilities proportional to image
    counts; `round_robin`: in turns, in one shuffled order; `trace`: drawn alike from those that `availability`
    allows."""
    availability: tuple[Annotated[str, Field(pattern="^[01]+$")], ...] = ()
    """`trace` only: rows of 1 (there) and 0 (away), all as long; client i follows row i modulo their number, epoch e
    reads column e modulo their length. For example ["110", "011"]."""
    rich_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the clients, from number 0 on, that are rich: with larger batches, more images or more layers. 0 = all
    are alike."""
    rich_batch_factor: Positive = 1
    """Batches of rich clients are so many times `batch_size`."""
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
    holds_labels: bool = False
    """`split_vertical` only: the first client has the labels of all images and sends them up with its smashed data;
    otherwise the main server has them."""
    frozen: bool = False
    """Clients never learn: no gradient is computed or sent, no model is synchronised."""
    pretrained: str = ""
    """Begin with an expert: a file that `mocosfl pretrain` wrote, or the directory in which it lies. Empty = random
    weights."""


class Federation(Section):
    """When and how the fed server averages."""

    sync_freq: Positive = 10
    """Synchronisations per epoch; one more at the end where it does not divide the steps (as published).
    `split_vanilla` and `split_u_shaped` hand over once, at the end of an epoch, whatever stands here."""
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
    divergence_threshold: Annotated[float, Field(ge=0.0)] = 0.4
    """`fedu` only: a client takes the common predictor where its encoder diverges by less (published: 0.4)."""
    divergence_target: Fraction = 0.7
    """`fedema` only: the share of its own model that a client keeps when it mixes for the first time (published:
    0.7)."""


class Reliability(Section):
    """Clients and links that fail. Every draw is of the client's own stream, and the file tells what happened."""

    client_dropout: Chance = 0.0
    """Chance that a client drops out of an epoch for which it was drawn. Nobody takes its place; one always stays."""
    query_loss: Chance = 0.0
    """Chance that a client's query data of a step is lost on the way up: the server does without the client then."""
    key_loss: Chance = 0.0
    """The same of its key data."""
    gradient_loss: Chance = 0.0
    """Chance that the gradient is lost on the way down: the server has learnt, the client does not."""
    sync_miss: Chance = 0.0
    """Chance that a client of the pool misses a synchronisation, and goes on with its own models; one never does."""

    @property
    def anything(self) -> bool:
        """Whether anything can fail."""
        return any(chance for _, chance in self)


class Communication(Section):
    """What travels between clients and main server (docs/communication.md)."""

    loss_threshold: Annotated[float, Field(ge=0.0)] = 0.0
    """Three-state saving: an epoch whose mean loss falls by less than this leads from A (everything travels) to B (no
    gradients down), from B to C (nothing, the server replays what B sent); any other leads back to A. 0 = off."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 10
    """First epochs after which the state is A whatever their loss (published: 10)."""
    replay_mib: Positive = 1024
    """Most memory of rank 0 for smashed data to be replayed, in MiB of 2^20 bytes; a run that needs more is refused."""
    download_every: Positive = 1
    """Gradients come down at every so-manieth step of the run; in the others clients only send."""
    smashed: Literal["none", "bf16", "int8", "topk"] = "none"
    """How each sample's smashed data travel: in full, as bfloat16, as 8-bit integers with a scale, or the largest
    numbers only."""
    gradient: Literal["none", "bf16", "int8", "topk"] = "none"
    """The same of the gradients that come down."""
    topk: Fraction = 0.05
    """`topk` only: share of a sample's numbers that travels."""


class Defence(Section):
    """What clients do against those who would draw images from their smashed data (docs/defences.md).

    Before these leave, query and key data alike, in this order: move against a decoder, clip, add noise, drop elements,
    keep the largest, quantise. Evaluations send nothing. In training: `nopeek` and `resistance`. `taressfl` resists in
    the first stage, `mocosfl pretrain`, and its frozen clients no more.
    """

    adversarial: Annotated[float, Field(ge=0.0)] = 0.0
    """Every number is moved by so much against the client's own decoder, which `resistance` trains: z - ε·sign of the
    similarity's derivative; 0 = off."""
    clip: Annotated[float, Field(gt=0.0)] | None = None
    """Largest L2 norm of a sample's smashed data, which longer ones are scaled down to; empty = not clipped."""
    noise: Literal["none", "gaussian", "laplace"] = "none"
    """Noise on every number that is sent. Differential privacy of what is sent only with `gaussian` and `clip`; without
    `clip` it is additive noise, and no guarantee."""
    noise_scale: Annotated[float, Field(ge=0.0)] = 0.0
    """Standard deviation of `gaussian` noise, scale b of `laplace`, in the units of the smashed data."""
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-5
    """The δ at which ε is given where there is differential privacy."""
    dropout: Chance = 0.0
    """Chance that a number is sent as zero; the others are not scaled up."""
    keep_share: Fraction = 1.0
    """Share of the numbers that is sent, the others as zeros."""
    keep: Literal["per_sample", "published"] = "per_sample"
    """Which ones. `per_sample`: the largest magnitudes of each sample; `published`: the largest signed numbers of a
    client's whole batch, as ResSFL's code."""
    levels: Annotated[int, Field(ge=2, le=65536)] | None = None
    """Values to which each sample is quantised, evenly from its smallest to its largest number; empty = not at all."""
    nopeek: Annotated[float, Field(ge=0.0)] = 0.0
    """NoPeek: weight of the distance correlation between images and smashed data of a client's batch in the client's
    loss; 0 = off."""
    resistance: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight λ of the resistance term: each client trains a decoder to draw its images from its smashed data, and
    learns to keep their similarity (SSIM, zero-padded) down. 0 = off."""
    resistance_ssim: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.6
    """Similarity τ up to which a batch's mean adds nothing (published: 0.6; ResSFL 0.5; 0: whatever is above 0)."""
    resistance_decoder: Annotated[str, Field(pattern=r"^(res|conv)_normN\d+C\d+$")] = "res_normN4C64"
    """The client's decoder: `res_normN<N>C<C>` or `conv_normN<N>C<C>`, N blocks of C channels. With batches below 20
    it has GroupNorm and standardised convolutions, otherwise BatchNorm, as published."""
    resistance_steps: Positive = 1
    """Steps (Adam) of the decoder in a batch in which it learns."""
    resistance_every: Positive = 1
    """The decoder learns in every so-manieth batch of a client (published: 1; when ResSFL transfers, 5)."""
    resistance_lr: Annotated[float, Field(gt=0.0)] = 1e-3
    """Learning rate of the decoder, constant."""

    @property
    def anything(self) -> bool:
        """Whether anything is defended."""
        return self != type(self)()

    @property
    def private(self) -> bool:
        """Whether what is sent is differentially private: a Gaussian mechanism of bounded sensitivity."""
        return self.clip is not None and self.noise == "gaussian"


class Pretraining(Section):
    """The first stage, `mocosfl pretrain`: one proxy client, the server's expert, learns before anybody else does."""

    auxiliary: Literal["", "embedded", "fashion-mnist", "cifar10", "cifar100", "svhn"] = ""
    """The expert's data set, beside which it may have a share of the target's (`data.source`); empty = none."""
    auxiliary_images: Positive | None = None
    """Images of its training split to use, drawn without replacement; empty = all."""
    target_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the target's training images, drawn alike and without labels, that the expert has (published: 0, 0.005
    and 0.01). Every batch is then half of target, half of auxiliary images."""
    epochs: Positive = 200
    """Epochs. In one the expert passes once over the auxiliary images."""
    batch: Positive = 128
    """Images of a batch of each kind: twice as many in all where there are target images."""
    lr: Annotated[float, Field(gt=0.0)] = 0.06
    """Initial learning rate of both sides of the expert (SGD as `client` and `server` have it, cosine to 0)."""
    choose: Literal["last", "knn"] = "last"
    """Which expert is kept. `last`: of the last epoch; `knn`: of the best kNN accuracy, as published, which is a
    selection by labels, and blind to what images can be drawn."""
    expert: bool = False
    """Set by `mocosfl pretrain`: this run is the first stage."""


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
    own_models: Annotated[int, Field(ge=0)] | None = None
    """At the end, kNN and linear probe of the models of so many clients, evenly spread, where clients have models of
    their own; empty = 5 for `fedema` and `standalone`, else none. `standalone` is judged by them alone."""

    @property
    def further(self) -> tuple[str, ...]:
        """Settings that ask for more than kNN and linear probe."""
        names = ("label_shares", "published_probe", "fine_tune_share", "transfer", "per_client")
        return tuple(f"evaluation.{name}" for name in names if getattr(self, name))

    def plain(self) -> Evaluation:
        """The same without these."""
        return Evaluation(**{name: value for name, value in self if f"evaluation.{name}" not in self.further})


class Compute(Section):
    """How the experiment is computed. These settings can change the last bits of a result, never its meaning."""

    device: Literal["cpu", "cuda"] = "cpu"
    """`cpu`: on processors; `cuda`: clients and main server on the GPUs of each node, which ranks share in turn."""
    precision: Literal["auto", "bf16", "fp32", "fp64"] = "auto"
    """Number format. `bf16`: activations and exchange in bfloat16, weights, logits and loss in float32; `auto`: `bf16`
    where the device computes in it, otherwise `fp32`."""
    backend: Literal["auto", "fused", "stacked", "loop"] = "auto"
    """`fused`: compiled kernels, a block of clients at once; `stacked`: the same through torch; `loop`: one client
    after the other; `auto`: `fused` where a compiler is found and the network fits, on processors only, otherwise, and
    with `compile`, `stacked`."""
    compile: bool = False
    """Let torch.compile generate the code of `stacked`, for clients and main server: fewer and larger kernels, so less
    waiting for launches on a GPU. Every new size of a block or of the server's passes is compiled first, which takes
    seconds to minutes."""
    block_size: Positive | None = None
    """Clients per block, whoever computes it; empty = 24 equal blocks (or a multiple of it, so that none has more than
    16 clients; or one per client in a smaller pool), which the usual numbers of hosts share evenly."""
    server_threads: Positive | None = None
    """Torch threads of the main server; empty = all cores that rank 0 may use."""
    host_threads: Positive = 1
    """Torch threads of each rank that hosts clients."""
    pipeline: Literal["auto", "on", "off"] = "auto"
    """`on`: the server begins with the first clients' smashed data while hosts compute the next ones, and gradients
    come back as they are ready; `off`: all at once; `auto`: `on` where the ranks of its node leave the server cores of
    its own. The same bits; nothing changes with one rank, or where clients learn from labels."""


ADDED: Final = (
    "evaluation.label_shares", "evaluation.published_probe", "evaluation.fine_tune_share",
    "evaluation.fine_tune_epochs", "evaluation.fine_tune_lr", "evaluation.transfer", "evaluation.per_client",
    "client.local_epochs", "client.sampling", "client.availability", "client.holds_labels",
    "federation.alignment", "federation.momentum_every", "federation.momentum_compression", "federation.momentum_topk",
    "federation.aligned_layers", "federation.divergence_threshold", "federation.divergence_target",
    "evaluation.own_models",
    "reliability.client_dropout", "reliability.query_loss", "reliability.key_loss", "reliability.gradient_loss",
    "reliability.sync_miss",
    "client.rich_share", "client.rich_batch_factor", "partition.rich_data", "partition.rich_deal",
    "communication.loss_threshold", "communication.warmup_epochs", "communication.replay_mib",
    "communication.download_every", "communication.smashed", "communication.gradient", "communication.topk",
    "defence.clip", "defence.noise", "defence.noise_scale", "defence.delta", "defence.dropout", "defence.keep_share",
    "defence.keep", "defence.levels", "defence.nopeek", "defence.adversarial",
    "defence.resistance", "defence.resistance_ssim", "defence.resistance_decoder", "defence.resistance_steps",
    "defence.resistance_every", "defence.resistance_lr",
    "pretraining.auxiliary", "pretraining.auxiliary_images", "pretraining.target_share", "pretraining.epochs",
    "pretraining.batch", "pretraining.lr", "pretraining.choose", "pretraining.expert",
    "client.pretrained", "server.pretrained",
    "model.rich_cut_layer", "compute.device", "compute.pipeline", "compute.compile",
)  # fmt: skip
"""Settings that files of schema 1.1 and earlier lack. At its default such a setting has no place in the canonical text:
the hash of an experiment outlives new settings, and a run begun before them can be continued."""
