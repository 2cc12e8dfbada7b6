"""A few labels of new cells: temperature and sets fitted anew, and what that changes on cells left out in turn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hemascope.assessment import TrustRecord
from hemascope.errors import DataError
from hemascope.shift_results import Recalibration
from hemascope.uncertainty.binomial import proportion
from hemascope.uncertainty.calibration import measure_calibration
from hemascope.uncertainty.conformal import ConformalCuts, fit_conformal, prediction_sets
from hemascope.uncertainty.temperature import fit_temperature, softmax

PRIOR = 50
"""Labels' worth of trust in the old temperature: with as many new ones the two count alike."""

FOLDS = 5

LEVELS = (0.99, 0.95, 0.90)


def refit(
    record: TrustRecord, logits: NDArray[np.floating], labels: NDArray[np.int64], *, seed: int = 0
) -> tuple[TrustRecord, Recalibration]:
    """The record with a new temperature and new cuts, from logits (N, K) and labels (N,), and their effect.

    The temperature is the geometric mean of the old and the one fitted on the N cells, weighted PRIOR to N: a few
    labels move it a little. One cut for all classes is fitted anew where N cells suffice for its level; where they do
    for another level only, it is taken away, since the old one promises nothing here. The sets shown are of the most
    demanding level that has a cut. The effect is measured in FOLDS folds, each judged by what was fitted on the others.
    Cuts for each class, the line for doubt and the detector stay as they are. Raises DataError for fewer than 2 cells.
    """
    n = len(labels)
    if n < 2:
        raise DataError(f"recalibration takes at least 2 labelled cells, found {n}")
    temperature = _shrunk(record.temperature, logits, labels)
    cuts = _refitted(record, softmax(logits, temperature), labels)
    shown = next((place for place, one in enumerate(cuts) if _shown(one) and one.cuts[0] is not None), record.sets)
    new = record.model_copy(update={"temperature": temperature, "conformal": cuts, "sets": shown})
    folds = np.random.default_rng(seed).permutation(n) % min(FOLDS, n)
    before, after = softmax(logits, record.temperature), np.empty(logits.shape, dtype=np.float32)
    covered_before, covered_after = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    old_cuts = record.conformal[record.sets]
    for fold in range(min(FOLDS, n)):
        rest, mine = folds != fold, folds == fold
        own = _shrunk(record.temperature, logits[rest], labels[rest])
        after[mine] = softmax(logits[mine], own)
        fitted = _one(softmax(logits[rest], own), labels[rest], cuts[shown])
        places = np.arange(mine.sum()), labels[mine]
        covered_before[mine] = prediction_sets(before[mine], old_cuts)[places]
        covered_after[mine] = prediction_sets(after[mine], fitted)[places]
    old, fresh = (measure_calibration(probs, labels, resamples=500, seed=seed) for probs in (before, after))
    return new, Recalibration(
        labels=n,
        accuracy=proportion(int((logits.argmax(axis=1) == labels).sum()), n),
        temperature_before=record.temperature,
        temperature_after=temperature,
        nll_before=old.nll,
        nll_after=fresh.nll,
        ece_before=old.ece,
        ece_after=fresh.ece,
        level=cuts[shown].level,
        coverage_before=proportion(int(covered_before.sum()), n),
        coverage_after=proportion(int(covered_after.sum()), n),
        cuts_refitted=cuts[shown] != record.conformal[shown],
    )


def _shrunk(old: float, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    weight = len(labels) / (len(labels) + PRIOR)
    return float(np.exp((1 - weight) * np.log(old) + weight * np.log(fit_temperature(logits, labels))))


def _shown(cuts: ConformalCuts) -> bool:
    """Whether they are of the kind that is shown: LAC, one cut for all classes."""
    return cuts.method == "lac" and not cuts.by_class


def _refitted(record: TrustRecord, probs: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[ConformalCuts, ...]:
    found = []
    for one in record.conformal:
        new = one if one.by_class else _one(probs, labels, one)
        found.append(one if new.cuts[0] is None and not one.by_class else new)
    # Those shown first: where the new cells have no cut at a level, that level's old one promises nothing here.
    finite = [one.level for one in found if _shown(one) and one.counts[0] == len(labels)]
    if not finite:
        return tuple(found)
    return tuple(
        one if not (_shown(one) and one.level not in finite) else one.model_copy(update={"cuts": (None,)})
        for one in found
    )


def _one(probs: NDArray[np.float32], labels: NDArray[np.int64], like: ConformalCuts) -> ConformalCuts:
    return fit_conformal(
        probs,
        labels,
        method=like.method,
        level=like.level,
        by_class=False,
        free=like.free,
        penalty=like.penalty,
    )
