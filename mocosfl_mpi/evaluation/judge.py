"""How good the encoder is: kNN and linear probe, for the trained network, the untrained one and raw pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mocosfl_mpi.config import Evaluation
from mocosfl_mpi.data.images import Images
from mocosfl_mpi.evaluation.checks import Labelled
from mocosfl_mpi.evaluation.features import extract
from mocosfl_mpi.evaluation.further import Further, Subject
from mocosfl_mpi.evaluation.health import effective_rank, feature_std
from mocosfl_mpi.evaluation.knn import knn_top1
from mocosfl_mpi.evaluation.linear_probe import linear_probe
from mocosfl_mpi.split.engine import CPU, has_room

Encoder = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Prepared images ``[n, C, H, W]`` to (backbone features ``[n, f]``, projections ``[n, d]``)."""


@dataclass(frozen=True)
class Monitor:
    """kNN top-1 in % on backbone features and on projections; spread and rank of the test projections.

    ``classifier_top1``: of the network's own classifier, whose logits are the projections; None where it has none.
    """

    knn_top1: float
    knn_projector_top1: float
    feature_std: float
    effective_rank: float
    classifier_top1: float | None


@dataclass(frozen=True)
class Verdict:
    """kNN and linear-probe top-1 in % on the test split; the probe's L2, NaN where no probe was wanted."""

    knn_top1: float
    knn_projector_top1: float
    linear_top1: float
    probe_l2: float
    further: dict[str, Any] = field(default_factory=dict)
    """What else there is by the configuration, by its name in the record: the network's own classifier too."""


class Judge:
    """Measures encoders on the test split; classifiers are fitted on the training split, chosen on validation.

    kNN and probe are computed on ``device`` where it has room, otherwise and what is further measured on processors.
    ``classifies``: whether projections are the logits of a classifier that was trained with the network.
    """

    def __init__(
        self,
        settings: Evaluation,
        train: Images,
        validation: Images | None,
        test: Images,
        classes: int,
        prepare: Callable[[Tensor], Tensor],
        further: Further,
        *,
        classifies: bool = False,
        device: torch.device = CPU,
    ) -> None:
        self._settings = settings
        self._train = train
        self._validation = validation
        self._test = test
        self._classes = classes
        self._prepare = prepare
        self._further = further
        self._classifies = classifies
        self._device = device

    def monitor(self, encoder: Encoder) -> Monitor:
        """The cheap look during a run, with a bank of ``evaluation.bank_images``."""
        count = self._settings.bank_images or len(self._train)
        bank = Images(self._train.pixels[:count], self._train.labels[:count])
        bank_features, bank_projections = self._encode(encoder, bank)
        features, projections = self._encode(encoder, self._test)
        return Monitor(
            self._knn(bank_features, features, bank),
            self._knn(bank_projections, projections, bank),
            feature_std(projections),
            effective_rank(projections),
            self._classifier(projections) if self._classifies else None,
        )

    def verdict(self, encoder: Encoder, copy: Callable[[], nn.Module] | None = None) -> Verdict:
        """The full measurement: features are extracted once, then classified.

        ``copy`` gives the encoder, up to its features, as a plain module that may be trained; without it, nothing
        further is measured.
        """
        train, train_projections = self._encode(encoder, self._train)
        test, test_projections = self._encode(encoder, self._test)
        held_out = self._encode(encoder, self._validation)[0] if self._validation is not None else None
        verdict = Verdict(
            self._knn(train, test, self._train),
            self._knn(train_projections, test_projections, self._train),
            *self._probe(train, test, held_out),
        )
        if copy is None:
            return verdict
        subject = Subject(
            _labelled(train, self._train),
            _labelled(test, self._test),
            _labelled(held_out, self._validation) if held_out is not None and self._validation is not None else None,
            lambda images: encoder(images)[0],
            copy,
        )
        own = {"classifier_top1": self._classifier(test_projections)} if self._classifies else {}
        return replace(verdict, further=self._further.measure(subject) | own)

    def pixels(self) -> Verdict:
        """The same classifiers on the prepared pixels themselves, without a projector: what no encoder achieves."""

        def flat(images: Images) -> Tensor:
            return extract(lambda prepared: prepared.flatten(1), torch.from_numpy(images.pixels), self._prepare)

        train, test = flat(self._train), flat(self._test)
        held_out = flat(self._validation) if self._validation is not None else None
        return Verdict(self._knn(train, test, self._train), float("nan"), *self._probe(train, test, held_out))

    def _encode(self, encoder: Encoder, images: Images) -> tuple[Tensor, Tensor]:
        features, projections = extract(encoder, torch.from_numpy(images.pixels), self._prepare)
        return features, projections

    def _classifier(self, logits: Tensor) -> float:
        """Top-1 in % of the test images' logits."""
        return 100.0 * float((logits.argmax(dim=1) == torch.from_numpy(self._test.labels)).double().mean())

    def _knn(self, bank: Tensor, queries: Tensor, labelled: Images) -> float:
        place = self._place(bank, queries)
        return knn_top1(
            bank.to(place),
            torch.from_numpy(labelled.labels).to(place),
            queries.to(place),
            torch.from_numpy(self._test.labels).to(place),
            self._classes,
            self._settings.neighbours,
            self._settings.knn_temperature,
        )

    def _place(self, *features: Tensor) -> torch.device:
        """Where classifiers of these are computed: on the device, if they have room there in float64."""
        size = sum(part.numel() for part in features) * torch.float64.itemsize
        return self._device if has_room(self._device, size) else CPU

    def _probe(self, train: Tensor, test: Tensor, held_out: Tensor | None) -> tuple[float, float]:
        if not self._settings.linear_probe:
            return float("nan"), float("nan")
        place, validation = self._place(train, test), None
        if held_out is not None and self._validation is not None:
            validation = (held_out.to(place), torch.from_numpy(self._validation.labels).to(place))
        result = linear_probe(
            train.to(place),
            torch.from_numpy(self._train.labels).to(place),
            test.to(place),
            torch.from_numpy(self._test.labels).to(place),
            self._classes,
            self._settings.probe_l2,
            self._settings.probe_iterations,
            validation,
        )
        return result.test_top1, result.penalty


def _labelled(features: Tensor, images: Images) -> Labelled:
    return Labelled(features, torch.from_numpy(images.labels))
