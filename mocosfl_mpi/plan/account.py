"""A configuration's cost as the papers count it beside the true one, and every step from the one to the other.

Published figures are those of MocoSFL's calculator (``cost.published``), true ones those that the run's ledger will
record, computed in float32 where the configuration leaves the precision open, as the papers' code does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from mocosfl_mpi.config import Config
from mocosfl_mpi.cost.flops import EMA_FLOPS_PER_PARAMETER, OPTIMISER_FLOPS_PER_PARAMETER, kinds_of_work
from mocosfl_mpi.cost.published import (
    MEBIBYTE,
    PASSES,
    PASSES_FROZEN,
    PublishedTraffic,
    elements,
    published_megabytes,
    state,
)
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.plan.experiment import Elsewhere, Experiment, experiment
from mocosfl_mpi.plan.images import ImageSet
from mocosfl_mpi.plan.traffic import traffic
from mocosfl_mpi.record.schema import FURTHER_WORK, MESSAGES
from mocosfl_mpi.split import cut
from mocosfl_mpi.streams import Streams

FL_CLIENTS, FL_EPOCHS, FL_EPOCHS_PER_SYNC, FL_BATCH = 5, 500, 5, 128
"""The papers' federated baseline: the whole network with the head largeV2 on each of five clients."""
Steps = list[tuple[str, float]]
"""Why, and the figure as it is then; the first is the published one, the last the true one."""


@dataclass(frozen=True)
class Figures:
    """What one client spends over the training, published or true."""

    weights: float
    """Messages with models: MB of 2^20 bytes."""
    latents: float
    """Smashed data and their gradients: MB of 2^20 bytes."""
    image: float
    """Computation per image: operations, or FLOPs."""
    whole: float
    """Computation of the whole training: operations, or FLOPs."""
    share: float
    """The client's part of the computation of client and main server."""

    @property
    def total(self) -> float:
        """All messages in MB of 2^20 bytes."""
        return self.weights + self.latents


@dataclass(frozen=True)
class Scheme:
    """One row: a way to train, its cost as published and truly."""

    name: str
    published: Figures
    true: Figures


@dataclass(frozen=True)
class Cut:
    """One row of the table over cut layers."""

    cut: int
    activation: tuple[int, ...]
    parameters: int
    client_macs: int
    server_macs: int
    published: PublishedTraffic
    true: float
    """All messages of a client in MB of 2^20 bytes."""

    @property
    def floats(self) -> int:
        """Numbers in one image's smashed data."""
        return math.prod(self.activation)


