"""Fine-tuning: the whole encoder and a fresh linear head learn from labelled images."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl_mpi.data.images import Images
from mocosfl_mpi.evaluation.features import extract
from mocosfl_mpi.schedules import learning_rate
from mocosfl_mpi.streams import Streams

BATCH, MOMENTUM, WEIGHT_DECAY = 64, 0.9, 5e-4


def fine_tune(
    encoder: nn.Module,
    train: Images,
    test: Images,
    classes: int,
    prepare: Callable[[Tensor], Tensor],
    epochs: int,
    rate: float,
    streams: Streams,
) -> float:
    """Top-1 accuracy in % on ``test`` after ``epochs`` of SGD on ``train``; NaN where the training has diverged.

    ``encoder`` maps prepared images ``[n, C, H, W]`` to features ``[n, f]``; it is changed: give a copy. The head
    starts from zero, so that the first step moves it alone. Equal batches of at most 64 images are drawn from
    the stream "fine-tuning"; there is no augmentation; the rate falls to 0 along a cosine, step by step. The last
    epoch counts, not the best.
    """
    pixels, labels = torch.from_numpy(train.pixels), torch.from_numpy(train.labels)
    first = next(encoder.parameters())
    with torch.no_grad():
        width = encoder(prepare(pixels[:1])).shape[1]
    head = nn.Parameter(torch.zeros(classes, width, dtype=first.dtype))
    bias = nn.Parameter(torch.zeros(classes, dtype=first.dtype))
    optimiser = torch.optim.SGD(
        [*encoder.parameters(), head, bias], lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    batches = -(-len(labels) // BATCH)
    encoder.train()
    for epoch in range(epochs):
        order = streams.generator("fine-tuning", epoch).permutation(len(labels))
        for number, rows in enumerate(np.array_split(order, batches)):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate("cosine", rate, epoch * batches + number, epochs * batches, 1.0)
            optimiser.zero_grad(set_to_none=True)
            loss = F.cross_entropy(F.linear(encoder(prepare(pixels[rows])), head, bias), labels[rows])
            if not math.isfinite(loss.item()):
                return math.nan
            loss.backward()
            optimiser.step()
    encoder.eval()
    scores = extract(lambda images: F.linear(encoder(images), head, bias), torch.from_numpy(test.pixels), prepare)
    if not bool(torch.isfinite(scores).all()):
        return math.nan
    return 100.0 * int((scores.argmax(dim=1) == torch.from_numpy(test.labels)).sum()) / len(test)
