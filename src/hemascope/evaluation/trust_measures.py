"""What a model says of itself, measured on labelled cells: calibration, sets, the review queue, subtypes, cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemascope.assessment import Assessor
from hemascope.data.subtypes import measure_subtypes, subtypes_of
from hemascope.results import Predictions
from hemascope.trust_results import CalibrationResult, CoverageResult, SelectiveResult, TrustReport
from hemascope.uncertainty.calibration import measure_calibration
from hemascope.uncertainty.conformal import measure_coverage, prediction_sets
from hemascope.uncertainty.costs import default_costs, measure_cost, subtype_factors
from hemascope.uncertainty.selective import measure_selective
from hemascope.uncertainty.temperature import softmax


@dataclass(frozen=True)
class Seen:
    """Labelled cells under one condition (``clean`` or a kind of damage), and what the model said about them."""

    name: str
    title: str
    labels: NDArray[np.int64]
    predictions: Predictions


def measured_trust(
    conditions: Sequence[Seen],
    assessor: Assessor,
    *,
    costs: NDArray[np.float64] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> TrustReport:
    """All that needs nothing but predictions; the first condition is clean, and what is measured there alone is of it.

    costs  float64 (K, K), see ``uncertainty.costs``; left out: its own table
    """
    clean, record = conditions[0], assessor.record
    predicted = clean.predictions.predicted
    names, ids = assessor.class_names, clean.predictions.ids
    return TrustReport(
        class_names=list(names),
        n=len(clean.labels),
        fitted_on=record.fitted_on,
        temperature=record.temperature,
        ood_score=assessor.detector.default,
        views=record.views,
        calibration=tuple(calibration_of(seen, assessor, resamples, seed) for seen in conditions),
        coverage=tuple(one for seen in conditions for one in coverage_of(seen, assessor)),
        shown_sets=(assessor.cuts.method, assessor.cuts.by_class, assessor.cuts.level),
        selective=tuple(selective_of(seen, resamples, seed) for seen in conditions),
        subtypes=measure_subtypes(ids, clean.labels, predicted, names),
        cost=measure_cost(
            clean.labels,
            predicted,
            default_costs(names) if costs is None else costs,
            names,
            # What a confusion costs less for its subtype is of our table; a laboratory's own stands as it is.
            factors=None if costs is not None else subtype_factors(subtypes_of(ids), clean.labels, predicted, names),
            resamples=resamples,
            seed=seed,
        ),
        resamples=resamples,
        seed=seed,
    )


def calibration_of(seen: Seen, assessor: Assessor, resamples: int, seed: int) -> CalibrationResult:
    """Probabilities before temperature scaling and after."""
    before, after = (
        measure_calibration(softmax(seen.predictions.logits, temperature), seen.labels, resamples=resamples, seed=seed)
        for temperature in (1.0, assessor.record.temperature)
    )
    return CalibrationResult(condition=seen.name, title=seen.title, before=before, after=after)


def coverage_of(seen: Seen, assessor: Assessor) -> Iterator[CoverageResult]:
    """Of every kind of set at every level."""
    for cuts in assessor.record.conformal:
        sets = prediction_sets(seen.predictions.probs, cuts, never_empty=False)
        yield measure_coverage(sets, seen.labels, cuts, condition=seen.name, title=seen.title)


def selective_of(seen: Seen, resamples: int, seed: int) -> SelectiveResult:
    """The review queue: doubt against mistakes."""
    trust = seen.predictions.trust
    assert trust is not None
    wrong = seen.predictions.predicted != seen.labels
    return measure_selective(trust.doubt, wrong, condition=seen.name, title=seen.title, resamples=resamples, seed=seed)
