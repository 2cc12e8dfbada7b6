"""Images that show no single cell like the others, and the images least like any other.

Three kinds of evidence, each with its own line: the picture resembles faults made on purpose (exposure_detector.py); it
shares its fine structure with many others (repeated_picture.py); nothing in the set is near it (nearest neighbours).
Exact copies are collapsed first: sixteen hundred copies of one picture are the densest place there is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from hemascope.audit.exposure_detector import beyond, unlikeness
from hemascope.audit.exposures import KINDS, make_exposures
from hemascope.audit.material import Material
from hemascope.audit.repeated_picture import MEMBER, repeated_picture
from hemascope.audit.standardised import standardised
from hemascope.cells import UNLABELLED
from hemascope.findings import CheckResult, Finding, Suggestion
from hemascope.neighbours import nearest, reduce
from hemascope.progress import SILENT, Progress

FEWEST = 50
"""Images of which a set must have so many before anything can be called unlike the rest."""

SPREADS = 7.0
"""The line of both scores: so many spreads of the better half beyond the median."""

OUTLIER_SPREADS = 5.0

EXPOSURES = {
    "overlay": 2000,
    "foreign picture": 400,
    "empty field": 200,
    "several cells": 300,
    "drawn cell": 200,
}
"""How many of each kind are made for a set of FULL_SIZE images or more; fewer for smaller sets."""

FULL_SIZE = 3000
NEIGHBOURS = 10
DIRECTIONS = 256
MAY_BE_THE_SET = ("drawn cell",)
"""Kinds that a whole set may be of: left out where they are as near to its images as these are to each other."""

_DROPPED = frozenset({"overlay", "foreign picture", "empty field", "several cells"})


@dataclass(frozen=True)
class _Evidence:
    """Of M different pictures: how far beyond its line each lies, in units where 0 is the median and 1 the line."""

    rows: NDArray[np.int64]
    fault: NDArray[np.float64]
    distance: NDArray[np.float64]
    agreement: NDArray[np.float32]
    group: NDArray[np.int64]
    kinds: list[str]

    @property
    def worst(self) -> NDArray[np.float64]:
        return np.maximum(np.maximum(self.fault, self.distance), np.where(self.group >= 0, 1 + self.agreement, 0))


def check_off_topic(material: Material, *, progress: Progress = SILENT) -> tuple[CheckResult, CheckResult]:
    """``off_topic`` and ``outlier``: what should not be in the set at all, and what is merely unlike the rest.

    Scores are 0.5 at the line and fall with the distance beyond it. Proposed for dropping: overlays, foreign pictures,
    empty fields, several cells. Drawn cells and outliers are for a person to look at. Not applicable
    below 50 different images, and off_topic not without a network to embed the made faults with.
    """
    began = time.perf_counter()
    cells = material.cells
    rows, copy_of = _different(cells.content_hash)
    if len(rows) < FEWEST:
        reason = f"it takes {FEWEST} different images to say what is usual; there are {len(rows)}"
        return CheckResult("off_topic", not_applicable=reason), CheckResult("outlier", not_applicable=reason)
    reduced = reduce(standardised(material.embeddings.vectors, seed=material.seed), DIRECTIONS, seed=material.seed)
    distance = _distance(reduced[rows], material.seed, progress)
    outlier = _outliers(material, rows, copy_of, distance, time.perf_counter() - began)
    if material.embedder is None:
        reason = "there is no network to embed made faults with"
        return CheckResult("off_topic", not_applicable=reason), outlier
    began = time.perf_counter()
    evidence = _evidence(material, rows, reduced[rows], distance, progress)
    return _off_topic(material, evidence, copy_of, began), outlier


def _different(content_hash: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first image of each different picture, rising, int64 (M,), and which of these every image is, int64 (N,)."""
    _, first, inverse = np.unique(np.asarray(content_hash, dtype="S"), return_index=True, return_inverse=True)
    order = np.argsort(first)  # np.unique sorts by hash; the rest of this file needs the order of the images
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return first[order].astype(np.int64), place[inverse]


