"""How good the encoder is for each client: on the classes that it owns, and with what it can learn from its own images.

Both take features that were extracted once; the encoder is the global one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.evaluation.checks import Labelled
from mocosfl_mpi.evaluation.linear_probe import linear_probe

Parts = Sequence[npt.NDArray[np.int64]]
"""Indices of each client's training images."""


def client_top1(hits: Tensor, labels: Tensor, owned: Tensor) -> npt.NDArray[np.float64]:
    """Top-1 accuracy in % of one classifier for each client ``[clients]``, on the test images of its classes.

    ``hits`` bool ``[m]``: whether the classifier, which knows all classes, is right about a test image with this one of
    ``labels`` ``[m]``. ``owned`` bool ``[clients, classes]``. NaN for a client without a test image of its classes.
    """
    classes = owned.shape[1]
    right = torch.bincount(labels[hits], minlength=classes).double()
    images = torch.bincount(labels, minlength=classes).double()
    return np.asarray(100.0 * (owned.double() @ right) / (owned.double() @ images))


def personalised_top1(
    train: Labelled,
    test: Labelled,
    held_out: Labelled | None,
    parts: Parts,
    penalties: Sequence[float],
    iterations: int,
) -> npt.NDArray[np.float64]:
    """Test accuracy in % ``[clients]`` of a linear probe that each client fits on the features of its own images.

    It tells the client's classes apart and is tested on test images of these. The penalty is chosen on the ``held_out``
    images of these classes; without any, the largest is taken. NaN for a client with one class, or without test
    images of its classes.
    """
    accuracies = np.full(len(parts), np.nan)
    for client, part in enumerate(parts):
        rows = torch.from_numpy(part)
        classes = train.labels[rows].unique()
        own, asked = _among(Labelled(train.features[rows], train.labels[rows]), classes), _among(test, classes)
        if len(classes) < 2 or not len(asked.labels):
            continue
        validation = _among(held_out, classes) if held_out is not None else None
        if validation is None or not len(validation.labels):
            chosen, validation = [max(penalties)], None
        else:
            chosen = list(penalties)
        accuracies[client] = linear_probe(*own, *asked, len(classes), chosen, iterations, validation).test_top1
    return accuracies


def _among(images: Labelled, classes: Tensor) -> Labelled:
    """Those with one of ``classes`` (ascending), labelled by its place among them."""
    kept = torch.isin(images.labels, classes)
    return Labelled(images.features[kept], torch.searchsorted(classes, images.labels[kept]))
