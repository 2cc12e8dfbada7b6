"""Prediction sets that hold the true class as often as promised: split conformal prediction.

Three nonconformity scores, higher is stranger: LAC, one minus the class's probability (Sadinle, Lei, Wasserman 2019);
APS, the probability of all classes down to and with this one (Romano, Sesia, Candès 2020); RAPS, APS with a penalty on
long lists (Angelopoulos, Bates, Jordan, Malik 2021). A class is in the set where its score does not exceed the cut.
Sets are not randomised: the same cell gets the same set, and APS then promises a little more than it must.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hemascope.bootstrap import TAIL
from hemascope.errors import DataError
from hemascope.results import Estimate, SavedRecord
from hemascope.trust_results import ConformalMethod, CoverageResult
from hemascope.uncertainty.binomial import proportion

ASSUMPTIONS = (
    "The promise holds for cells like those the cuts were fitted on: of the same laboratory, stain and scanner, in no "
    "particular order. It is kept on average over many cells, and with cuts for each class on average within each; "
    "it says nothing of one cell. Under another stain, in a blurred picture or with another kind of patient it is void."
)
"""What must be true for the coverage, in words for a laboratory."""

RAPS_FREE, RAPS_PENALTY = 2, 0.01
"""RAPS: so many classes cost nothing, each further one this much."""

_Cut = Annotated[float, Field(allow_inf_nan=False)]


class ConformalCuts(SavedRecord):
    """What sets are made with.

    level        wanted share of sets that hold the true class
    by_class     whether each class has a cut of its own (Mondrian): the promise then holds within each class
    cuts         one, or one a class; None where there are too few cells for a finite one: the class is in every set
    counts       calibration cells behind each cut
    free, penalty  of RAPS
    """

    method: ConformalMethod
    level: float = Field(gt=0, lt=1)
    by_class: bool
    cuts: tuple[_Cut | None, ...] = Field(min_length=1)
    counts: tuple[int, ...]
    free: int = Field(RAPS_FREE, ge=0)
    penalty: float = Field(RAPS_PENALTY, ge=0)


def nonconformity_scores(
    probs: NDArray[np.floating], method: ConformalMethod, *, free: int = RAPS_FREE, penalty: float = RAPS_PENALTY
) -> NDArray[np.float64]:
    """How strange each class is for each cell: float64 (N, K) of probabilities (N, K). Raises DataError for NaN."""
    probs = np.asarray(probs, dtype=np.float64)
    if not np.isfinite(probs).all():
        raise DataError("prediction sets take finite probabilities; leave unreadable images out")
    if method == "lac":
        return np.asarray(1 - probs)
    order = np.argsort(-probs, axis=1, kind="stable")
    ranked = np.cumsum(np.take_along_axis(probs, order, axis=1), axis=1)
    if method == "raps":
        ranked = ranked + penalty * np.maximum(np.arange(1, probs.shape[1] + 1) - free, 0)
    scores = np.empty_like(probs)
    np.put_along_axis(scores, order, ranked, axis=1)
    return scores


def fit_conformal(
    probs: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    method: ConformalMethod,
    level: float,
    by_class: bool = False,
    free: int = RAPS_FREE,
    penalty: float = RAPS_PENALTY,
) -> ConformalCuts:
    """Cuts from calibration cells that the model was not trained on: probabilities (N, K), labels (N,).

    The cut is the ceil((n + 1) level)-th smallest score of the true classes; with fewer cells than that there is none,
    and the class goes into every set. Raises DataError for no cells, labels outside 0 to K - 1, NaN.
    """
    probs = np.asarray(probs)
    if probs.ndim != 2 or len(probs) != len(labels) or not len(labels):
        raise DataError(f"cuts take probabilities (N, K) and N labels, N at least 1; found {probs.shape}")
    classes = probs.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"labels must lie in 0 to {classes - 1}, found {labels.min()} to {labels.max()}")
    scores = nonconformity_scores(probs, method, free=free, penalty=penalty)[np.arange(len(labels)), labels]
    groups = [scores[labels == k] for k in range(classes)] if by_class else [scores]
    return ConformalCuts(
        method=method,
        level=level,
        by_class=by_class,
        cuts=tuple(_quantile(group, level) for group in groups),
        counts=tuple(len(group) for group in groups),
        free=free,
        penalty=penalty,
    )


def _quantile(scores: NDArray[np.float64], level: float) -> float | None:
    rank = math.ceil((len(scores) + 1) * level - 1e-9)  # 100 times 0.99 must not become 100 by rounding
    return None if rank > len(scores) else float(np.sort(scores)[rank - 1])


def prediction_sets(probs: NDArray[np.floating], cuts: ConformalCuts, *, never_empty: bool = True) -> NDArray[np.bool_]:
    """The classes that cannot be ruled out: bool (N, K) of probabilities (N, K).

    never_empty  puts the most probable class into a set that would hold none, as LAC's may: an empty list is of no use
                 to a reader. Coverage can only grow by it; measure the promise itself without
    """
    scores = nonconformity_scores(probs, cuts.method, free=cuts.free, penalty=cuts.penalty)
    limits = np.array([np.inf if cut is None else cut for cut in cuts.cuts])
    sets: NDArray[np.bool_] = scores <= limits
    if never_empty and len(sets):
        empty = np.flatnonzero(~sets.any(axis=1))
        sets[empty, np.asarray(probs)[empty].argmax(axis=1)] = True
    return sets


def measure_coverage(
    sets: NDArray[np.bool_], labels: NDArray[np.integer], cuts: ConformalCuts, *, condition: str, title: str
) -> CoverageResult:
    """How often sets (N, K) hold the true class (N,), beside what the promise allows for these numbers of cells.

    ``expected`` is the 95 % interval of the share of N new cells that are covered if the promise holds, over the draw
    of both the calibration and the new cells: beta-binomial with ceil((n + 1) level) and n + 1 - that (Vovk 2012). It
    is ``kept`` where the observed share is not below it: more than promised is no breach, and ties and lists that are
    not randomised do give more.
    """
    classes = sets.shape[1]
    hit = sets[np.arange(len(labels)), labels]
    of_class = [hit[labels == k] for k in range(classes)]
    sizes = sets.sum(axis=1)
    if cuts.by_class:
        laws = [_law(count, cuts.level, len(found)) for count, found in zip(cuts.counts, of_class, strict=True)]
        kept = all(
            law is None or not len(found) or found.mean() >= law[0] - 1e-12
            for law, found in zip(laws, of_class, strict=True)
        )
        low, high = _law_of_many(cuts, of_class)
    else:
        laws = [None] * classes
        low, high = _law(cuts.counts[0], cuts.level, len(labels)) or (0.0, 1.0)
        kept = not len(hit) or bool(hit.mean() >= low - 1e-12)
    return CoverageResult(
        condition=condition,
        title=title,
        method=cuts.method,
        level=cuts.level,
        by_class=cuts.by_class,
        n=len(labels),
        coverage=proportion(int(hit.sum()), len(hit)),
        expected=(low, high),
        kept=kept,
        class_coverage=[proportion(int(found.sum()), len(found)) for found in of_class],
        class_expected=laws,
        mean_size=_mean(sizes),
        class_size=[_mean(sizes[labels == k]) for k in range(classes)],
        sizes=np.bincount(sizes, minlength=classes + 1).tolist(),
    )


def _law(count: int, level: float, n: int) -> tuple[float, float] | None:
    """95 % of the shares covered of ``n`` new cells with a cut from ``count``; None where there is no finite cut."""
    rank = math.ceil((count + 1) * level - 1e-9)
    if rank > count or not n:
        return None
    from scipy.stats import betabinom  # half a second, which prediction need not wait for

    law = betabinom(n, rank, count + 1 - rank)
    return float(law.ppf(TAIL)) / n, float(law.ppf(1 - TAIL)) / n


def _law_of_many(cuts: ConformalCuts, of_class: list[NDArray[np.bool_]]) -> tuple[float, float]:
    """The interval of the whole, its classes' laws drawn independently and added up."""
    rng, n = np.random.default_rng(0), sum(len(found) for found in of_class)
    if not n:
        return 0.0, 1.0
    total = np.zeros(4000)
    for count, found in zip(cuts.counts, of_class, strict=True):
        rank = math.ceil((count + 1) * cuts.level - 1e-9)
        if rank > count:
            total += len(found)
        elif len(found):
            total += rng.binomial(len(found), rng.beta(rank, count + 1 - rank, size=len(total)))
    low, high = np.quantile(total / n, [TAIL, 1 - TAIL])
    return float(low), float(high)


def _mean(sizes: NDArray[np.integer]) -> Estimate:
    """Mean with its normal 95 % interval."""
    if not len(sizes):
        return Estimate(value=None, n=0)
    mean, spread = float(sizes.mean()), float(sizes.std(ddof=1)) if len(sizes) > 1 else 0.0
    half = 1.96 * spread / math.sqrt(len(sizes))
    return Estimate(value=mean, low=max(0.0, mean - half), high=mean + half, n=len(sizes))
