"""The review queue: which cells to show a person first, and what that helps.

A model that may leave its most doubtful cells to a person is judged by its risk-coverage curve (El-Yaniv and Wiener
2010): coverage is the share of cells it keeps, risk the share of errors among them. The area under it (AURC, Geifman
and El-Yaniv 2017) holds both how well doubts are ordered and how many errors there are; the excess over the best
possible order (E-AURC, Geifman, Uziel and El-Yaniv 2019) only the first.

Cells of equal doubt are in no order: every figure is the mean over all orders of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemascope.bootstrap import GROUPS, Floats, Ints, estimate, resample_counts
from hemascope.errors import DataError
from hemascope.results import Estimate
from hemascope.trust_results import ReviewRow, SelectiveResult

SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares of the cells that a lab might look at."""

CURVE_POINTS = 200
"""Most points of the curve that are kept: half of them in the last tenth, where the queue is."""

_ROUNDING = 1e-9
"""A fiftieth of 2,050 cells is 41, whatever 0.02 is in binary."""


def doubt_of(probs: NDArray[np.floating]) -> NDArray[np.float32]:
    """What a review queue is sorted by, highest first: float32 (N,), of calibrated probabilities (N, K).

    How little the most probable class leads the second (margin sampling, Scheffer, Decomain, Wrobel 2001): 1 less the
    difference of their probabilities, 0 to 1. It is summed from the other classes' probabilities: 1 minus the largest
    is 0 for every certain cell in float32. Chosen among others by ``benchmarks/review_queue.py``: adding the share of
    views that name another class sorts clean validation cells no better and damaged ones worse, since the averaged
    probabilities hold what the views know; that views disagree is a reason for review of its own. Raises DataError for
    another shape and for values that are not finite.
    """
    if probs.ndim != 2:
        raise DataError(f"probabilities must be (N, K), found {probs.shape}")
    if not np.isfinite(probs).all():
        raise DataError("probabilities must be finite, found NaN: leave out unreadable images first")
    if not probs.size:
        return np.zeros(len(probs), dtype=np.float32)
    others = np.array(probs, dtype=np.float64)
    others[np.arange(len(others)), probs.argmax(axis=1)] = 0.0
    return np.asarray(others.sum(axis=1) + others.max(axis=1), dtype=np.float32)


