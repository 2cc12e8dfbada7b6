"""How far to believe a prediction: what was fitted on the calibration part, applied to what a model says.

One object, ``Assessor``, is what the Predictor, the trust test and the page all ask, so that a cell is judged alike
everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeGuard

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from hemascope.errors import BundleError
from hemascope.morphology.head import AttributeHead
from hemascope.results import SavedRecord, Trust
from hemascope.similar import KnownCells
from hemascope.uncertainty.conformal import ConformalCuts, prediction_sets
from hemascope.uncertainty.out_of_distribution import Detector
from hemascope.uncertainty.selective import doubt_of

Floats = NDArray[np.float32]

REVIEW_SHARE = 0.02
"""Share of cells like those it was fitted on that are marked for their doubt alone: what a person can look at."""

VIEWS_AGREE = 0.75
"""A cell is marked where fewer of its views than this name the class that was predicted."""


class TrustRecord(SavedRecord):
    """The ``calibration`` of a bundle.

    fitted_on        cells of the calibration part
    views            test-time views it was fitted with; with others it does not hold
    temperature      logits are divided by it (Guo et al. 2017)
    conformal        cuts of every method and level that was fitted
    sets             which of them the prediction sets are made with: its place in ``conformal``
    detector         of ``uncertainty.out_of_distribution``, its arrays beside it
    doubt_cut        a cell of more doubt is marked: the quantile REVIEW_SHARE leaves above
    bank_ids         of the training cells in the array ``bank_vectors``
    morphology       of ``morphology.head``, or None
    shift            what the training cells look like: of ``shift.reference``, or None
    expected_accuracy  of ``uncertainty.expected_accuracy``, or None
    """

    version: Literal[1] = 1
    fitted_on: int = Field(ge=1)
    views: tuple[str, ...] = ()
    temperature: float = Field(gt=0, allow_inf_nan=False)
    conformal: tuple[ConformalCuts, ...] = Field(min_length=1)
    sets: int = Field(ge=0)
    detector: dict[str, Any]
    doubt_cut: float = Field(allow_inf_nan=False)
    bank_ids: tuple[str, ...] = ()
    morphology: dict[str, Any] | None = None
    shift: dict[str, Any] | None = None
    expected_accuracy: dict[str, Any] | None = None


class Assessor:
    """What speaks for and against each prediction of one model.

    class_names  K names, in the order of the logits
    record       a bundle's ``calibration``
    arrays       of its ``trust.safetensors``
    where        the bundle, for sentences

    Raises BundleError where the two are damaged or do not fit the classes.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        record: Mapping[str, Any],
        arrays: Mapping[str, NDArray[np.generic]],
        *,
        where: object = "the bundle",
    ) -> None:
        self.class_names = tuple(class_names)
        self._arrays, self._where = arrays, where
        try:
            self.record = TrustRecord.model_validate(record)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise BundleError(
                f"the calibration in {where} is malformed at {place or 'its top'}: {first['msg']}. "
                "Copy the bundle again, or fit it again with hemascope calibrate."
            ) from error
        if self.record.sets >= len(self.record.conformal):
            raise BundleError(f"the calibration in {where} names prediction sets that it does not hold.")
        for cuts in self.record.conformal:
            if len(cuts.cuts) not in (1, len(self.class_names)):
                raise BundleError(f"the calibration in {where} has {len(cuts.cuts)} cuts for another list of classes.")
        self.cuts = self.record.conformal[self.record.sets]
        self.detector = Detector.from_saved(self.record.detector, arrays, where=where)
        if self.detector.record.classes != len(self.class_names):
            raise BundleError(
                f"the detector in {where} is for {self.detector.record.classes} classes, the model knows "
                f"{len(self.class_names)}. Copy the bundle again, or fit it again with hemascope calibrate."
            )
        self.words = (
            None if self.record.morphology is None else AttributeHead.from_saved(self.record.morphology, arrays)
        )

    def check_widths(self, features: int, stages: int) -> None:
        """Raise BundleError unless all was fitted for a network of so many features and so many of its stages."""
        detector = self.detector.record
        words = None if self.words is None else self.words.record.dimensions
        if detector.width != features or detector.early_width > stages or words not in (None, stages or features):
            raise BundleError(
                f"the calibration in {self._where} is for {detector.width} features, the network gives {features}. "
                "Copy the bundle again, or fit it again with hemascope calibrate."
            )

    def known_cells(self) -> KnownCells:
        """The training cells that the bundle keeps, to find the most similar ones among. Raises BundleError."""
        vectors, labels = self._arrays["bank_vectors"], self._arrays["bank_labels"]
        rows, ids = self._arrays.get("bank_rows"), self.record.bank_ids
        if not _are_places(rows, len(vectors), len(ids)):
            raise BundleError(
                f"the training cells in {self._where} do not fit their names. Fit it again with hemascope calibrate."
            )
        if int(labels.max()) >= len(self.class_names):
            raise BundleError(
                f"bank_labels in {self._where} name classes that the model does not know. Fit it again with hemascope "
                "calibrate."
            )
        return KnownCells(
            [ids[row] for row in rows.tolist()],
            labels.astype(np.int64),
            vectors.astype(np.float32),
            self.class_names,
        )

    def early(self, stages: Floats) -> Floats | None:
        """The columns of (N, E) that the detector goes by, None where it does not."""
        width = self.detector.record.early_width
        return stages[:, :width] if width else None

    def assess(self, logits: Floats, probs: Floats, features: Floats, stages: Floats, agreement: Floats) -> Trust:
        """Of N images that were read: as ``models.ensemble.Outputs``, float32."""
        sets = prediction_sets(probs, self.cuts)
        score = self.detector.score(features, logits, early=self.early(stages))
        inside = self.detector.in_distribution(score)
        doubt = doubt_of(probs)
        predicted = probs.argmax(axis=1) if len(probs) else np.zeros(0, dtype=np.int64)
        words: Sequence[str] = [""] * len(probs)
        disagrees = np.zeros(len(probs), dtype=bool)
        if self.words is not None:
            described = described_by(features, stages)
            words = self.words.describe(described, self.class_names, predicted)
            disagrees = self.words.disagrees(described, self.class_names, predicted)
        reasons = review_reasons(
            out_of_distribution=~inside,
            set_larger_than_one=sets.sum(axis=1) > 1,
            views_disagree=agreement < VIEWS_AGREE,
            low_confidence=doubt > self.record.doubt_cut,
            words_disagree=disagrees & inside,
        )
        return Trust(sets, score, inside, agreement.astype(np.float32), doubt, reasons, words)


def _are_places(rows: NDArray[np.generic] | None, count: int, among: int) -> TypeGuard[NDArray[np.integer[Any]]]:
    """Whether they are ``count`` whole numbers from 0 to ``among`` - 1."""
    if rows is None or rows.shape != (count,) or not np.issubdtype(rows.dtype, np.integer):
        return False
    whole = rows.astype(np.int64)
    return not count or bool(whole.min() >= 0 and whole.max() < among)


def described_by(features: Floats, stages: Floats) -> Floats:
    """What words are told from: the stages (N, E), or the features (N, D) of a network that does not show them.

    The features a head is given are made to name classes and have forgotten much of what a cell looks like
    (benchmarks/morphology.py).
    """
    return stages if stages.shape[1] else features


def review_reasons(**signs: NDArray[np.bool_]) -> list[str]:
    """The first sign that is true of each image, "" where none is. Each bool (N,), in the order they are given."""
    names = list(signs)
    stacked = np.stack([signs[name] for name in names])
    first, some = stacked.argmax(axis=0).tolist(), np.asarray(stacked.any(axis=0)).tolist()
    return [names[place] if any_of_them else "" for place, any_of_them in zip(first, some, strict=True)]