def _evidence(
    material: Material,
    rows: NDArray[np.int64],
    reduced: NDArray[np.float32],
    distance: NDArray[np.float64],
    progress: Progress,
) -> _Evidence:
    images, seed = material.cells.images, material.seed
    agreement, group = repeated_picture(
        images, np.ascontiguousarray(reduced[:, :64]), rows, seed=seed, progress=progress
    )
    vectors = material.embeddings.vectors
    own = vectors if len(rows) == len(vectors) else vectors[rows]
    exposures, kinds = _unlike_the_set(*_exposures(material, rows, progress), own, seed)
    unlike = unlikeness(own, exposures, seed=seed)
    fault = _in_units_of_the_line(unlike, SPREADS)
    far = _in_units_of_the_line(distance, SPREADS)
    flagged = np.flatnonzero(np.maximum(fault, far) >= 1)
    named = _likeliest_kinds(exposures, kinds, own[flagged])
    every = [""] * len(rows)
    for index, name in zip(flagged.tolist(), named, strict=True):
        every[index] = name
    return _Evidence(rows, fault, far, agreement, group, every)


def _exposures(
    material: Material, rows: NDArray[np.int64], progress: Progress
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    assert material.embedder is not None
    rng = np.random.default_rng(material.seed)
    drawn = np.sort(rng.permutation(rows)[:FULL_SIZE])
    cells = np.asarray(material.cells.images[drawn])
    share = min(1.0, max(0.2, len(rows) / FULL_SIZE))
    counts = {kind: round(EXPOSURES[kind] * share) for kind in KINDS}
    parts, kinds = [], []
    with progress.task("making faults to learn from", sum(counts.values()), "images") as advance:
        for number, kind in enumerate(KINDS):
            made = make_exposures(kind, cells, counts[kind], seed=material.seed)
            for start in range(0, len(made), 256):
                parts.append(material.embedder(made[start : start + 256]))
                advance(len(parts[-1]))
            kinds.append(np.full(len(made), number))
    return np.concatenate(parts), np.concatenate(kinds)


def _unlike_the_set(
    exposures: NDArray[np.float16], kinds: NDArray[np.int64], own: NDArray[np.float16], seed: int
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """The exposures without those of a kind that the set itself is of: a set of drawn cells."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(own))[:FULL_SIZE])
    sample = own[rows]
    space = reduce(standardised(np.concatenate([sample, exposures]), seed=seed), 64, seed=seed)
    inside, outside = space[: len(sample)], space[len(sample) :]
    usual = np.sqrt(nearest(inside, min(NEIGHBOURS, len(inside) - 1), seed=seed)[0]).mean(1)
    found = np.sqrt(nearest(inside, min(NEIGHBOURS, len(inside)), queries=outside, seed=seed)[0]).mean(1)
    keep = np.ones(len(kinds), dtype=bool)
    for number in (KINDS.index(kind) for kind in MAY_BE_THE_SET):
        mine = kinds == number
        if np.median(found[mine]) <= np.quantile(usual, 0.9):
            keep &= ~mine
    return exposures[keep], kinds[keep]


def _likeliest_kinds(
    exposures: NDArray[np.float16], kinds: NDArray[np.int64], vectors: NDArray[np.float16]
) -> list[str]:
    if not len(vectors):
        return []
    together = np.concatenate([exposures, vectors]).astype(np.float16)
    reduced = reduce(standardised(together, seed=0), 128, seed=0)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(reduced[: len(exposures)], kinds)
    return [KINDS[int(number)] for number in model.predict(reduced[len(exposures) :])]


def _distance(reduced: NDArray[np.float32], seed: int, progress: Progress) -> NDArray[np.float64]:
    """Log of the mean distance to the nearest others, the very nearest left out: pairs of copies are no company."""
    found, _ = nearest(reduced, min(NEIGHBOURS, len(reduced) - 1), seed=seed, progress=progress)
    far: NDArray[np.float64] = np.log(np.sqrt(found[:, NEIGHBOURS // 2 :]).mean(1) + 1e-9).astype(np.float64)
    return far


def _in_units_of_the_line(values: NDArray[np.float64], spreads: float) -> NDArray[np.float64]:
    median = float(np.median(values))
    width = max(beyond(values, spreads) - median, 1e-9)
    units: NDArray[np.float64] = (values - median) / width
    return units


def _score(units: NDArray[np.float64]) -> NDArray[np.float32]:
    """1 at the median and below, 0.5 at the line, towards 0 beyond: 1 / (1 + u^2)."""
    score: NDArray[np.float32] = (1 / (1 + np.maximum(units, 0) ** 2)).astype(np.float32)
    return score


def _off_topic(material: Material, evidence: _Evidence, copy_of: NDArray[np.int64], began: float) -> CheckResult:
    scores = _score(evidence.worst)
    order = np.flatnonzero(scores <= 0.5)
    order = order[np.argsort(scores[order], kind="stable")]
    by_picture = _rows_by_picture(copy_of, order)
    findings: list[Finding] = []
    for rank, index in enumerate(order.tolist(), 1):
        suggestion, why = _reason(evidence, index)
        for row in by_picture[index].tolist():
            findings.append(
                _finding(material, "off_topic", row, float(scores[index]), suggestion, f"{why} Rank {rank}.")
            )
    shared = [int(np.count_nonzero(evidence.group == number)) for number in range(int(evidence.group.max()) + 1)]
    return CheckResult(
        "off_topic",
        scores=scores[copy_of],
        cut=0.5,
        cut_rule=(
            f"{SPREADS:g} spreads beyond the median of all images, separately for likeness to faults made on purpose "
            "and for the distance to the nearest others; the spread is that of the better half, which faults do not "
            f"reach. Or fine structure shared with many others (correlation {MEMBER:g} or more)."
        ),
        findings=findings,
        summary={
            "different_pictures": len(evidence.rows),
            "like_a_fault": int(np.count_nonzero(evidence.fault >= 1)),
            "far_from_all": int(np.count_nonzero(evidence.distance >= 1)),
            "shared_pictures": [count for count in shared if count],
        },
        seconds=time.perf_counter() - began,
    )


def _reason(evidence: _Evidence, index: int) -> tuple[Suggestion, str]:
    kind = evidence.kinds[index]
    if evidence.group[index] >= 0:
        others = int(np.count_nonzero(evidence.group == evidence.group[index])) - 1
        agreement = evidence.agreement[index]
        return "drop", f"The same picture lies over this and {others:,} other images (correlation {agreement:.2f})."
    if evidence.fault[index] >= 1:
        suggestion: Suggestion = "drop" if kind in _DROPPED else "review"
        return suggestion, f"Looks most like: {kind} ({evidence.fault[index]:.1f} times as far out as the line)."
    times = evidence.distance[index]
    return "review", f"Nothing in the set is near it ({times:.1f} times as far out as the line); most like: {kind}."


def _outliers(
    material: Material,
    rows: NDArray[np.int64],
    copy_of: NDArray[np.int64],
    distance: NDArray[np.float64],
    seconds: float,
) -> CheckResult:
    units = _in_units_of_the_line(distance, OUTLIER_SPREADS)
    scores = _score(units)
    order = np.flatnonzero(scores <= 0.5)
    order = order[np.argsort(scores[order], kind="stable")]
    findings = [
        _finding(
            material,
            "outlier",
            int(rows[index]),
            float(scores[index]),
            "review",
            f"Rank {rank} of {len(rows):,} by distance to its nearest others, {units[index]:.1f} times the line.",
        )
        for rank, index in enumerate(order.tolist(), 1)
    ]
    return CheckResult(
        "outlier",
        scores=scores[copy_of],
        cut=0.5,
        cut_rule=(
            f"{OUTLIER_SPREADS:g} spreads beyond the median of the logarithm of the mean distance to the "
            f"{NEIGHBOURS // 2} nearest others after the {NEIGHBOURS - NEIGHBOURS // 2} nearest of all; the spread is "
            "that of the better half."
        ),
        findings=findings,
        seconds=seconds,
    )


def _rows_by_picture(copy_of: NDArray[np.int64], wanted: NDArray[np.intp]) -> dict[int, NDArray[np.int64]]:
    """All images of each wanted picture, copies included."""
    order = np.argsort(copy_of, kind="stable")
    starts = np.searchsorted(copy_of[order], wanted)
    ends = np.searchsorted(copy_of[order], wanted, side="right")
    return {int(w): order[a:b] for w, a, b in zip(wanted, starts, ends, strict=True)}


def _finding(material: Material, check: str, row: int, score: float, suggestion: Suggestion, why: str) -> Finding:
    cells = material.cells
    label = int(cells.labels[row])
    return Finding(
        check,
        cells.ids[row],
        cells.content_hash[row],
        score,
        suggestion,
        why,
        label="" if label == UNLABELLED else cells.class_names[label],
    )