def risk_coverage(doubt: NDArray[np.floating], wrong: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Coverage and risk, float64 (N,) each: the share kept, i / N, and the share of errors among the i least doubtful.

    doubt  (N,), higher is more doubtful
    wrong  bool (N,)

    Raises DataError without cells, for lengths that differ and for a doubt that is not finite.
    """
    queue = _Queue.of(doubt, wrong)
    kept = np.arange(1, len(doubt) + 1)
    return kept / len(doubt), _errors_among(queue.cells[None], queue.errors[None], kept[None])[0] / kept


def measure_selective(
    doubt: NDArray[np.floating],
    wrong: NDArray[np.bool_],
    *,
    condition: str,
    title: str,
    shares: Sequence[float] = SHARES,
    resamples: int = 1000,
    seed: int = 0,
) -> SelectiveResult:
    """What it helps to leave the most doubtful of N cells to a person, with 95 % bootstrap intervals over the cells.

    doubt   (N,), higher is more doubtful
    wrong   bool (N,)
    shares  of the cells to look at; a share of a cell is none, so that nobody looks at more than was said

    Above GROUPS cells the intervals take cells of nearly equal doubt together. ``errors_caught`` of a row is rounded
    where cells of equal doubt lie on the edge; ``caught`` is not. Raises DataError as ``risk_coverage`` does, and for a
    share outside 0 to 1.
    """
    outside = [share for share in shares if not 0 <= share <= 1]
    if outside:
        raise DataError(f"a share of the cells to review must lie from 0 to 1, found {outside[0]}")
    queue = _Queue.of(doubt, wrong)
    n, errors = len(doubt), int(np.count_nonzero(wrong))
    coverage, risk = risk_coverage(doubt, wrong)
    best = _best_area(np.array([errors]), n, _harmonic(n))[0]
    area = risk.mean()
    reviewed = np.array([int(share * n + _ROUNDING) for share in shares], dtype=np.int64)
    caught = errors - _errors_among(queue.cells[None], queue.errors[None], (n - reviewed)[None])[0]

    coarse = queue.coarse(GROUPS)
    samples = _Samples.drawn(coarse, reviewed, resamples, np.random.default_rng(seed))
    # What taking cells together changes in the area itself is taken back, so that the interval lies about the value.
    samples.area += area - _area(coarse.cells[None], coarse.errors[None], _harmonic(n))[0]
    return SelectiveResult(
        condition=condition,
        title=title,
        n=n,
        errors=errors,
        aurc=estimate(float(area), samples.area, n),
        excess_aurc=estimate(float(area - best), samples.area - samples.best, n),
        curve=_thinned(coverage, risk),
        rows=[
            _row(share, int(reviewed[k]), float(caught[k]), errors, n, samples.caught[:, k], samples.errors)
            for k, share in enumerate(shares)
        ],
    )


def _row(
    share: float, reviewed: int, caught: float, errors: int, n: int, drawn: Floats, drawn_errors: Ints
) -> ReviewRow:
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = drawn / drawn_errors
        remaining = (drawn_errors - drawn) / (n - reviewed)
    value = caught / errors if errors else float("nan")
    left = (errors - caught) / (n - reviewed) if reviewed < n else float("nan")
    return ReviewRow(
        share=share,
        reviewed=reviewed,
        errors_caught=round(caught),
        caught=_share(value, shares, errors),
        remaining_error=_share(left, remaining, n - reviewed),
    )


def _share(value: float, samples: Floats, n: int) -> Estimate:
    """With the exact limit where it is all or nothing, and so is every resample."""
    if value not in (0.0, 1.0):
        return estimate(value, samples, n)
    return estimate(value, samples, n, rates=np.array([value]), counts=np.array([n]))


@dataclass(frozen=True)
class _Queue:
    """Cells and errors among them, float64 (G,), of each doubt that occurs, the least first."""

    cells: Floats
    errors: Floats

    @classmethod
    def of(cls, doubt: NDArray[np.floating], wrong: NDArray[np.bool_]) -> _Queue:
        if doubt.ndim != 1 or wrong.shape != doubt.shape:
            raise DataError(f"doubts and errors must be equally many, found {doubt.shape} and {wrong.shape}")
        if not len(doubt):
            raise DataError("there are no cells to sort by doubt")
        if not np.isfinite(doubt).all():
            raise DataError("doubts must be finite, found NaN or infinity: leave out unreadable images first")
        _, group = np.unique(doubt, return_inverse=True)
        return cls(
            np.bincount(group).astype(np.float64),
            np.bincount(group[wrong], minlength=group.max() + 1).astype(np.float64),
        )

    def coarse(self, groups: int) -> _Queue:
        """Neighbouring doubts as one, until there are at most ``groups``."""
        if len(self.cells) <= groups:
            return self
        starts = np.arange(groups) * len(self.cells) // groups
        return _Queue(*(np.asarray(np.add.reduceat(one, starts)) for one in (self.cells, self.errors)))


@dataclass
class _Samples:
    """Of B resamples: areas under the curve and the best possible ones (B,), errors (B,), caught (B, R)."""

    area: Floats
    best: Floats
    errors: Ints
    caught: Floats

    @classmethod
    def drawn(cls, queue: _Queue, reviewed: Ints, resamples: int, rng: np.random.Generator) -> _Samples:
        """Cells drawn with replacement: one multinomial draw over right and wrong cells of each doubt."""
        n = int(queue.cells.sum())
        kept = n - reviewed
        harmonic = _harmonic(n)
        parts = list(cls._parts(queue, kept, resamples, rng, harmonic))
        if not parts:
            return cls(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros((0, len(reviewed))))
        area, best, errors, caught = (np.concatenate(column) for column in zip(*parts, strict=True))
        return cls(area, best, errors, caught)

    @staticmethod
    def _parts(
        queue: _Queue, kept: Ints, resamples: int, rng: np.random.Generator, harmonic: Floats
    ) -> Iterator[tuple[Floats, Floats, Ints, Floats]]:
        groups, n = len(queue.cells), int(queue.cells.sum())
        kinds = np.concatenate([queue.cells - queue.errors, queue.errors]).astype(np.int64)
        for counts in resample_counts(kinds, resamples, rng):
            wrong = counts[:, groups:].astype(np.float64)
            cells = counts[:, :groups] + wrong
            errors = counts[:, groups:].sum(axis=1)
            caught = errors[:, None] - _errors_among(cells, wrong, np.broadcast_to(kept, (len(counts), len(kept))))
            yield _area(cells, wrong, harmonic), _best_area(errors, n, harmonic), errors, caught


def _errors_among(cells: Floats, errors: Floats, kept: Ints) -> Floats:
    """Expected errors among the ``kept`` (B, R) least doubtful: (B, R), for ``cells`` and ``errors`` (B, G)."""
    found = np.empty(kept.shape)
    for row, (of_cells, of_errors) in enumerate(zip(cells, errors, strict=True)):
        # Straight lines between the ends of the groups: within one, every order is as likely as any other.
        after = np.concatenate([[0.0], np.cumsum(of_cells)])
        found[row] = np.interp(kept[row], after, np.concatenate([[0.0], np.cumsum(of_errors)]))
    return found


def _area(cells: Floats, errors: Floats, harmonic: Floats) -> Floats:
    """Mean risk over the coverages 1/N to 1, (B,), of ``cells`` and ``errors`` (B, G), each row of N cells.

    Within a group of m cells and r errors each, after n cells with e errors, the risks are (e + j r) / (n + j) for j
    from 1 to m; their sum is r m + (e - r n) (H(n + m) - H(n)) with the harmonic numbers H.
    """
    after, wrong_after = np.cumsum(cells, axis=1), np.cumsum(errors, axis=1)
    before, wrong_before = after - cells, wrong_after - errors
    rate = errors / np.maximum(cells, 1.0)
    steps = harmonic[np.rint(after).astype(np.int64)] - harmonic[np.rint(before).astype(np.int64)]
    total = (errors + (wrong_before - rate * before) * steps).sum(axis=1)
    return np.asarray(total / after[:, -1])


def _best_area(errors: Ints, n: int, harmonic: Floats) -> Floats:
    """The area if all errors (B,) of ``n`` cells came last: (B,)."""
    right = n - errors
    return np.asarray((errors - right * (harmonic[n] - harmonic[right])) / n)


def _harmonic(n: int) -> Floats:
    """H(0) to H(n)."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, n + 1))])


def _thinned(coverage: Floats, risk: Floats) -> list[tuple[float, float]]:
    """At most CURVE_POINTS points of the curve, its ends among them."""
    n = len(coverage)
    places = np.arange(n)
    if n > CURVE_POINTS:
        half = CURVE_POINTS // 2
        places = np.unique(np.rint(np.concatenate([
            np.linspace(0, 0.9 * (n - 1), half, endpoint=False), np.linspace(0.9 * (n - 1), n - 1, half)
        ])).astype(np.int64))  # fmt: skip
    return [(float(coverage[place]), float(risk[place])) for place in places]
