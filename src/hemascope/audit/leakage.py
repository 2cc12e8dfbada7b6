"""Is any image of one part of a split also in another: as the same pixels, as an edited copy, as the same patient?"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hemascope.audit.material import Material
from hemascope.cells import SPLIT_NAMES, UNLABELLED, UNUSED
from hemascope.data.split_clusters import clusters
from hemascope.data.splits import PART_INDEX, PRECEDENCE
from hemascope.errors import SplitError
from hemascope.findings import CheckResult, Finding, Suggestion

EXACT, NEAR, GROUP, CLEAN = 0.0, 0.25, 0.5, 1.0
"""The scores: an exact copy in another part, an edited copy, another image of the same group, none of these."""

_OUTSIDE = len(PRECEDENCE)  # the rank of images in no part


def check_leakage(
    material: Material,
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    *,
    split: Sequence[str] | NDArray[np.str_] | None = None,
) -> CheckResult:
    """``leakage``: images that have a copy, or another image of their group, in a more precious part.

    left, right  int64 (M,) each: rows of near duplicates, pair by pair; may be empty
    split        N names of parts, of a run's splits.json; None for the source's own

    A part is the more precious the earlier it comes in ``splits.PRECEDENCE``: test, validation, calibration, train.
    Each finding is the image in the less precious part, ``related`` its copy in the other. Copies are proposed for
    dropping; images of one group are for a person to judge, since dropping them may empty a part. Images in no part
    (unused) are not looked at. Raises SplitError for a split of another length or with unknown parts.
    """
    began = time.perf_counter()
    cells = material.cells
    own = split is None
    if split is None:
        split = cells.split
    if split is None:
        return CheckResult(
            "leakage",
            not_applicable="the cells have no split; one made by hemascope keeps copies and groups together",
        )
    rank = _ranks(split, len(cells))
    parts = set(np.unique(rank).tolist()) - {_OUTSIDE}
    if len(parts) < 2:
        return CheckResult("leakage", not_applicable="the split has one part only, so nothing can leak into another")
    contents, _ = clusters(cells.content_hash, None)
    exact = _better(contents, contents, rank)
    near = _better_neighbour(contents, rank, np.asarray(left), np.asarray(right))
    group = _better_in_group(cells.groups, rank)
    scores = np.full(len(cells), CLEAN, dtype=np.float32)
    related = np.full(len(cells), -1, dtype=np.int64)
    for score, other in ((GROUP, group), (NEAR, near), (EXACT, exact)):  # the gravest last: it has the last word
        scores[other >= 0] = score
        related = np.where(other >= 0, other, related)
    scores[rank == _OUTSIDE] = np.nan
    found = np.flatnonzero(related >= 0)
    found = found[np.argsort(scores[found], kind="stable")]
    ways = Counter(f"{_part(rank[row])} → {_part(rank[related[row]])}" for row in found.tolist())
    return CheckResult(
        "leakage",
        scores=scores,
        cut=GROUP,
        cut_rule=(
            f"{EXACT:g} where the same pixels, {NEAR:g} where an edited copy, {GROUP:g} where another image of the "
            "same group lies in a more precious part (test, validation, calibration, train); nothing to choose"
        ),
        findings=[_finding(material, row, int(related[row]), float(scores[row]), rank) for row in found.tolist()],
        summary={
            "split": "the source's own" if own else "the one given",
            "parts": {_part(part): int(np.count_nonzero(rank == part)) for part in sorted(parts)},
            "exact": int(np.count_nonzero(exact >= 0)),
            "near": int(np.count_nonzero((near >= 0) & (exact < 0))),
            "images_in_shared_groups": int(np.count_nonzero(group >= 0)),
            "groups_known": cells.groups is not None and bool((cells.groups != "").any()),
            "from_to": dict(ways.most_common()),
        },
        seconds=time.perf_counter() - began,
    )


def _part(rank: int) -> str:
    return SPLIT_NAMES[PRECEDENCE[rank]]


def _ranks(split: Sequence[str] | NDArray[np.str_], count: int) -> NDArray[np.int64]:
    """Place of each image's part in PRECEDENCE: int64 (N,), _OUTSIDE for images in none."""
    if len(split) != count:
        raise SplitError(f"the split must name a part for each of {count:,} images, found {len(split):,}")
    names, index = np.unique(np.asarray(split), return_inverse=True)
    unknown = [name for name in names.tolist() if name != UNUSED and name not in PART_INDEX]
    if unknown:
        raise SplitError(f"the split holds the part {unknown[0]!r}; parts are {', '.join(SPLIT_NAMES)} and {UNUSED}")
    place = [_OUTSIDE if name == UNUSED else PRECEDENCE.index(PART_INDEX[name]) for name in names.tolist()]
    return np.asarray(place, dtype=np.int64)[index]


