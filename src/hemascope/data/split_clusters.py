"""Placing clusters of images into parts so that every class is shared out as asked. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def clusters(
    content_hash: Sequence[str], groups: NDArray[np.str_] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two int64 (N,) numberings: by equal content, and by what must stay together (content or group, transitively)."""
    contents = _numbered(content_hash)
    if groups is None or not (groups != "").any():
        return contents, contents
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # Contents and groups are nodes, images are edges between them: what hangs together stays together.
    grouped = np.flatnonzero(groups != "")
    group = _numbered(groups[grouped].tolist())
    first_group = int(contents.max()) + 1
    size = first_group + int(group.max()) + 1
    edges = (np.ones(len(grouped), dtype=np.int8), (contents[grouped], first_group + group))
    _, component = connected_components(coo_array(edges, shape=(size, size)), directed=False)
    return contents, component[contents].astype(np.int64)


def cut(
    labels: NDArray[np.int64],
    cluster: NDArray[np.int64],
    shares: Sequence[float],
    required: Sequence[bool],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """The part of each of N images: int64 (N,), in 0 to len(shares) - 1.

    labels    int64 (N,), 0 to K - 1
    cluster   int64 (N,), images of one number go to one part
    shares    of each part, summing to 1, met for each class within the size of one cluster
    required  parts that get at least one image of each class where its clusters suffice

    Clusters of several classes (patients) are placed first, the largest first, each where it brings the
    classes closest to their shares. Clusters of one class, nearly all where there are no groups, then fill
    what is missing, class by class, at random.
    """
    cluster = np.unique(cluster, return_inverse=True)[1].astype(np.int64)
    count, classes, parts = int(cluster.max()) + 1, int(labels.max()) + 1, len(shares)
    low = np.full(count, classes)
    high = np.full(count, -1)
    np.minimum.at(low, cluster, labels)
    np.maximum.at(high, cluster, labels)
    sizes = np.bincount(cluster, minlength=count)
    total = np.bincount(labels, minlength=classes)
    target = _targets(total, np.asarray(shares, dtype=np.float64), np.asarray(required))

    place = np.full(count, -1, dtype=np.int64)
    held = np.zeros((parts, classes), dtype=np.int64)
    mixed = np.flatnonzero(low < high)
    table = _table(cluster, labels, mixed, count, classes)
    _place_mixed(mixed, table, target, total, place, held, rng)
    for label in range(classes):
        pure = rng.permutation(np.flatnonzero((low == high) & (low == label)))
        if len(pure):
            missing = np.maximum(target[:, label] - held[:, label], 0)
            place[pure] = _fill(sizes[pure], missing, held[:, label])
            held[:, label] += np.bincount(place[pure], weights=sizes[pure], minlength=parts).astype(np.int64)
    _mend(place, low, high, sizes, mixed, table, held, np.flatnonzero(required), total)
    return place[cluster]


def _numbered(values: Sequence[str]) -> NDArray[np.int64]:
    """Equal texts to equal numbers, by hashing: sorting ten million digests would take minutes."""
    import pyarrow as pa

    codes = pa.array(values, pa.string()).dictionary_encode().indices
    return np.asarray(codes.to_numpy(zero_copy_only=False), dtype=np.int64)


def _targets(total: NDArray[np.int64], shares: NDArray[np.float64], required: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Images of each class in each part, int64 (parts, K); at least one where required.

    What is left after rounding goes to the largest part.
    """
    target = np.rint(shares[:, None] * total[None, :]).astype(np.int64)
    target[required] = np.maximum(target[required], 1)
    largest = int(shares.argmax())
    target[largest] = 0
    target[largest] = np.maximum(total - target.sum(axis=0), 0)
    return target


def _table(
    cluster: NDArray[np.int64], labels: NDArray[np.int64], mixed: NDArray[np.intp], count: int, classes: int
) -> NDArray[np.int64]:
    """Images of each class in each cluster of several classes: int64 (len(mixed), K)."""
    row = np.full(count, -1, dtype=np.int64)
    row[mixed] = np.arange(len(mixed))
    inside = row[cluster] >= 0
    flat = row[cluster[inside]] * classes + labels[inside]
    return np.bincount(flat, minlength=len(mixed) * classes).reshape(len(mixed), classes)


def _place_mixed(
    mixed: NDArray[np.intp],
    table: NDArray[np.int64],
    target: NDArray[np.int64],
    total: NDArray[np.int64],
    place: NDArray[np.int64],
    held: NDArray[np.int64],
    rng: np.random.Generator,
) -> None:
    """Place clusters of several classes, the largest first, where the squared distance to the targets falls most."""
    shuffled = rng.permutation(len(mixed))
    scale = 1.0 / np.maximum(total, 1)
    allowed = target.sum(axis=1) > 0
    for index in shuffled[np.argsort(-table[shuffled].sum(axis=1), kind="stable")]:
        added = table[index]
        gap = (held - target) * scale
        change = ((gap + added * scale) ** 2 - gap**2).sum(axis=1)
        part = int(np.where(allowed, change, np.inf).argmin())
        place[mixed[index]] = part
        held[part] += added


def _fill(sizes: NDArray[np.int64], missing: NDArray[np.int64], held: NDArray[np.int64]) -> NDArray[np.int64]:
    """The part of each cluster of one class, in the order given, so that parts get what they miss."""
    supply = int(sizes.sum())
    if not missing.any():
        return np.full(len(sizes), int(held.argmax()), dtype=np.int64)
    wanted = missing * (supply / missing.sum())
    middle = np.cumsum(sizes) - sizes / 2
    part = np.searchsorted(np.cumsum(wanted), middle, side="right")
    return np.minimum(part, int(np.flatnonzero(missing)[-1]))


def _mend(
    place: NDArray[np.int64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    sizes: NDArray[np.int64],
    mixed: NDArray[np.intp],
    table: NDArray[np.int64],
    held: NDArray[np.int64],
    required: NDArray[np.intp],
    total: NDArray[np.int64],
) -> None:
    """Give each required part without an image of a class the smallest cluster that no other part then misses."""
    row = {int(name): index for index, name in enumerate(mixed)}
    for label in np.flatnonzero(total):
        for part in required:
            if held[part, label]:
                continue
            pure = np.flatnonzero((low == label) & (high == label))
            several = mixed[table[:, label] > 0]
            candidates = np.concatenate([pure, several])
            for name in candidates[np.argsort(sizes[candidates], kind="stable")]:
                counts = np.zeros_like(total)
                counts[label] = sizes[name]
                if int(name) in row:
                    counts = table[row[int(name)]]
                giver = place[name]
                if giver in required and bool(((held[giver] == counts) & (counts > 0)).any()):
                    continue  # the giver would be left without a class
                place[name] = part
                held[giver] -= counts
                held[part] += counts
                break
