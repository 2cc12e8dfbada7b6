"""How well the attributes are told, beside what others published."""

from __future__ import annotations

import numpy as np

from hemascope.errors import DataError
from hemascope.metrics import bootstrap_estimates
from hemascope.morphology.attributes import ATTRIBUTES
from hemascope.morphology.head import AttributeHead, Floats, Ints
from hemascope.trust_results import AttributeResult

PUBLISHED: dict[str, float] = {}
"""Macro F1 of other works by attribute, as shares. Empty: figures by attribute could not be had from their source."""


def score_attributes(
    head: AttributeHead, features: Floats, values: Ints, *, resamples: int = 1000, seed: int = 0
) -> list[AttributeResult]:
    """Macro F1 and accuracy of each attribute, with 95 % bootstrap intervals, in the order of ``ATTRIBUTES``.

    features  floating (N, D)
    values    int64 (N, 11): what is true

    Raises DataError for shapes that do not fit or values that are unknown.
    """
    if values.shape != (len(features), len(ATTRIBUTES)) or not len(values):
        raise DataError(
            f"there must be {len(ATTRIBUTES)} values for each of {len(features)} cells, found {values.shape}"
        )
    results = []
    probs = head.decision_probs(features)
    for column, (name, attribute) in enumerate(ATTRIBUTES.items()):
        found = bootstrap_estimates(
            probs[name], np.ascontiguousarray(values[:, column]), resamples=resamples, seed=seed
        ).metrics
        results.append(
            AttributeResult(
                attribute=name,
                title=attribute.title,
                values=list(attribute.values),
                n=len(values),
                macro_f1=found["macro_f1"],
                accuracy=found["accuracy"],
                published=PUBLISHED.get(name),
            )
        )
    return results
