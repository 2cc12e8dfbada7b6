"""Edited copies of other images: proposed by their embeddings, verified on the pixels, clustered by complete link."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemascope.audit.duplicate_candidates import find_candidates
from hemascope.audit.duplicate_pairs import DuplicatePairs, complete_pairs, duplicate_clusters
from hemascope.audit.exact_duplicates import content_numbers
from hemascope.audit.material import Material
from hemascope.audit.verification import Verified, verify
from hemascope.cells import UNLABELLED
from hemascope.findings import CheckResult, Finding, Suggestion
from hemascope.progress import SILENT, Progress

CUT = 0.15
"""Copies have scores at or below it. Chosen on real cells, with copies planted of one half of them: copies had at most
0.03, and the most alike of 110,000 pairs of different cells 0.29."""

NEIGHBOURS = 10
ENOUGH_SHARED = 0.8
"""Of the smaller field. With less in common the two may show neighbouring cells of one field: a person must look."""

_CUT_RULE = (
    f"fixed at {CUT}: 1 minus the correlation of locally normalised fine structure after laying one picture on the "
    "other. Planted copies of real cells stayed below 0.04, different cells above 0.28"
)
_LISTED = 10_000
"""Pairs in the summary."""


def check_near_duplicates(
    material: Material, *, neighbours: int = NEIGHBOURS, progress: Progress = SILENT
) -> tuple[CheckResult, DuplicatePairs]:
    """``near_duplicate``, and the verified pairs (rows of ``material``), for keeping copies in one part of a split.

    Exact copies are first reduced to the one that ``exact_duplicate`` keeps. Every image is then compared with its
    ``neighbours`` nearest others in a space learnt for it, and with all it hangs together with. A cluster holds only
    pictures that were all verified against each other. Its representative is the labelled one with the most pixels in
    the original, then the sharpest, then the first. The other members are proposed for dropping, or for review where
    labels differ in the cluster or the two share less than ENOUGH_SHARED of their field. An image with a copy outside
    its cluster only is for review.

    The score of a member is that of its pair with the representative; of any other image the lowest with an image
    outside its cluster, 1 where no candidate came near. Time is linear in the number of images: about 1 ms a candidate
    pair and core.
    """
    began = time.perf_counter()
    cells = material.cells
    if len(cells) < 2:
        return CheckResult("near_duplicate", not_applicable="there are fewer than two images"), _no_pairs(len(cells))
    content = content_numbers(cells.content_hash)
    rows = _one_of_each(content, cells.labels)
    proposed = find_candidates(material, rows, neighbours, progress=progress)
    compared = verify(cells.images, proposed.left, proposed.right, progress=progress)
    pairs = _pairs(proposed.left, proposed.right, compared, len(cells))
    pairs = complete_pairs(
        pairs, lambda left, right: _pairs(left, right, verify(cells.images, left, right), len(cells))
    )
    cluster = duplicate_clusters(pairs)
    representative = _representatives(material, cluster)
    found = _Found(material, pairs, cluster, representative, rows)
    scores = found.scores(proposed.left, proposed.right, 1 - compared.agreement)[_index_of(rows, content)]
    findings = found.findings()
    order = sorted(range(len(findings)), key=lambda index: (findings[index].score, index))
    sizes = np.bincount(np.unique(cluster[rows], return_inverse=True)[1])
    result = CheckResult(
        "near_duplicate",
        scores=scores,
        cut=CUT,
        cut_rule=_CUT_RULE,
        findings=[findings[index] for index in order],
        summary={
            "distinct_images": len(rows),
            "candidates": proposed.how,
            "candidate_pairs": len(proposed.left),
            "verified_pairs": len(pairs),
            "clusters": int((sizes > 1).sum()),
            "largest_cluster": int(sizes.max()),
            "pairs": _listed(cells.ids, pairs),
            "pairs_left_out": max(0, len(pairs) - _LISTED),
        },
        seconds=time.perf_counter() - began,
    )
    return result, pairs


class _Found:
    """Clusters turned into scores and findings."""

    def __init__(
        self,
        material: Material,
        pairs: DuplicatePairs,
        cluster: NDArray[np.int64],
        representative: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        self._material, self._pairs, self._cluster, self._rows = material, pairs, cluster, rows
        self._representative = representative
        # To the representative, for members; both ways round, so that a row finds its pair whichever side it is on.
        left = np.concatenate([pairs.left, pairs.right])
        right = np.concatenate([pairs.right, pairs.left])
        self._pair = np.full(len(cluster), -1, dtype=np.int64)
        inside = representative[left] == right
        self._pair[left[inside]] = np.flatnonzero(inside) % max(len(pairs), 1)
        outside = np.flatnonzero(cluster[left] != cluster[right])
        outside = outside[np.argsort(-pairs.score[outside % max(len(pairs), 1)], kind="stable")]
        self._outside = np.full((len(cluster), 2), -1, dtype=np.int64)
        self._outside[left[outside], 0] = outside % max(len(pairs), 1)
        self._outside[left[outside], 1] = right[outside]

    def scores(
        self, left: NDArray[np.int64], right: NDArray[np.int64], score: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Of every row: float32 (N,)."""
        result = np.ones(len(self._cluster), dtype=np.float32)
        apart = self._cluster[left] != self._cluster[right]
        np.minimum.at(result, left[apart], score[apart])
        np.minimum.at(result, right[apart], score[apart])
        pairs = self._pairs
        apart = self._cluster[pairs.left] != self._cluster[pairs.right]
        np.minimum.at(result, pairs.left[apart], pairs.score[apart])
        np.minimum.at(result, pairs.right[apart], pairs.score[apart])
        members = np.flatnonzero(self._pair >= 0)
        result[members] = pairs.score[self._pair[members]]
        return np.clip(result, 0, 1)

    def findings(self) -> list[Finding]:
        members = np.flatnonzero(self._pair >= 0)
        alone = np.flatnonzero((self._pair < 0) & (self._outside[:, 0] >= 0))
        mixed = _mixed_labels(self._material.cells.labels, self._cluster)
        size = np.bincount(self._cluster[self._rows], minlength=len(self._cluster))
        inside = [
            self._finding(
                row, int(self._representative[row]), int(self._pair[row]), bool(mixed[row]), int(size[number])
            )
            for row, number in zip(members.tolist(), self._cluster[members].tolist(), strict=True)
        ]
        return inside + [
            self._finding(row, int(self._outside[row, 1]), int(self._outside[row, 0]), False, 0)
            for row in alone.tolist()
        ]

    def _finding(self, row: int, other: int, pair: int, mixed: bool, size: int) -> Finding:
        """``size`` 0: a copy of an image in another cluster."""
        cells, pairs = self._material.cells, self._pairs
        score, shared = float(np.clip(pairs.score[pair], 0, 1)), float(pairs.shared[pair])
        suggestion: Suggestion = "drop"
        why = f"It shows the same picture as {cells.ids[other]}: fine structure agrees to {1 - score:.2f}"
        if shared < 0.995:
            why += f" in the {shared:.0%} of the smaller field that both show"
        if size > 2:
            why += f"; one of a cluster of {size:,}"
        if mixed:
            suggestion = "review"
            why += "; labels differ in this cluster"
        elif size == 0:
            suggestion = "review"
            why += "; not every image of that cluster could be verified against this one"
        elif shared < ENOUGH_SHARED:
            suggestion = "review"
            why += "; they may be neighbouring cells of one field"
        label = int(cells.labels[row])
        return Finding(
            "near_duplicate",
            cells.ids[row],
            cells.content_hash[row],
            score,
            suggestion,
            why + ".",
            label="" if label == UNLABELLED else cells.class_names[label],
            related=cells.ids[other],
        )


