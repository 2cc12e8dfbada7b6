"""How often a model will be right on cells nobody has labelled.

Three estimates from its probabilities alone:

average_confidence  the mean of its largest probability (Hendrycks and Gimpel 2017), honest as far as calibration is
atc                 the share of cells whose confidence is above the line that, on calibration cells, as many lie above
                    as are right (Garg et al. 2022)
doc                 accuracy on calibration cells less the fall of the average confidence (Guillory et al. 2021)

Which of them a model uses is chosen on calibration cells damaged by training's augmentation, and so is the error it is
said to have; the corruptions of the stress test take no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from hemascope.errors import BundleError, DataError
from hemascope.results import Estimate, SavedRecord

Method = Literal["average_confidence", "atc", "doc"]
METHODS: tuple[Method, ...] = ("average_confidence", "atc", "doc")


class ExpectedAccuracy(SavedRecord):
    """What the estimates need.

    method      the one in use: the smallest mean absolute error over the damaged sets
    error       the 95 % quantile of its absolute error over them
    errors      mean absolute error of each method
    sets        how many damaged sets, of ``cells`` cells each
    line        of atc
    accuracy, confidence  means over the calibration cells as they are
    """

    method: Method
    error: float = Field(ge=0, le=1)
    errors: dict[str, float]
    sets: int = Field(ge=1)
    cells: int = Field(ge=1)
    line: float = Field(allow_inf_nan=False)
    accuracy: float = Field(ge=0, le=1)
    confidence: float = Field(ge=0, le=1)


def fit_expected_accuracy(
    probs: NDArray[np.floating],
    labels: NDArray[np.integer],
    damaged: Sequence[tuple[NDArray[np.floating], NDArray[np.integer]]],
) -> dict[str, Any]:
    """The record, ready for JSON, from calibrated probabilities (N, K) and labels (N,) of calibration cells.

    damaged  (probabilities, labels) of sets of calibration cells that were damaged

    Raises DataError without cells or sets.
    """
    if not len(probs) or not damaged:
        raise DataError("expected accuracy takes calibration cells and at least one set of damaged ones")
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    accuracy = float(right.mean())
    # As many calibration cells lie above the line as are named rightly.
    line = float(np.quantile(confidence, 1 - accuracy))
    draft = ExpectedAccuracy(
        method="average_confidence",
        error=0.0,
        errors={},
        sets=len(damaged),
        cells=len(damaged[0][0]),
        line=line,
        accuracy=accuracy,
        confidence=float(confidence.mean()),
    )
    truth = np.array([float((found.argmax(axis=1) == known).mean()) for found, known in damaged])
    errors = {
        method: np.abs(np.array([estimate_of(draft, found, method) for found, _ in damaged]) - truth)
        for method in METHODS
    }
    best = min(METHODS, key=lambda method: float(errors[method].mean()))
    return draft.model_copy(
        update={
            "method": best,
            "error": float(np.quantile(errors[best], 0.95)),
            "errors": {method: float(errors[method].mean()) for method in METHODS},
        }
    ).model_dump(mode="json")


def read_expected_accuracy(record: Mapping[str, Any], where: object = "the bundle") -> ExpectedAccuracy:
    """The record in a bundle. Raises BundleError where it is malformed."""
    try:
        return ExpectedAccuracy.model_validate(record)
    except ValidationError as error:
        raise BundleError(f"the expected accuracy in {where} is malformed: {error.errors()[0]['msg']}.") from error


def estimate_of(record: ExpectedAccuracy, probs: NDArray[np.floating], method: Method) -> float:
    """One estimate for cells with calibrated probabilities (N, K), 0 to 1. Raises DataError without cells."""
    if not len(probs):
        raise DataError("there are no cells to expect an accuracy of")
    confidence = probs.max(axis=1)
    if method == "atc":
        return float((confidence >= record.line).mean())
    mean = float(confidence.mean())
    return mean if method == "average_confidence" else float(np.clip(record.accuracy + mean - record.confidence, 0, 1))


def expected_accuracy(record: ExpectedAccuracy, probs: NDArray[np.floating]) -> Estimate:
    """By the method in use; its interval adds the method's error and the chance of N cells."""
    value = estimate_of(record, probs, record.method)
    chance = 1.96 * float(np.sqrt(max(value * (1 - value), 1 / len(probs)) / len(probs)))
    half = float(np.hypot(record.error, chance))
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half), n=len(probs))
