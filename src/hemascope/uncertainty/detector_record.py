"""What a bundle holds of a detector of foreign images: read with suspicion, for it may come from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from hemascope.errors import BundleError
from hemascope.results import SavedRecord

SCORES: Final = ("energy", "max_logit", "msp", "knn", "mahalanobis", "vim", "residual", "early")
"""Higher is less like the training cells.

energy       minus the log-sum-exp of the logits (Liu et al. 2020)
max_logit    minus the largest logit (Hendrycks et al. 2022)
msp          1 minus the largest softmax probability (Hendrycks and Gimpel 2017)
knn          distance to the ``neighbours``-th nearest training cell, features of length 1 (Sun et al. 2022)
mahalanobis  squared distance to the nearest class mean, one covariance for all classes (Lee et al. 2018), features of
             length 1 (Müller and Hein 2025)
vim          length outside the cells' directions, as a logit, less log-sum-exp (Wang et al. 2022)
residual     share of the length that lies outside the cells' directions
early        as ``mahalanobis``, on means and deviations of the early stages, each column in units of its spread
"""

LARGEST_BANK: Final = 100_000
LARGEST_WIDTH: Final = 65_536
"""Of features; a file that asks for more is not believed."""

_AGAIN = "Copy the bundle again, or fit it again with hemascope calibrate."

_SHAPES: Final = {
    "centre": "D",
    "basis": "PD",
    "bank_vectors": "MP",
    "bank_labels": "M",
    "class_means": "KP",
    "whitening": "PP",
    "early_centre": "E",
    "early_spread": "E",
    "early_basis": "QE",
    "early_means": "JQ",
    "early_whitening": "QQ",
}
"""A letter for each side: D columns, P directions, M cells, K classes; E, Q and J for early features."""


class DetectorRecord(SavedRecord):
    """The numbers of a detector that are no arrays.

    score            one of SCORES, which ``cut`` belongs to: above it an image is out of distribution
    false_alarm      share of cells like those it was fitted on that may lie above the cut
    fitted_on        cells of the calibration part
    width, classes   columns of features and of logits; ``early_width``: of early features, 0 for none
    neighbours       of ``knn``
    alpha            what a length outside the directions counts as a logit: ``vim``
    outside_variance, early_outside_variance    of ``NormalLaws``
    """

    version: Literal[1] = 1
    score: str
    cut: float = Field(allow_inf_nan=False)
    false_alarm: float = Field(gt=0, lt=1)
    fitted_on: int = Field(ge=1)
    width: int = Field(ge=1, le=LARGEST_WIDTH)
    early_width: int = Field(default=0, ge=0, le=LARGEST_WIDTH)
    classes: int = Field(ge=1)
    neighbours: int = Field(ge=1)
    alpha: float = Field(ge=0, allow_inf_nan=False)
    outside_variance: float = Field(ge=0, allow_inf_nan=False)
    early_outside_variance: float = Field(default=0.0, ge=0, allow_inf_nan=False)


def read_detector(
    record: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]], where: object = "the bundle"
) -> DetectorRecord:
    """The record of a detector, once it and its arrays are sound; arrays it does not know are left alone.

    Raises BundleError where something is missing, has another shape or type, is not finite or is larger than
    believable. ``where`` is for the sentence.
    """
    try:
        read = DetectorRecord.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BundleError(
            f"the detector in {where} is malformed at {place or 'its top'}: {first['msg']}. {_AGAIN}"
        ) from error
    if read.score not in SCORES or (read.score == "early" and not read.early_width):
        raise BundleError(f"the detector in {where} goes by a score it does not hold, {read.score!r}. {_AGAIN}")
    _check_arrays(read, arrays, where)
    return read


def _check_arrays(record: DetectorRecord, arrays: Mapping[str, NDArray[np.generic]], where: object) -> None:
    """Raise BundleError unless every array is there, of its shape, finite and of a believable size."""
    sizes = {"D": record.width, "E": record.early_width}
    for name, shape in _SHAPES.items():
        if name.startswith("early") and not record.early_width:
            continue
        found = arrays.get(name)
        if found is None:
            raise BundleError(f"the detector in {where} lacks {name}. {_AGAIN}")
        kind = np.integer if name == "bank_labels" else np.floating
        fits = found.ndim == len(shape) and np.issubdtype(found.dtype, kind)
        # A letter not met before takes its size from this array.
        fits = fits and all(
            sizes.setdefault(letter, size) == size for letter, size in zip(shape, found.shape, strict=True)
        )
        if not fits or not found.size or not np.isfinite(found.astype(np.float32)).all():
            raise BundleError(
                f"{name} of the detector in {where}, {found.dtype} {found.shape}, does not fit the rest or is not "
                f"finite. {_AGAIN}"
            )
    if not record.neighbours <= sizes["M"] <= LARGEST_BANK or sizes["P"] > sizes["D"]:
        raise BundleError(f"the detector in {where} has arrays of sizes that cannot be. {_AGAIN}")
    if record.early_width and not (arrays["early_spread"] > np.float32(0)).all():
        raise BundleError(f"early_spread of the detector in {where} must be above 0. {_AGAIN}")