def _pairs(left: NDArray[np.int64], right: NDArray[np.int64], compared: Verified, count: int) -> DuplicatePairs:
    score = (1 - compared.agreement).astype(np.float32)
    copies = score <= CUT
    return DuplicatePairs(left[copies], right[copies], score[copies], compared.shared[copies], count)


def _no_pairs(count: int) -> DuplicatePairs:
    rows, values = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    return DuplicatePairs(rows, rows, values, values, count)


def _one_of_each(content: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row of each content that ``exact_duplicate`` keeps, sorted: the first labelled one, else the first."""
    order = np.lexsort((np.arange(len(content)), labels == UNLABELLED, content))
    return np.sort(order[np.flatnonzero(np.diff(content[order], prepend=-1))])


def _index_of(rows: NDArray[np.int64], content: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each image the row that was compared in its place: int64 (N,)."""
    place = np.empty(int(content.max()) + 1, dtype=np.int64)
    place[content[rows]] = rows
    return place[content]


def _representatives(material: Material, cluster: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row that stands for each image's cluster: int64 (N,)."""
    pixels = material.measures.size.astype(np.int64).prod(axis=1)
    sharpness = np.nan_to_num(material.measures.sharpness)
    unlabelled = material.cells.labels == UNLABELLED
    order = np.lexsort((np.arange(len(cluster)), -sharpness, -pixels, unlabelled, cluster))
    first = order[np.flatnonzero(np.diff(cluster[order], prepend=-1))]
    representative = np.empty(len(cluster), dtype=np.int64)
    representative[cluster[first]] = first
    return representative[cluster]


def _mixed_labels(labels: NDArray[np.int64], cluster: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether two labels or more occur in each image's cluster; no label is none."""
    known = labels != UNLABELLED
    low = np.full(len(labels), np.iinfo(np.int64).max)
    high = np.full(len(labels), -1)
    np.minimum.at(low, cluster[known], labels[known])
    np.maximum.at(high, cluster[known], labels[known])
    return np.asarray((low < high)[cluster])


def _listed(ids: Sequence[str], pairs: DuplicatePairs) -> list[dict[str, Any]]:
    order = np.argsort(pairs.score, kind="stable")[:_LISTED]
    return [
        {
            "left": ids[int(pairs.left[index])],
            "right": ids[int(pairs.right[index])],
            "score": round(float(pairs.score[index]), 4),
            "shared": round(float(pairs.shared[index]), 3),
        }
        for index in order.tolist()
    ]
