"""How the training images are dealt to clients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.config import Partition
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.streams import Streams

Indices = npt.NDArray[np.int64]
_DIRICHLET_TRIES = 100


def partition(
    config: Partition, labels: npt.NDArray[np.int64], clients: int, classes: int, streams: Streams, rich: int = 0
) -> list[Indices]:
    """Deal images with ``labels`` int64 ``[n]`` to clients: for each its ascending indices, int64 ``[n_i]``.

    The first ``rich`` clients own `rich_data` of the images, where that is set.
    The parts are disjoint but for `overlapping`; `shards` drops remainders, `classes` the classes that nobody holds,
    `overlapping` whatever nobody draws, the others nothing. All randomness comes from the stream "partition".

    Raises
    ------
    BadInput
        A client would own fewer than `min_images` images, or the kind cannot be had with these numbers.
    """
    if clients > len(labels) and config.kind != "overlapping":
        raise BadInput(
            f"client.count = {clients} exceeds the {len(labels)} training images; "
            f"lower client.count, raise data.train_images, or let clients share images: partition.kind = 'overlapping'"
        )
    random = streams.generator("partition")
    dealt = _alike if not rich or config.rich_data is None else _DEALS[config.rich_deal]
    parts = dealt(config, labels, clients, classes, random, rich)
    smallest = min(range(clients), key=lambda client: len(parts[client]))
    if len(parts[smallest]) < config.min_images:
        raise BadInput(
            f"partition.kind = {config.kind!r} leaves client {smallest} of {clients} with "
            f"{len(parts[smallest])} images, fewer than partition.min_images = {config.min_images}; "
            f"lower client.count{_REMEDY.get(config.kind, '')} or use more images"
        )
    return [np.sort(part) for part in parts]


def counts(parts: list[Indices], labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.int64]:
    """Images of each class that each client owns: int64 ``[clients, classes]``."""
    rows = [np.bincount(labels[part], minlength=classes) for part in parts]
    return np.array(rows, dtype=np.int64).reshape(len(parts), classes)


def _iid(config: Partition, labels: Indices, clients: int, classes: int, random: np.random.Generator) -> list[Indices]:
    """Equal random parts; sizes differ by at most one."""
    del config, classes
    return np.array_split(random.permutation(len(labels)), clients)


def _shards(
    config: Partition, labels: Indices, clients: int, classes: int, random: np.random.Generator
) -> list[Indices]:
    """Label shards as published (MocoSFL's code, ``utils.noniid_alllabel``).

    The images sorted by label are cut into N·c shards of int(n/N/c) consecutive images, and each client gets
    c of them without replacement. What lies behind the last shard is dropped; a shard can straddle two classes.
    """
    del classes
    total = clients * config.classes_per_client
    size = len(labels) // total
    if size == 0:
        raise BadInput(
            f"partition.kind = 'shards' cuts {len(labels)} images into client.count × "
            f"partition.classes_per_client = {total} shards, which would be empty; "
            f"lower one of them or use more images"
        )
    shards = np.argsort(labels, kind="stable")[: total * size].reshape(total, size)
    return list(shards[random.permutation(total)].reshape(clients, -1))


def _shards_full(
    config: Partition, labels: Indices, clients: int, classes: int, random: np.random.Generator
) -> list[Indices]:
    """As `shards`, but the shards' sizes differ by at most one and nothing is dropped."""
    del classes
    each = config.classes_per_client
    shards = np.array_split(np.argsort(labels, kind="stable"), clients * each)
    dealt = random.permutation(clients * each).reshape(clients, each)
    return [np.concatenate([shards[shard] for shard in own]) for own in dealt]


def _classes(
    config: Partition, labels: Indices, clients: int, classes: int, random: np.random.Generator
) -> list[Indices]:
    """Exactly k distinct classes per client; each class is split evenly over the clients that hold it.

    A class is held by the floor or ceiling of N·k / classes clients. Taking, client by client, the k classes
    with the most places left (ties at random) always fills these places (Ryser's construction).
    """
    each = config.classes_per_client
    images = np.bincount(labels, minlength=classes)
    present = np.flatnonzero(images)
    if each > len(present):
        raise BadInput(
            f"partition.classes_per_client = {each} exceeds the {len(present)} classes of the training images; lower it"
        )
    places = np.full(len(present), clients * each // len(present))
    places[random.permutation(len(present))[: clients * each % len(present)]] += 1
    if (scarce := images[present] < places).any():
        kind = present[scarce][0]
        raise BadInput(
            f"partition.kind = 'classes' gives class {kind} to {places[scarce][0]} clients, but it has only "
            f"{images[kind]} images; lower client.count or partition.classes_per_client, or use more images"
        )
    holders: list[list[int]] = [[] for _ in present]
    left = places.copy()
    for client in range(clients):
        own = np.lexsort((random.random(len(present)), -left))[:each]
        left[own] -= 1
        for k in own:
            holders[k].append(client)
    pieces: list[list[Indices]] = [[] for _ in range(clients)]
    for label, held_by in zip(present, holders, strict=True):
        if held_by:
            shuffled = random.permutation(np.flatnonzero(labels == label))
            for client, piece in zip(held_by, np.array_split(shuffled, len(held_by)), strict=True):
                pieces[client].append(piece)
    return [np.concatenate(own) for own in pieces]


def _dirichlet(
    config: Partition, labels: Indices, clients: int, classes: int, random: np.random.Generator
) -> list[Indices]:
    """Each class is split over the clients in proportions from Dirichlet(alpha).

    Hsu, Qi, Brown, *Measuring the Effects of Non-Identical Data Distribution*, arXiv:1909.06335; redrawn
    until every client owns `min_images`, as is usual (Li et al., arXiv:2102.02079).
    """
    by_class = [random.permutation(np.flatnonzero(labels == label)) for label in range(classes)]
    fewest = 0
    for _ in range(_DIRICHLET_TRIES):
        cuts = []
        for own in by_class:
            shares = random.dirichlet(np.full(clients, config.alpha))
            # With a tiny alpha every share can underflow; then one client takes all, which is the limit.
            if not np.isfinite(shares).all():
                shares = np.eye(clients)[random.integers(clients)]
            cuts.append(np.rint(np.cumsum(shares)[:-1].clip(0, 1) * len(own)).astype(np.int64))
        pieces = [np.split(own, cut) for own, cut in zip(by_class, cuts, strict=True)]
        parts = [np.concatenate([piece[client] for piece in pieces]) for client in range(clients)]
        smallest = min(len(part) for part in parts)
        if smallest >= config.min_images:
            return parts
        fewest = max(fewest, smallest)
    raise BadInput(
        f"partition.alpha = {config.alpha} with client.count = {clients} left some client with fewer than "
        f"partition.min_images = {config.min_images} images in each of {_DIRICHLET_TRIES} draws (best: {fewest}); "
        f"raise alpha or lower client.count"
    )


def _volumes(
    config: Partition, labels: Indices, clients: int, classes: int, random: np.random.Generator
) -> list[Indices]:
    """IID classes; client i's size is proportional to (i+1)^-skew, rounded by largest remainder."""
    del classes
    shares = np.arange(1, clients + 1, dtype=np.float64) ** -config.skew
    exact = len(labels) * shares / shares.sum()
    sizes = np.floor(exact).astype(np.int64)
    order = np.argsort(sizes - exact, kind="stable")  # largest remainder first, then the lower client
    sizes[order[: len(labels) - sizes.sum()]] += 1
    return np.split(random.permutation(len(labels)), np.cumsum(sizes)[:-1])


def _overlapping(
    config: Partition, labels: Indices, clients: int, classes: int, random: np.random.Generator
) -> list[Indices]:
    """Each client draws k classes and `images_per_client` images of them, whatever others have drawn.

    For more clients than there are images: clients see the same images, as phones see the same web pages.
    """
    each, own = config.classes_per_client, config.images_per_client
    members = [found for label in range(classes) if len(found := np.flatnonzero(labels == label))]
    sizes = [len(piece) for piece in np.array_split(np.empty(own), each)]
    smallest = min(len(found) for found in members)
    if each > len(members) or each > own or sizes[0] > smallest:
        raise BadInput(
            f"partition.images_per_client = {own} of partition.classes_per_client = {each} classes: there are "
            f"{len(members)} classes with at least {smallest} images; lower one of them"
        )
    parts = []
    for _ in range(clients):
        chosen = random.choice(len(members), each, replace=False)
        parts.append(
            np.concatenate(
                [
                    members[kind][random.choice(len(members[kind]), size, replace=False)]
                    for kind, size in zip(chosen, sizes, strict=True)
                ]
            )
        )
    return parts


_KINDS: dict[str, Callable[[Partition, Indices, int, int, np.random.Generator], list[Indices]]] = {
    "iid": _iid,
    "shards": _shards,
    "shards_full": _shards_full,
    "classes": _classes,
    "dirichlet": _dirichlet,
    "volumes": _volumes,
    "overlapping": _overlapping,
}


def _alike(
    config: Partition, labels: Indices, clients: int, classes: int, random: np.random.Generator, rich: int
) -> list[Indices]:
    """No client is favoured."""
    del rich
    return _KINDS[config.kind](config, labels, clients, classes, random)


def _groups(
    config: Partition, labels: Indices, clients: int, classes: int, random: np.random.Generator, rich: int
) -> list[Indices]:
    """The rich are dealt a random share of the images among themselves, the poor the others, both by `kind`."""
    assert config.rich_data is not None
    first = round(config.rich_data * len(labels))
    order = random.permutation(len(labels))
    parts = []
    for images, members, who in ((order[:first], rich, "rich"), (order[first:], clients - rich, "other")):
        if members > len(images):
            raise BadInput(
                f"partition.rich_data = {config.rich_data} gives the {members} {who} clients {len(images)} of "
                f"{len(labels)} images; choose another share, or use more images"
            )
        own = np.sort(images)
        parts += [own[part] for part in _KINDS[config.kind](config, labels[own], members, classes, random)]
    return parts


def _published(
    config: Partition, labels: Indices, clients: int, classes: int, random: np.random.Generator, rich: int
) -> list[Indices]:
    """As MocoSFL's code with ``--hetero`` (``utils.get_multiclient_trainloader_list``, ``noniid_alllabel``).

    `iid`: equal parts of the first int(D·n) images for the rich, of the others for the poor; remainders are dropped.
    `shards`: N·c/E shards, E = 1 - D, of which each rich client gets c·int(D/E) and each poor one c; the others are
    dropped (of 50,000 images 34,000 for 100 clients, a fifth of them rich with D = 0.8).
    """
    del classes
    assert config.rich_data is not None
    share, rest = config.rich_data, 1.0 - config.rich_data
    if config.kind == "iid":
        order, first = random.permutation(len(labels)), int(round(share * len(labels), 9))
        groups = ((order[:first], rich), (order[first:], clients - rich))
        return [row for own, count in groups for row in own[: len(own) // count * count].reshape(count, -1)]
    total, more = int(round(clients * config.classes_per_client / rest, 9)), int(round(share / rest, 9))
    size = len(labels) // total
    wanted = [config.classes_per_client * (max(1, more) if client < rich else 1) for client in range(clients)]
    if size == 0 or sum(wanted) > total:
        raise BadInput(
            f"partition.rich_deal = published cuts {len(labels)} images into {total} shards, and clients want "
            f"{sum(wanted)} of them; set partition.rich_deal = groups, or change partition.rich_data"
        )
    shards = np.argsort(labels, kind="stable")[: total * size].reshape(total, size)
    dealt = np.split(random.permutation(total)[: sum(wanted)], np.cumsum(wanted)[:-1])
    return [shards[own].ravel() for own in dealt]


_DEALS = {"groups": _groups, "published": _published}
_REMEDY = {"volumes": ", partition.skew", "shards": ", partition.classes_per_client"}
