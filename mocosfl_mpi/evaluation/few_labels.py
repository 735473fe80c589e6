"""Which images of a training set keep their labels when only a share of the labels is to be used."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.streams import Streams


def balanced(labels: npt.NDArray[np.int64], share: float, streams: Streams) -> npt.NDArray[np.int64]:
    """Ascending indices of about ``share`` of the images with ``labels`` ``[n]``, equally many of each class.

    round(share · n) images, but at least one of each class; classes differ by at most one image, unless one has
    too few and the others make up for it. Drawn without replacement from the stream "few labels"; a smaller share is
    a part of a larger one, so that shares of one run are compared on nested sets.
    """
    random = streams.generator("few labels")
    classes = np.unique(labels)
    turn = np.empty(len(labels), dtype=np.int64)
    """The round in which an image is drawn, every class giving one image a round."""
    for label in classes:
        members = np.flatnonzero(labels == label)
        turn[random.permutation(members)] = np.arange(len(members))
    first = np.empty(int(classes[-1]) + 1, dtype=np.int64)
    first[random.permutation(classes)] = np.arange(len(classes))
    count = max(len(classes), round(share * len(labels)))
    return np.sort(np.lexsort((first[labels], turn))[:count])
