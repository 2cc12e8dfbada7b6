"""How well scores tell images that are no training cells from cells."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from hemascope.bootstrap import CHUNK, Floats, Ints, estimate, resample_weights
from hemascope.errors import DataError
from hemascope.trust_results import DetectionResult, Distance
from hemascope.uncertainty.binomial import proportion

Scores = NDArray[np.floating]

TPR = 0.95


def auroc(inside: Scores, outside: Scores) -> float:
    """Probability that an image (M,) scores above a cell (N,), a tie counting one half. NaN where there are none."""
    if not len(inside) or not len(outside):
        return float("nan")
    ranks = rankdata(np.concatenate([inside, outside]))[len(inside) :]
    return float((ranks.sum() - len(outside) * (len(outside) + 1) / 2) / (len(inside) * len(outside)))


def fpr_at_tpr(inside: Scores, outside: Scores, tpr: float = TPR) -> float:
    """Share of images (M,) taken for cells, where at least ``tpr`` of the cells (N,) are. NaN where there are none.

    The cut is the lowest score of a cell with at least that share of the cells at or below it; an image at the cut is
    taken for a cell. Raises DataError where ``tpr`` does not lie above 0 and at most at 1.
    """
    if not 0 < tpr <= 1:
        raise DataError(f"tpr must lie above 0 and at most at 1, found {tpr}")
    if not len(inside) or not len(outside):
        return float("nan")
    cut = np.sort(inside)[_place(len(inside), tpr)]
    return float((outside <= cut).mean())


def measure_detection(
    inside: Mapping[str, Scores],
    outside: Mapping[str, Scores],
    flagged: NDArray[np.bool_],
    *,
    name: str,
    title: str,
    distance: Distance,
    resamples: int = 1000,
    seed: int = 0,
) -> DetectionResult:
    """One set of M images against N cells, by every score, with 95 % intervals.

    inside   scores of the cells, each (N,)
    outside  the same scores of the images, each (M,)
    flagged  bool (M,): the images that the model marks

    Cells and images are resampled apart (see ``bootstrap``), the same draws for every score. Where no resample
    differs, as where all are told apart, no interval is given for the AUROC; FPR95 then has the exact binomial one of
    its images, as if the cut were known, as ``flagged`` has (Clopper and Pearson 1934). ``n`` of an Estimate is M.
    Raises DataError where scores are missing, of other lengths, or not numbers.
    """
    cells, images = _length(inside, "cells"), _length(outside, "images")
    if set(inside) != set(outside):
        lacking = sorted(set(inside) ^ set(outside))[0]
        raise DataError(f"cells and images must have the same scores; only one of them has {lacking!r}")
    if flagged.shape != (images,):
        raise DataError(f"flagged must have {images} entries, found shape {flagged.shape}")
    if resamples < 0:
        raise DataError(f"resamples must be 0 or more, found {resamples}")
    pairs = {score: _Sorted(own, outside[score]) for score, own in inside.items()}
    samples: dict[str, list[tuple[Floats, Floats]]] = {score: [] for score in pairs}
    rng = np.random.default_rng([seed, 89])
    rows = max(1, CHUNK // max(1, cells + images))
    for start in range(0, resamples if cells and images else 0, rows):
        count = min(rows, resamples - start)
        drawn = [resample_weights(np.full(count, n, dtype=np.int64), n, rng) for n in (cells, images)]
        for score, pair in pairs.items():
            samples[score].append(pair.resampled(*drawn))
    areas, shares = {}, {}
    for score, own in inside.items():
        area, share = (np.concatenate([np.empty(0), *(part[i] for part in samples[score])]) for i in (0, 1))
        areas[score] = estimate(auroc(own, outside[score]), area, images)
        found = fpr_at_tpr(own, outside[score])
        shares[score] = estimate(found, share, images, rates=np.array([found]), counts=np.array([images]))
    return DetectionResult(
        name=name,
        title=title,
        distance=distance,
        n=images,
        auroc=areas,
        fpr95=shares,
        flagged=proportion(int(flagged.sum()), images),
    )


class _Sorted:
    """Scores of N cells and M images, sorted once, to be counted in many resamples."""

    def __init__(self, inside: Scores, outside: Scores) -> None:
        self.order, self.other_order = np.argsort(inside, kind="stable"), np.argsort(outside, kind="stable")
        own, other = np.asarray(inside)[self.order], np.asarray(outside)[self.other_order]
        self.below, self.to = np.searchsorted(own, other, "left"), np.searchsorted(own, other, "right")
        self.taken = np.searchsorted(other, own, "right")  # images at or below each cell
        self.last = np.searchsorted(own, own, "right") - 1  # of the cells of equal score

    def resampled(self, cells: Ints, images: Ints) -> tuple[Floats, Floats]:
        """AUROC and FPR at TPR (B,), of how often each cell and image was drawn: (B, N) and (B, M)."""
        cells, images = cells[:, self.order], images[:, self.other_order]
        n, m = len(self.order), len(self.other_order)
        nothing = np.zeros((len(cells), 1), dtype=np.int64)
        up_to = np.concatenate([nothing, cells.cumsum(axis=1)], axis=1)
        area = ((up_to[:, self.below] + up_to[:, self.to]) * images).sum(axis=1) / (2 * n * m)
        place = (up_to[:, 1:] > _place(n, TPR)).argmax(axis=1)
        images_up_to = np.concatenate([nothing, images.cumsum(axis=1)], axis=1)
        share = images_up_to[np.arange(len(cells)), self.taken[self.last[place]]] / m
        return area, share


def _place(count: int, tpr: float) -> int:
    """Place of the cut among ``count`` sorted scores; a share such as 0.95 of 20 is 19 in spite of rounding."""
    return max(1, int(np.ceil(count * tpr - 1e-9))) - 1


def _length(scores: Mapping[str, Scores], what: str) -> int:
    """How many images the scores are of; DataError where that is not one number, or a score is NaN."""
    lengths = {np.shape(values) for values in scores.values()}
    if len(lengths) != 1 or any(len(shape) != 1 for shape in lengths):
        raise DataError(f"every score must have one number for each of the {what}, found shapes {sorted(lengths)}")
    for name, values in scores.items():
        if np.isnan(values).any():
            raise DataError(f"the score {name!r} of the {what} holds NaN: leave out unreadable images first")
    return int(next(iter(lengths))[0])
