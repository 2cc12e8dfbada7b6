"""What a trust test found: frozen, torch-free, and as JSON on disk."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hemascope.results import Estimate, SavedRecord

ConformalMethod = Literal["lac", "aps", "raps"]
Distance = Literal["far", "near", "corrupted"]
"""How unlike the training cells a set is: no cells at all; cells of another lab or no single cell; damaged cells."""


class ReliabilityBin(SavedRecord):
    """Cells whose confidence lies from ``low`` to ``high``: their mean confidence, and how many were right."""

    low: float
    high: float
    confidence: float | None
    accuracy: Estimate


class CalibrationMetrics(SavedRecord):
    """How far probabilities are to be believed, on one set of cells.

    ece           expected calibration error, equal-width bins (Naeini et al. 2015)
    adaptive_ece  the same with bins of equally many cells (Nguyen and O'Connor 2015)
    brier         sum over the classes of squared differences, mean over cells (Brier 1950), 0 to 2
    nll           mean negative logarithm of the true class's probability
    class_ece     for each class, the ECE of its own probability against being that class (Kull et al. 2019)
    class_adaptive_ece, class_brier   the same of the two above: one class against the rest; the Brier scores of all
                  classes sum to ``brier``
    class_nll     ``nll`` of the cells of each class; no value where there are none

    The last three are empty in records of older versions.
    """

    n: int
    ece: Estimate
    adaptive_ece: Estimate
    brier: Estimate
    nll: Estimate
    class_ece: list[Estimate]
    class_adaptive_ece: list[Estimate] = Field(default_factory=list)
    class_brier: list[Estimate] = Field(default_factory=list)
    class_nll: list[Estimate] = Field(default_factory=list)
    bins: list[ReliabilityBin]


class CalibrationResult(SavedRecord):
    """One condition (``clean`` or a corruption family) before temperature scaling and after."""

    condition: str
    title: str
    before: CalibrationMetrics
    after: CalibrationMetrics


class CoverageResult(SavedRecord):
    """Prediction sets of one method at one level, on one condition.

    level       wanted share of sets that hold the true class, such as 0.95
    by_class    whether the cuts were fitted for each class apart (Mondrian)
    coverage    share of sets that do, with its exact binomial interval
    expected    the interval the coverage must lie in if the guarantee holds, given both sets' sizes (Vovk 2012)
    kept        whether it does
    sizes       how many sets hold 0, 1, 2, … classes
    """

    condition: str
    title: str
    method: ConformalMethod
    level: float
    by_class: bool
    n: int
    coverage: Estimate
    expected: tuple[float, float]
    kept: bool
    class_coverage: list[Estimate]
    class_expected: list[tuple[float, float] | None]
    mean_size: Estimate
    class_size: list[Estimate]
    sizes: list[int]


class DetectionResult(SavedRecord):
    """One set of images that are no training cells, told from the clean test cells.

    auroc    by score (``energy``, ``max_logit``, ``knn``, ``mahalanobis``, ``vim``, …): 1 tells all apart
    fpr95    by score: share of these images taken for cells where 95 % of the test cells are (lower is better)
    flagged  share of these images that the model marks as out of distribution
    """

    name: str
    title: str
    distance: Distance
    n: int
    auroc: dict[str, Estimate]
    fpr95: dict[str, Estimate]
    flagged: Estimate


class ReviewRow(SavedRecord):
    """A person looks at ``share`` of the cells, the most doubtful first.

    caught          share of all errors among them
    remaining_error share of errors among the rest
    """

    share: float
    reviewed: int
    errors_caught: int
    caught: Estimate
    remaining_error: Estimate


class SelectiveResult(SavedRecord):
    """What it helps to leave the most doubtful cells to a person, on one condition.

    aurc         area under the risk-coverage curve (Geifman and El-Yaniv 2017); excess_aurc beyond the best possible
    curve        (coverage, risk) pairs, coverage rising
    """

    condition: str
    title: str
    n: int
    errors: int
    aurc: Estimate
    excess_aurc: Estimate
    curve: list[tuple[float, float]]
    rows: list[ReviewRow]


class SubtypeResult(SavedRecord):
    """Cells of one subtype (PMY, MY, MMY, BNE, SNE, …), which the model does not name: how often their class is right.

    mistaken_for  other classes and how many cells were given them
    """

    subtype: str
    title: str
    class_name: str
    n: int
    recall: Estimate
    mistaken_for: dict[str, int]


class CostResult(SavedRecord):
    """What the mistakes cost on average, by a table of costs (rows true, columns named; 0 to 1, 1 the worst)."""

    class_names: list[str]
    table: list[list[float]]
    expected_cost: Estimate
    accuracy: Estimate
    dearest: list[tuple[str, str, int, float]]
    """(true, named, cells, cost in all), dearest first."""


class AttributeResult(SavedRecord):
    """How well one morphological attribute is told. ``published`` is another work's macro F1, None where unknown."""

    attribute: str
    title: str
    values: list[str]
    n: int
    macro_f1: Estimate
    accuracy: Estimate
    published: float | None = None


class TrustReport(SavedRecord):
    """What ``trust.json`` holds. Pure JSON; the page is made of nothing else."""

    version: int = 1
    model: str = ""
    model_sha256: str = ""
    class_names: list[str]
    part: str = ""
    n: int
    fitted_on: int
    """Cells of the calibration part that temperature and cuts were fitted on."""
    temperature: float
    ood_score: str
    """The score that ``in_distribution`` goes by."""
    views: tuple[str, ...] = ()
    calibration: tuple[CalibrationResult, ...] = ()
    coverage: tuple[CoverageResult, ...] = ()
    detection: tuple[DetectionResult, ...] = ()
    selective: tuple[SelectiveResult, ...] = ()
    shown_sets: tuple[ConformalMethod, bool, float] | None = None
    """Method, ``by_class`` and level of the sets that a prediction carries; None in records of older versions."""
    subtypes: tuple[SubtypeResult, ...] = ()
    cost: CostResult | None = None
    attributes: tuple[AttributeResult, ...] = ()
    notes: tuple[str, ...] = ()
    seed: int = 0
    resamples: int = 0
    data_source: str = ""
    data_fingerprint: str = ""
    created: str = ""
    command: str = ""
