"""Pairs of images that were found to be copies of one another, and the clusters they form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hemascope.errors import DataError

LARGEST_COMPLETED = 48
"""Pictures that hang together by verified pairs: up to so many, the pairs nobody proposed are verified too."""

_LARGEST_LINKED = 1024
"""Clusters are found among at most so many pictures at a time, so that no N x N matrix is made."""


@dataclass(frozen=True)
class DuplicatePairs:
    """P verified pairs among N images.

    left, right  int64 (P,), rows of the images, left < right; every pair once
    score        float32 (P,), 0 to 1, lower is more alike (1 minus the correlation of fine structure)
    shared       float32 (P,), share of the picture with the smaller field that the other shows too, 0 to 1
    count        N
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    score: NDArray[np.float32]
    shared: NDArray[np.float32]
    count: int

    def __post_init__(self) -> None:
        lengths = {len(self.left), len(self.right), len(self.score), len(self.shared)}
        if len(lengths) > 1:
            raise DataError(f"left, right, score and shared must have one entry for each pair, found {lengths}")
        if len(self.left) and not (self.left.min() >= 0 and self.right.max() < self.count):
            raise DataError(f"pairs must name rows 0 to {self.count - 1}")

    def __len__(self) -> int:
        return len(self.left)


def linked_groups(pairs: DuplicatePairs, content: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """A number for each of N images, equal for images joined by any chain of pairs: int64 (N,).

    What must stay in one part of a split: no pair straddles two groups. ``content`` int64 (N,), equal for exact copies
    (``content_numbers``), joins those too. Chains are wanted here, and nowhere else: use ``duplicate_clusters`` to say
    which images are copies of one another.
    """
    left, right = pairs.left, pairs.right
    if content is not None:
        first = np.unique(content, return_index=True)[1]
        where = first[np.unique(content, return_inverse=True)[1]]
        copies = np.flatnonzero(where != np.arange(pairs.count))
        left, right = np.concatenate([left, where[copies]]), np.concatenate([right, copies])
    edges = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(pairs.count, pairs.count))
    return np.asarray(connected_components(edges, directed=False)[1], dtype=np.int64)


def complete_pairs(
    pairs: DuplicatePairs, verify: Callable[[NDArray[np.int64], NDArray[np.int64]], DuplicatePairs]
) -> DuplicatePairs:
    """The pairs, and those missing between pictures that hang together, where ``verify`` finds them to be copies.

    ``verify`` takes left and right int64 (Q,) and returns those that are copies. Only groups of up to
    LARGEST_COMPLETED pictures are completed, so the work stays linear in N.
    """
    missing: list[NDArray[np.int64]] = []
    known = pairs.left * pairs.count + pairs.right
    for rows, _ in _groups(pairs):
        if 2 < len(rows) <= LARGEST_COMPLETED:
            one, other = np.triu_indices(len(rows), 1)
            found = rows[one] * pairs.count + rows[other]
            missing.append(found[~np.isin(found, known)])
    wanted = np.concatenate([np.empty(0, dtype=np.int64), *missing])
    if not len(wanted):
        return pairs
    more = verify(wanted // pairs.count, wanted % pairs.count)
    return DuplicatePairs(
        np.concatenate([pairs.left, more.left]),
        np.concatenate([pairs.right, more.right]),
        np.concatenate([pairs.score, more.score]),
        np.concatenate([pairs.shared, more.shared]),
        pairs.count,
    )


def duplicate_clusters(pairs: DuplicatePairs) -> NDArray[np.int64]:
    """A cluster for each of N images, int64 (N,); images without a copy are alone in theirs.

    Complete link: every pair within a cluster is among ``pairs``. Being copies is not transitive (two crops of one
    picture may share little), so chains would join what nobody verified.
    """
    cluster = np.arange(pairs.count, dtype=np.int64)
    for rows, edges in _groups(pairs):
        for start in range(0, len(rows), _LARGEST_LINKED):
            part = rows[start : start + _LARGEST_LINKED]
            if len(part) < 2:
                continue
            distance = np.full((len(part), len(part)), 2.0, dtype=np.float32)
            one, other = pairs.left[edges], pairs.right[edges]
            here = np.isin(one, part) & np.isin(other, part)
            first, second = np.searchsorted(part, one[here]), np.searchsorted(part, other[here])
            distance[first, second] = distance[second, first] = pairs.score[edges][here]
            condensed = distance[np.triu_indices(len(part), 1)]
            found = fcluster(linkage(condensed, "complete"), 1.5, "distance")
            lowest = np.full(found.max() + 1, pairs.count, dtype=np.int64)
            np.minimum.at(lowest, found, part)
            cluster[part] = lowest[found]
    return cluster


def _groups(pairs: DuplicatePairs) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows (sorted) and pairs of each group of two images or more that hang together."""
    if not len(pairs):
        return []
    number = linked_groups(pairs)
    involved = np.unique(np.concatenate([pairs.left, pairs.right]))
    involved = involved[np.argsort(number[involved], kind="stable")]
    edges = np.argsort(number[pairs.left], kind="stable")
    rows = np.split(involved, np.flatnonzero(np.diff(number[involved])) + 1)
    return list(zip(rows, np.split(edges, np.flatnonzero(np.diff(number[pairs.left[edges]])) + 1), strict=True))
