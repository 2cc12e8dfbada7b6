"""What a shift card says: frozen, torch-free, and as JSON on disk."""

from __future__ import annotations

from typing import Literal

from hemascope.results import Estimate, SavedRecord

Recommendation = Literal["use", "review", "do_not_use"]


class MeasureShift(SavedRecord):
    """One measure of the pictures, new against training.

    distance  Wasserstein-1 distance in deviations of the training cells
    usual     what 95 % of equally many training cells stay below: less is no news
    reference, found  medians
    """

    name: str
    title: str
    group: str
    distance: float
    usual: float
    reference: float
    found: float

    @property
    def shifted(self) -> bool:
        """Whether the distance is beyond what chance gives."""
        return self.distance > self.usual


class Recalibration(SavedRecord):
    """What a few labels of the new cells changed; before and after are of cells that were not fitted on (five folds).

    labels           how many were used
    accuracy         on them
    temperature_before, temperature_after
    coverage_before, coverage_after   of the prediction sets, at ``level``
    """

    labels: int
    accuracy: Estimate
    temperature_before: float
    temperature_after: float
    nll_before: Estimate
    nll_after: Estimate
    ece_before: Estimate
    ece_after: Estimate
    level: float
    coverage_before: Estimate
    coverage_after: Estimate
    cuts_refitted: bool


class ShiftCard(SavedRecord):
    """What ``card.json`` holds.

    embedding_distance  Fréchet distance of the features to those of the calibration cells; usual as in MeasureShift
    out_of_distribution share of the cells; ``false_alarm`` is what it is among cells like those it was trained on
    expected_accuracy   without labels, by ``method``; its interval holds the method's own error
    known_accuracy      on the calibration cells
    marked              share of the cells that a person should look at
    class_shares        how often each class is named, and among the training cells
    """

    version: int = 1
    model: str
    model_sha256: str
    n: int
    unreadable: int
    measures: tuple[MeasureShift, ...]
    embedding_distance: float
    embedding_usual: float
    out_of_distribution: Estimate
    false_alarm: float
    expected_accuracy: Estimate | None
    known_accuracy: float | None
    method: str
    method_error: float | None
    marked: Estimate
    class_names: tuple[str, ...]
    class_shares: tuple[tuple[float, float], ...]
    recommendation: Recommendation
    reasons: tuple[str, ...]
    recalibration: Recalibration | None = None
    recalibrated: str = ""
    data_source: str = ""
    created: str = ""
    command: str = ""
