"""What a run may ask about its encoder beyond kNN and linear probe: each measure only where a setting asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mocosfl_mpi.config import Evaluation
from mocosfl_mpi.data.images import Dataset, Images, with_channels
from mocosfl_mpi.evaluation.checks import Labelled
from mocosfl_mpi.evaluation.features import Prepare, extract
from mocosfl_mpi.evaluation.few_labels import balanced
from mocosfl_mpi.evaluation.fine_tuning import fine_tune
from mocosfl_mpi.evaluation.knn import knn_hits, knn_top1
from mocosfl_mpi.evaluation.linear_probe import linear_probe
from mocosfl_mpi.evaluation.per_client import Parts, client_top1, personalised_top1
from mocosfl_mpi.evaluation.published import published_few_labels, published_linear
from mocosfl_mpi.streams import Streams

Measures = Mapping[str, Any]
"""Name in the record, below ``result/``, to % or a list of %."""


@dataclass(frozen=True)
class Subject:
    """The encoder that is judged: its features, how it makes others, and how to get a copy that may be trained."""

    train: Labelled
    test: Labelled
    held_out: Labelled | None
    features: Callable[[Tensor], Tensor]
    """Prepared images ``[n, C, H, W]`` to features ``[n, f]``."""
    copy: Callable[[], nn.Module]
    """The same as a plain module in the type of its weights, which shares none of them with the run."""


class Further:
    """Measures encoders as the configuration asks. All random draws come from streams of their own.

    ``train`` and ``test`` are the images behind a subject's features, ``parts`` each client's indices into ``train``,
    ``transfer`` the other data set where one is asked for.
    """

    def __init__(
        self,
        settings: Evaluation,
        train: Images,
        test: Images,
        classes: int,
        parts: Parts,
        transfer: Dataset | None,
        prepare: Prepare,
        streams: Streams,
    ) -> None:
        self._settings = settings
        self._train = train
        self._test = test
        self._classes = classes
        self._parts = parts
        self._transfer = transfer
        self._prepare = prepare
        self._streams = streams

    def measure(self, subject: Subject) -> dict[str, Any]:
        """Everything that is asked for, by its name in the record; nothing where nothing is.

        Raises
        ------
        RunFailed
            A feature is NaN or infinite.
        """
        settings = self._settings
        found: dict[str, Any] = {}
        if settings.label_shares:
            found["few_labels_top1"] = [self._few_labels(subject, share) for share in settings.label_shares]
        if settings.published_probe:
            found |= self._published(subject)
        if settings.fine_tune_share is not None:
            found["fine_tuned_top1"] = self._fine_tuned(subject, settings.fine_tune_share)
        if self._transfer is not None:
            found |= self._transferred(subject, self._transfer)
        if settings.per_client:
            found |= self._by_client(subject)
        return found

    def _few_labels(self, subject: Subject, share: float) -> float:
        rows = torch.from_numpy(balanced(self._train.labels, share, self._streams))
        few = Labelled(subject.train.features[rows], subject.train.labels[rows])
        return self._probe(few, subject.test, subject.held_out, self._classes)

    def _published(self, subject: Subject) -> Measures:
        train, test, classes, streams = subject.train, subject.test, self._classes, self._streams
        linear = published_linear(train, test, classes, streams)
        found: dict[str, Any] = {"published_linear_top1": linear.best, "published_linear_last_top1": linear.last}
        if shares := self._settings.label_shares:
            few = [published_few_labels(train, test, classes, share, streams) for share in shares]
            found["published_few_labels_top1"] = [reached.best for reached in few]
            found["published_few_labels_last_top1"] = [reached.last for reached in few]
        return found

    def _fine_tuned(self, subject: Subject, share: float) -> float:
        settings = self._settings
        labelled = self._train.take(balanced(self._train.labels, share, self._streams))
        return fine_tune(
            subject.copy(),
            labelled,
            self._test,
            self._classes,
            self._prepare,
            settings.fine_tune_epochs,
            settings.fine_tune_lr,
            self._streams,
        )

    def _transferred(self, subject: Subject, data: Dataset) -> Measures:
        """The frozen encoder sees the other images as it saw its own: same channels, size and normalisation."""
        channels = self._train.pixels.shape[1]

        def encoded(images: Images) -> Labelled:
            pixels = torch.from_numpy(with_channels(images, channels).pixels)
            return Labelled(extract(subject.features, pixels, self._prepare), torch.from_numpy(images.labels))

        train, test, held_out = encoded(data.train), encoded(data.test), None
        settings, classes = self._settings, data.class_count
        nearest = knn_top1(*train, *test, classes, settings.neighbours, settings.knn_temperature)
        if len(settings.probe_l2) > 1 and subject.held_out is not None:
            order = self._streams.generator("transfer validation").permutation(len(train.labels))
            aside = min(len(subject.held_out.labels), len(order) // 2)
            train, held_out = (
                Labelled(train.features[rows], train.labels[rows]) for rows in (order[aside:], order[:aside])
            )
        return {
            "transfer_knn_top1": nearest,
            "transfer_linear_top1": self._probe(train, test, held_out, classes),
        }

    def _by_client(self, subject: Subject) -> Measures:
        settings = self._settings
        hits = knn_hits(*subject.train, *subject.test, self._classes, settings.neighbours, settings.knn_temperature)
        owned = torch.zeros(len(self._parts), self._classes, dtype=torch.bool)
        for client, part in enumerate(self._parts):
            owned[client, self._train.labels[part]] = True
        personal = personalised_top1(
            subject.train,
            subject.test,
            subject.held_out,
            self._parts,
            settings.probe_l2,
            settings.probe_iterations,
        )
        return {
            "client_knn_top1": client_top1(hits, subject.test.labels, owned),
            "personalised_top1": personal,
        }

    def _probe(self, train: Labelled, test: Labelled, held_out: Labelled | None, classes: int) -> float:
        penalties: Sequence[float] = self._settings.probe_l2
        return linear_probe(*train, *test, classes, penalties, self._settings.probe_iterations, held_out).test_top1
