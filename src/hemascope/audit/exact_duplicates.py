"""The same pixels more than once, and the same pixels under two labels."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hemascope.audit.material import Material
from hemascope.cells import UNLABELLED
from hemascope.findings import CheckResult, Finding

_SHOWN = 20
"""Largest groups listed in the summary."""


def content_numbers(content_hash: Sequence[str]) -> NDArray[np.int64]:
    """Equal hashes to equal numbers, in order of first appearance: int64 (N,). "" (unknown) is a number of its own.

    By hashing, not sorting: ten million digests take seconds.
    """
    codes = pa.array(content_hash, pa.string()).dictionary_encode().indices
    number = np.array(codes.to_numpy(zero_copy_only=False), dtype=np.int64)
    unknown = np.flatnonzero(np.fromiter((not value for value in content_hash), dtype=bool, count=len(content_hash)))
    number[unknown] = number.max(initial=0) + 1 + np.arange(len(unknown))
    return np.unique(number, return_inverse=True)[1].astype(np.int64)


def check_exact_duplicates(material: Material) -> tuple[CheckResult, CheckResult]:
    """``exact_duplicate`` and ``conflicting_label``.

    Copies have equal hashes of their decoded pixels; where the files are equal byte by byte as well, that is said. Of
    copies under one label the first in the order of the cells stays (the first that has a label, if some have none)
    and the others are proposed for dropping. Where copies bear two labels or more, none can be trusted: every one is a
    finding of ``conflicting_label``, to be reviewed, and none of ``exact_duplicate``. Scores: 0 for findings, 1 else.
    """
    began = time.perf_counter()
    cells = material.cells
    number = content_numbers(cells.content_hash)
    size = np.bincount(number, minlength=1)
    representative = _representatives(number, cells.labels)
    labelled = cells.labels != UNLABELLED
    conflicting = np.zeros(len(size), dtype=bool)
    other_label = labelled & (cells.labels != cells.labels[representative])
    conflicting[number[other_label]] = True

    rows = np.arange(len(cells))
    copies = rows[(size[number] > 1) & ~conflicting[number] & (representative != rows)]
    in_conflict = rows[conflicting[number]] if len(cells) else rows
    groups = np.flatnonzero(size > 1)
    exact = CheckResult(
        "exact_duplicate",
        scores=_scores(len(cells), copies),
        cut=0.0,
        cut_rule="0 for a copy whose decoded pixels equal another image's, 1 for all others; nothing to choose",
        findings=[_copy(material, row, int(representative[row]), int(size[number[row]])) for row in copies.tolist()],
        summary={
            "groups": len(groups),
            "images_in_groups": int(size[groups].sum()),
            "proposed_for_dropping": len(copies),
            "largest_groups": _largest(material, groups, size, representative, number),
            "groups_with_conflicting_labels": int(conflicting.sum()),
        },
        seconds=time.perf_counter() - began,
    )
    began = time.perf_counter()
    if not labelled.any():
        return exact, CheckResult("conflicting_label", not_applicable="no image has a label")
    conflict = CheckResult(
        "conflicting_label",
        scores=_scores(len(cells), in_conflict),
        cut=0.0,
        cut_rule="0 where equal pixels bear two labels or more, 1 for all others; nothing to choose",
        findings=_conflicts(material, in_conflict, number),
        summary={"groups": int(conflicting.sum()), "images": len(in_conflict)},
        seconds=time.perf_counter() - began,
    )
    return exact, conflict


def _representatives(number: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row that stands for each image's group: the first labelled one, else the first."""
    order = np.lexsort((np.arange(len(number)), labels == UNLABELLED, number))
    starts = np.flatnonzero(np.diff(number[order], prepend=-1))
    return order[starts][number] if len(number) else order


def _scores(count: int, found: NDArray[np.int64]) -> NDArray[np.float32]:
    scores = np.ones(count, dtype=np.float32)
    scores[found] = 0
    return scores


def _copy(material: Material, row: int, kept: int, size: int) -> Finding:
    cells, hashes = material.cells, material.measures.file_hash
    same_file = bool(hashes[row]) and hashes[row] == hashes[kept]
    how = "byte by byte" if same_file else "pixel by pixel"
    of = f"one of {size:,} copies of {cells.ids[kept]}" if size > 2 else f"a copy of {cells.ids[kept]}"
    return Finding(
        "exact_duplicate",
        cells.ids[row],
        cells.content_hash[row],
        0.0,
        "drop",
        f"It is {of}, equal {how}.",
        label=_label(material, row),
        related=cells.ids[kept],
    )


def _conflicts(material: Material, rows: NDArray[np.int64], number: NDArray[np.int64]) -> list[Finding]:
    """A finding for every copy in conflict, group after group. Each names the first copy with another label."""
    cells = material.cells
    findings: list[Finding] = []
    rows = rows[np.argsort(number[rows], kind="stable")]
    for group in np.split(rows, np.flatnonzero(np.diff(number[rows])) + 1) if len(rows) else []:
        labels = cells.labels[group]
        found, first, count = np.unique(labels, return_index=True, return_counts=True)
        tally = ", ".join(
            f"{times:,} as {cells.class_names[label]}" if label != UNLABELLED else f"{times:,} without a label"
            for label, times in zip(found.tolist(), count.tolist(), strict=True)
        )
        named = [(label, at) for label, at in zip(found.tolist(), first.tolist(), strict=True) if label != UNLABELLED]
        for row, label in zip(group.tolist(), labels.tolist(), strict=True):
            against = int(group[next(at for other, at in named if other != label)])
            findings.append(
                Finding(
                    "conflicting_label",
                    cells.ids[row],
                    cells.content_hash[row],
                    0.0,
                    "review",
                    f"The same pixels are there {len(group):,} times: {tally}.",
                    label=_label(material, row),
                    related=cells.ids[against],
                )
            )
    return findings


def _largest(
    material: Material,
    groups: NDArray[np.int64],
    size: NDArray[np.int64],
    representative: NDArray[np.int64],
    number: NDArray[np.int64],
) -> list[dict[str, object]]:
    shown = groups[np.argsort(-size[groups], kind="stable")][:_SHOWN]
    if not len(shown):
        return []
    first = np.full(len(size), -1, dtype=np.int64)
    first[number] = representative
    return [{"id": material.cells.ids[int(first[group])], "copies": int(size[group])} for group in shown.tolist()]


def _label(material: Material, row: int) -> str:
    label = int(material.cells.labels[row])
    return "" if label == UNLABELLED else material.cells.class_names[label]
