"""The probes of the published code on frozen features, with their quirks; ours are `linear_probe` and `few_labels`.

``linear_eval`` and ``semisupervise_eval`` of the code published with Li et al., *MocoSFL*, ICLR 2023: a head is trained
with Adam for 100 epochs in batches of 128, in one fixed order of the images, without augmentation.

Two quirks make the numbers theirs. The learning rate is stepped per batch where epochs were meant: the linear probe's
cosine oscillates with a period of 50 batches, the two-layer head's has fallen to a hundredth after 80 batches. And the
best test accuracy of the epochs is reported, which selects on the test images and is optimistic; that of the last epoch
is given beside it. Features are computed once here, and at every epoch there: with a frozen encoder and no
augmentation that is the same. Not taken over: the encoder is the global one at the end of training, where the published
code takes client 0's at the epoch of the best kNN accuracy on the test images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl_mpi.evaluation.checks import Labelled, check_features
from mocosfl_mpi.schedules import learning_rate
from mocosfl_mpi.split.layers import initialise, seeded
from mocosfl_mpi.streams import Streams

EPOCHS, BATCH, RATE = 100, 128, 1e-3
_HALF_PERIOD = 25
_HIDDEN = 512


@dataclass(frozen=True)
class Reached:
    """Test accuracies in %: the best of all epochs, chosen on the test images, and the last epoch's."""

    best: float
    last: float


def published_linear(train: Labelled, test: Labelled, classes: int, streams: Streams) -> Reached:
    """The linear probe: Xavier weights; Adam, whose rate follows a cosine with T_max = 25 *batches* and rises again."""
    with seeded(streams.torch_seed("published linear probe")):
        head = nn.Linear(train.features.shape[1], classes)
        initialise(head)
    order = streams.generator("published linear probe").permutation(len(train.labels))
    return _fit(
        head,
        Labelled(train.features[order], train.labels[order]),
        test,
        classes,
        lambda step: learning_rate("cosine", RATE, step, _HALF_PERIOD, 1.0),
    )


def published_few_labels(train: Labelled, test: Labelled, classes: int, share: float, streams: Streams) -> Reached:
    """The semi-supervised probe with ``share`` of the labels, drawn at random from all classes together.

    Head: linear to 512 units, BatchNorm, ReLU, linear. The rate is a tenth from batch 60 and a hundredth from batch
    80 on. A last batch of a single image, of which BatchNorm can make nothing, is left out.
    """
    with seeded(streams.torch_seed("published few labels")):
        head = nn.Sequential(
            nn.Linear(train.features.shape[1], _HIDDEN), nn.BatchNorm1d(_HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, classes)
        )
        initialise(head)
    count = max(2, round(share * len(train.labels)))
    order = streams.generator("published few labels").permutation(len(train.labels))[:count]
    if count % BATCH == 1:
        order = order[:-1]
    return _fit(
        head,
        Labelled(train.features[order], train.labels[order]),
        test,
        classes,
        lambda step: learning_rate("multi_step", RATE, step, EPOCHS, 0.1),
    )


def _fit(head: nn.Module, train: Labelled, test: Labelled, classes: int, rate: Callable[[int], float]) -> Reached:
    """Train ``head`` on features in their order, the rate being that of the batch; test it after every epoch."""
    check_features("training", *train, classes)
    check_features("test", *test, classes)
    inputs, queries = train.features.float(), test.features.float()
    optimiser = torch.optim.Adam(head.parameters(), lr=RATE)
    reached, step = [], 0
    for _ in range(EPOCHS):
        head.train()
        for rows, labels in zip(inputs.split(BATCH), train.labels.split(BATCH), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate(step)
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(head(rows), labels).backward()
            optimiser.step()
            step += 1
        head.eval()
        reached.append(_top1(head, queries, test.labels))
    return Reached(max(reached), reached[-1])


@torch.no_grad()
def _top1(head: nn.Module, queries: Tensor, labels: Tensor) -> float:
    return 100.0 * int((head(queries).argmax(dim=1) == labels).sum()) / len(labels)