class Account:
    """One configuration as the papers' calculator sees it, and as its run will find it.

    Raises
    ------
    BadInput
        The network does not fit the images or has two cuts, or the partition is impossible.
    """

    def __init__(self, config: Config, images: ImageSet) -> None:
        if config.model.rich_cut_layer:
            raise BadInput(
                f"the papers' accounting is about networks with one cut, and model.rich_cut_layer = "
                f"{config.model.rich_cut_layer} is a second one; leave it out, or ask for a plan"
            )
        self.config, self._images = config, images
        self._size = config.views.size or images.side
        self._found: Experiment = experiment(config, images, Elsewhere("fp32", fused=True))
        network = cut.build(config.model, images.channels, self._size, Streams(config.seed), torch.float32)
        self.activation = network.smashed_shape
        self._elements = elements(network)
        self._floats, self._parameters = network.smashed_floats, network.bottom_parameters
        self._state, self._state_bytes = state(network)

    @property
    def epochs(self) -> float:
        """Epochs in which a client takes part, on average."""
        return self.config.epochs * self.config.pool_size / self.config.client.count

    @property
    def images(self) -> int:
        """A mean client's images that an epoch passes over."""
        if self.config.steps_per_epoch:
            return self.config.steps_per_epoch * self.config.client.batch_size
        return -(-len(self._images.labels) // self.config.client.count)

    @property
    def syncs(self) -> int:
        """Synchronisations of a client, as ``federation.sync_freq`` says."""
        return int(self.epochs * self.config.federation.sync_freq)

    @property
    def _passes(self) -> int:
        return PASSES_FROZEN if self.config.client.frozen else PASSES

    @property
    def _operations(self) -> tuple[int, int]:
        """Count one forward pass as fvcore does: client's part, main server's part."""
        macs = (self._found.network.bottom.costs.last.macs, self._found.network.trunk.costs.last.macs)
        return macs[0] + self._elements[0], macs[1] + self._elements[1]

    @property
    def published_traffic(self) -> PublishedTraffic:
        """By the one-way formula."""
        return published_megabytes(
            self.epochs, self.images, self._floats, self._parameters, self.syncs, self.config.client.frozen
        )

    @property
    def published_computation(self) -> tuple[float, float]:
        """Operations of the client by the papers' count: per image, and of the whole training."""
        image = self._passes * self._operations[0]
        return image, image * self.epochs * self.images

    def published(self, whole_network: int) -> Figures:
        """As the papers count; ``whole_network``: operations of the FL baseline, of which the client has its share."""
        sent = self.published_traffic
        return Figures(sent.weights, sent.latents, *self.published_computation, self._operations[0] / whole_network)

    @cached_property
    def _ledger(self) -> tuple[dict[str, float], dict[str, float]]:
        """(bytes, FLOPs) by kind: mean over clients of the run."""
        sent, work = traffic(self._found)
        return (
            dict(zip(MESSAGES, sent.mean(axis=0).tolist(), strict=True)),
            dict(zip(kinds_of_work(self.config), work.mean(axis=0).tolist(), strict=True)),
        )

    @property
    def _passed(self) -> float:
        """Images that a client passes over in the run, on average: whole batches, of those who take part."""
        views = self.config.rows_per_client / self.config.client.batch_size
        return self._ledger[1]["query_forward"] / self._found.network.bottom.costs.last.forward / views

    @cached_property
    def true(self) -> Figures:
        """As the run's ledger will have it."""
        sent, work = self._ledger
        latents = sum(sent[kind] for kind in ("query_up", "key_up", "gradient_down"))
        whole = sum(work.values())
        server = sum(self._found.server_flops.values()) / (self._found.batches * self.config.client.batch_size)
        return Figures(
            weights=(sum(sent.values()) - latents) / MEBIBYTE,
            latents=latents / MEBIBYTE,
            image=whole / self._passed,
            whole=whole,
            share=whole / (whole + server * self._passed),
        )

    def row(self) -> Cut:
        """The line of this configuration in the table over cut layers."""
        network = self._found.network
        return Cut(
            cut=self.config.model.cut_layer,
            activation=self.activation,
            parameters=self._parameters,
            client_macs=network.bottom.costs.last.macs,
            server_macs=network.trunk.costs.last.macs,
            published=self.published_traffic,
            true=self.true.total,
        )

    # ------------------------------------------------------------------------------------------- differences

    def latents(self) -> Steps:
        """From the published MB of smashed data and gradients to the true ones."""
        config, sent = self.config, self.published_traffic.latents
        copies = 1 if config.client.frozen else 2
        kept = "query up" if config.client.frozen else "query up, gradient down"
        steps: Steps = [(f"published: {copies} of {copies + 1} tensors an image ({kept})", sent)]
        sent *= (copies + 1) / copies
        steps.append(("key data go up as well", sent))
        if config.rows_per_client != config.client.batch_size:
            sent *= 2
            steps.append(("both views play both roles (contrast.symmetric)", sent))
        if self._found.activation != 4:
            sent *= self._found.activation / 4
            steps.append((f"numbers of {self._found.activation} bytes (compute.precision)", sent))
        codecs = config.communication.smashed, config.communication.gradient
        sizes = self._found.sizes.step
        if codecs != ("none", "none"):
            sent *= sum(sizes.values()) / (len(sizes) * self._found.smashed_bytes)
            steps.append((f"sent by {codecs[0]}, gradients by {codecs[1]} (communication)", sent))
        every = config.communication.download_every
        if every > 1:
            sent *= 1 - sizes["gradient_down"] / sum(sizes.values()) * (1 - 1 / every)
            steps.append((f"gradients one step in {every} (communication.download_every)", sent))
        return _ended(steps, self.true.latents, "whole batches")

    def weights(self) -> Steps:
        """From the published MB of models to the true ones."""
        ledger, sent = self._ledger[0], self.published_traffic.weights
        steps: Steps = [("published: the online model, one way", sent)]
        if self.config.client.frozen:
            return steps
        sent *= self._found.weight / 4
        if self._found.weight != 4:
            steps.append((f"numbers of {self._found.weight} bytes (compute.precision)", sent))
        models = self._found.sizes.models
        aligned = sum(model.each_way for model in models if model.kind == "weights")
        share = aligned / (self._found.network.bottom.parameters * self._found.weight)
        if share != 1:
            sent *= share
            why = "only some layers are aligned (federation.aligned_layers)" if share else "no models are averaged"
            steps.append((why, sent))
        up = ledger["weights_up"] / MEBIBYTE
        if not _close(up, sent):
            steps.append(("synchronisations at the end of an epoch", up))
        if up:
            steps.append(("the mean comes down as well", 2 * up))
        more = [model.kind for model in models if model.kind != "weights"]
        if more:
            all_up = sum(ledger[f"{model.kind}_up"] for model in models) / MEBIBYTE
            steps.append((f"{' and '.join(more)} models are averaged, too", 2 * all_up))
        return _ended(steps, self.true.weights, "who was not drawn fetches the newest mean")

    def computation(self) -> Steps:
        """From the published operations per image to the true FLOPs."""
        config, cost = self.config, self._found.network.bottom.costs.last
        client = self._operations[0]
        what = "one forward pass" if config.client.frozen else "three forward passes"
        amount: float = self._passes * client
        steps: Steps = [(f"published: {what} in MACs, and elements", amount)]
        amount = self._passes * cost.macs
        steps.append(("elements of normalisations are left out", amount))
        amount *= 2
        steps.append(("a MAC is two FLOPs", amount))
        amount = 2 * cost.forward + (0 if config.client.frozen else cost.backward)
        steps.append(
            ("the key passes, too", amount)
            if config.client.frozen
            else ("the backward pass: gradients of weights and of activations", amount)
        )
        rows = config.rows_per_client / config.client.batch_size
        if rows != 1:
            amount *= rows
            steps.append(("both views play both roles (contrast.symmetric)", amount))
        further = sum(self._ledger[1].get(kind, 0.0) for kind in FURTHER_WORK) / self._passed
        if further:
            amount += further
            steps.append(("compression (federation.momentum_compression, communication)", amount))
        return _ended(steps, self.true.image, "momentum update and SGD, once a step")

    # ----------------------------------------------------------------------------------------------- the baseline

    def baseline(self) -> Scheme:
        """The papers' federated baseline with this account's backbone and images, from the whole network alone.

        Its truth: models go up and come down; both views pass both encoders and the online one backward.
        """
        operations = sum(self._operations)
        bottom, trunk = (part.costs for part in (self._found.network.bottom, self._found.network.trunk))
        images, syncs = len(self._images.labels) // FL_CLIENTS, FL_EPOCHS // FL_EPOCHS_PER_SYNC
        sent = published_megabytes(FL_EPOCHS, images, 0, self._state, syncs)
        passed, image = FL_EPOCHS * images, PASSES * operations
        published = Figures(sent.weights, sent.latents, image, image * passed, 1.0)
        update = EMA_FLOPS_PER_PARAMETER + OPTIMISER_FLOPS_PER_PARAMETER
        parameters = self._found.network.bottom.parameters + self._found.network.trunk.parameters
        one = 2 * (bottom.last.forward + trunk.last.forward) + bottom.last.backward + trunk.answering.backward
        steps = FL_EPOCHS * -(-images // FL_BATCH)
        work = 2 * one * passed + update * parameters * steps
        true = Figures(2 * syncs * self._state_bytes / MEBIBYTE, 0.0, work / passed, work, 1.0)
        return Scheme("FL-SSL", published, true)


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-9 * max(abs(a), abs(b))


def _ended(steps: Steps, true: float, why: str) -> Steps:
    """With the step to the truth, unless it is reached."""
    return steps if _close(steps[-1][1], true) else [*steps, (why, true)]