def _best_rows(number: NDArray[np.int64], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each number (of a content, of a group) the first row in the most precious part it is in: int64 (max + 1,)."""
    order = np.lexsort((np.arange(len(rank)), rank, number))
    first = order[np.flatnonzero(np.diff(number[order], prepend=-1))]
    rows = np.full(int(number.max(initial=-1)) + 1, -1, dtype=np.int64)
    rows[number[first]] = first
    return rows


def _better(asked: NDArray[np.int64], number: NDArray[np.int64], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row of the same number in a more precious part, -1 for none: int64 (N,)."""
    best = _best_rows(number, rank)[asked]
    return np.where((rank != _OUTSIDE) & (rank[best] < rank), best, -1)


def _better_neighbour(
    contents: NDArray[np.int64], rank: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.int64]:
    """A near duplicate in a more precious part, -1 for none: int64 (N,). Exact copies share their near duplicates."""
    found = np.full(len(rank), -1, dtype=np.int64)
    if not len(left):
        return found
    best = _best_rows(contents, rank)
    own = np.concatenate([contents[left], contents[right]])
    other = best[np.concatenate([contents[right], contents[left]])]
    order = np.lexsort((other, rank[other], own))
    first = order[np.flatnonzero(np.diff(own[order], prepend=-1))]
    neighbour = np.full(len(best), -1, dtype=np.int64)
    neighbour[own[first]] = other[first]
    nearest = neighbour[contents]
    leaks = (nearest >= 0) & (rank != _OUTSIDE) & (rank[nearest] < rank)
    found[leaks] = nearest[leaks]
    return found


def _better_in_group(groups: NDArray[np.str_] | None, rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """An image of the same group in a more precious part, -1 for none: int64 (N,)."""
    found = np.full(len(rank), -1, dtype=np.int64)
    if groups is None or not (groups != "").any():
        return found
    grouped = np.flatnonzero(groups != "")
    number, _ = clusters(groups[grouped].tolist(), None)
    other = _better(number, number, rank[grouped])
    found[grouped] = np.where(other >= 0, grouped[other], -1)
    return found


def _finding(material: Material, row: int, other: int, score: float, rank: NDArray[np.int64]) -> Finding:
    cells = material.cells
    where, there = _part(int(rank[row])), _part(int(rank[other]))
    suggestion: Suggestion = "review" if score == GROUP else "drop"
    if score == EXACT:
        why = f"The same pixels are in {there} as well as here, in {where}."
    elif score == NEAR:
        why = f"An edited copy is in {there}; this one is in {where}."
    else:
        assert cells.groups is not None
        why = f"The group {cells.groups[row]} has images in {there} as well as here, in {where}."
    label = int(cells.labels[row])
    return Finding(
        "leakage",
        cells.ids[row],
        cells.content_hash[row],
        score,
        suggestion,
        why,
        label="" if label == UNLABELLED else cells.class_names[label],
        related=cells.ids[other],
    )
