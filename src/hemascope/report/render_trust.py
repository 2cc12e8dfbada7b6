"""The page of a trust test, made of its record alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hemascope.report.figures import MAX_CLASSES, finite
from hemascope.report.page import markup, page, write_page
from hemascope.report.trust_figures import (
    DISTANCES,
    class_coverage,
    damaged_coverage,
    detection,
    reliability,
    risk_curves,
)
from hemascope.report.wording import Card, interval, number, percent
from hemascope.results import Estimate
from hemascope.trust_results import (
    CalibrationResult,
    CostResult,
    CoverageResult,
    DetectionResult,
    Distance,
    ReviewRow,
    SelectiveResult,
    TrustReport,
)
from hemascope.uncertainty.conformal import ASSUMPTIONS

CLEAN = "clean"
REVIEW_SHARE = 0.02
"""The row of the review table that the verdict tells."""

SET_LEVEL = 0.95
"""The level that the verdict and the table by class are of, where it was measured."""

METHODS = {"lac": "LAC", "aps": "APS", "raps": "RAPS"}
SCORES = {
    "energy": "energy",
    "max_logit": "largest logit",
    "msp": "largest probability",
    "knn": "nearest neighbours",
    "mahalanobis": "Mahalanobis",
    "relative_mahalanobis": "relative Mahalanobis",
    "vim": "ViM",
}
_CURVES = 5


@dataclass(frozen=True)
class Kept:
    """A promise beside what was found; ``kept`` None: nothing was promised."""

    name: str
    found: Estimate
    expected: tuple[float, float] | None
    size: Estimate

    @property
    def kept(self) -> bool | None:
        """Whether coverage is not below what the promise allows; above is no breach."""
        value = finite(self.found.value)
        return None if self.expected is None or value is None else value >= self.expected[0]


@dataclass(frozen=True)
class CostCell:
    """One entry of the table of costs: 0 to 1, and 0 (cheap) to 6 (dear) as its shade."""

    cost: float
    shade: int


def render_trust(report: TrustReport, folder: Path, *, assumptions: str = ASSUMPTIONS) -> Path:
    """Write ``report.html`` into ``folder`` and return its path.

    assumptions  of the coverage, in plain words; they stand beside every figure of it

    What was not measured is said to be so. Raises OutputError where the page cannot be written.
    """
    path = folder / "report.html"
    write_page(path, page("trust.html.j2", _view(report, assumptions)))
    return path


def _view(report: TrustReport, assumptions: str) -> Mapping[str, object]:
    clean_sets = [one for one in report.coverage if one.condition == CLEAN]
    every_damaged = [one for one in report.coverage if one.condition != CLEAN]
    shown = shown_sets(report)
    levels = [one for one in clean_sets if shown and (one.method, one.by_class) == (shown.method, shown.by_class)]
    damaged_sets = [one for one in every_damaged if shown is None or same_kind(one, shown)]
    queue = clean_queue(report)
    damaged_queues = sorted(
        (one for one in report.selective if one.condition != CLEAN), key=lambda one: -(one.aurc.value or 0.0)
    )
    clean = next((one for one in report.calibration if one.condition == CLEAN), None)
    return {
        "title": f"Trust test of {report.model or 'a model'}",
        "report": report,
        "verdict": verdict(report),
        "cards": cards(report),
        "assumptions": assumptions,
        "share": share,
        "thousandfold": thousandfold,
        "scores": SCORES,
        "distances": DISTANCES,
        "clean": clean,
        "class_calibration": [] if clean is None else class_calibration(clean, report.class_names),
        "reliability": markup(reliability(report.calibration)),
        "levels": sorted({one.level for one in clean_sets}),
        "kinds": kinds(clean_sets),
        "damaged_sets": damaged_sets,
        "damaged_kinds": damaged_kinds(every_damaged),
        "shown": shown,
        "class_rows": [] if shown is None else class_rows(shown, report.class_names),
        "shown_kind": "" if shown is None else kind(shown),
        "set_sizes": "" if shown is None else set_sizes(shown),
        "class_coverage": markup(class_coverage(levels, report.class_names)),
        "damaged_coverage": markup(damaged_coverage(damaged_sets)),
        "score_names": list(dict.fromkeys(name for one in report.detection for name in one.auroc)),
        "detection": markup(detection(report.detection, report.ood_score)),
        "queue": queue,
        "queues": [(one, review_row(one)) for one in (*([] if queue is None else [queue]), *damaged_queues)],
        "risk": markup(risk_curves(queue, damaged_queues[:_CURVES])),
        "curve_titles": [one.title for one in damaged_queues[:_CURVES]],
        "cost_rows": None if report.cost is None else cost_rows(report.cost),
    }


def shown_sets(report: TrustReport) -> CoverageResult | None:
    """The clean result of the sets that the model gives.

    Where the record does not tell them: of a kind measured under damage too, else by class at 95 %.
    """
    clean = [one for one in report.coverage if one.condition == CLEAN]
    used = (
        {(one.method, one.by_class, one.level) for one in report.coverage if one.condition != CLEAN}
        if report.shown_sets is None
        else {report.shown_sets}
    )
    return min(
        clean,
        key=lambda one: (
            (one.method, one.by_class, one.level) not in used,
            abs(one.level - SET_LEVEL),
            not one.by_class,
        ),
        default=None,
    )


def kind(one: CoverageResult) -> str:
    """What the sets are made by, in words."""
    return f"{METHODS[one.method]}, {'cuts for each class' if one.by_class else 'one cut'}"


def same_kind(one: CoverageResult, other: CoverageResult) -> bool:
    """Whether two results are of the same method, cuts and level."""
    return (one.method, one.by_class, one.level) == (other.method, other.by_class, other.level)


def damaged_kinds(
    results: Sequence[CoverageResult],
) -> list[tuple[float, list[str], list[tuple[str, list[CoverageResult | None]]]]]:
    """A table a level, rising: the kinds, and each condition with its result by kind; none for one kind alone."""
    names = list(dict.fromkeys(kind(one) for one in results))
    by = {(one.level, one.title, kind(one)): one for one in results}
    if len(names) < 2:
        return []
    return [
        (level, names, [(title, [by.get((level, title, name)) for name in names]) for title in titles])
        for level in sorted({one.level for one in results})
        if (titles := list(dict.fromkeys(one.title for one in results if one.level == level)))
    ]


def class_calibration(
    result: CalibrationResult, class_names: Sequence[str]
) -> list[tuple[str, list[tuple[Estimate | None, Estimate | None]]]]:
    """Each class with its four measures, before and after; None for what an older record does not hold."""
    fields = ("class_ece", "class_adaptive_ece", "class_brier", "class_nll")
    found = [(getattr(result.before, name), getattr(result.after, name)) for name in fields]
    return [
        (name, [(before[k], after[k]) if before and after else (None, None) for before, after in found])
        for k, name in enumerate(class_names)
    ]


def kinds(results: Sequence[CoverageResult]) -> list[tuple[str, list[CoverageResult | None]]]:
    """The results of each kind by level, rising; None where one was not measured."""
    levels = sorted({one.level for one in results})
    names = dict.fromkeys(kind(one) for one in results)
    by = {(kind(one), one.level): one for one in results}
    return [(name, [by.get((name, level)) for level in levels]) for name in names]


def share(value: float) -> str:
    """A share that somebody chose, without decimals nobody gave: ``95 %``, ``0.5 %``."""
    return f"{100 * value:.6g}\N{NO-BREAK SPACE}%"


def thousandfold(estimate: Estimate) -> Estimate:
    """For areas that are a few thousandths."""
    value, low, high = (None if one is None else 1000 * one for one in (estimate.value, estimate.low, estimate.high))
    return Estimate(value=value, low=low, high=high, n=estimate.n)


def class_rows(result: CoverageResult, class_names: Sequence[str]) -> list[Kept]:
    """All cells, then each class: what was promised, what was found, and how large the sets are."""
    return [
        Kept("all cells", result.coverage, result.expected, result.mean_size),
        *(
            Kept(*one)
            for one in zip(class_names, result.class_coverage, result.class_expected, result.class_size, strict=True)
        ),
    ]


def set_sizes(result: CoverageResult) -> str:
    """How many sets hold how many classes: ``2,020 sets of 1 class, 31 sets of 2 classes.``"""
    parts = [
        f"{cells:,} {'set' if cells == 1 else 'sets'} of {size or 'no'} {'class' if size == 1 else 'classes'}"
        for size, cells in enumerate(result.sizes)
        if cells
    ]
    return f"{', '.join(parts)}." if parts else ""


def clean_queue(report: TrustReport) -> SelectiveResult | None:
    """The review queue of the clean cells."""
    return next((one for one in report.selective if one.condition == CLEAN), None)


def review_row(result: SelectiveResult) -> ReviewRow | None:
    """What looking at 2 % of the cells does, or at the share nearest to it."""
    return min(result.rows, key=lambda row: abs(row.share - REVIEW_SHARE), default=None)


def lowest_auroc(detections: Sequence[DetectionResult], score: str, distance: Distance) -> tuple[float, str] | None:
    """The lowest AUROC of the sets at ``distance`` and that set's title."""
    found = [
        (value, one.title)
        for one in detections
        if one.distance == distance and score in one.auroc
        if (value := finite(one.auroc[score].value)) is not None
    ]
    return min(found, default=None)


def cost_rows(cost: CostResult) -> list[list[CostCell]] | None:
    """The table with its shades; None where there are too many classes to read."""
    if len(cost.class_names) > MAX_CLASSES:
        return None
    steps = (0.05, 0.25, 0.35, 0.45, 0.65, 0.85)
    return [[CostCell(value, sum(value >= step for step in steps)) for value in row] for row in cost.table]


def verdict(report: TrustReport) -> str:
    """What a haematologist should take away, in a few sentences; what was not measured is not mentioned."""
    sentences = []
    clean = next((one for one in report.calibration if one.condition == CLEAN), None)
    if clean is not None and finite(clean.after.ece.value) is not None:
        sentences.append(
            f"How sure the model says it is differs from how often it is right by {percent(clean.after.ece.value)} on "
            f"average (by {percent(clean.before.ece.value)} before calibration)."
        )
    shown = shown_sets(report)
    if shown is not None:
        word = "does so" if shown.kept else "falls short"
        sentences.append(
            f"The set of classes that should hold the right one for {share(shown.level)} of the cells {word}: it "
            f"holds it for {percent(shown.coverage.value)}, with {number(shown.mean_size.value)} classes on average."
        )
        missed = [row.name for row in class_rows(shown, report.class_names)[1:] if row.kept is False]
        if missed:
            sentences.append(f"It falls short for {', '.join(missed)}.")
    far = lowest_auroc(report.detection, report.ood_score, "far")
    near = lowest_auroc(report.detection, report.ood_score, "near")
    if far is not None:
        sentences.append(f"Images that are no cells are told apart with an AUROC of {number(far[0])} or better.")
    if near is not None:
        sentences.append(f"Hardest of what is nearly such a cell: {near[1]}, {number(near[0])}.")
    queue = clean_queue(report)
    row = None if queue is None else review_row(queue)
    if queue is not None and row is not None:
        sentences.append(
            f"A person who looks at the {share(row.share)} most doubtful cells sees {row.errors_caught} of "
            f"{queue.errors} errors."
            if queue.errors
            else "No cell was named wrongly, so there was nothing to find for a person."
        )
    return " ".join(sentences) or "Nothing was measured."


def cards(report: TrustReport) -> list[Card]:
    """The large numbers."""
    found = []
    clean = next((one for one in report.calibration if one.condition == CLEAN), None)
    if clean is not None:
        ece, before = clean.after.ece, number(clean.before.ece.value)
        found.append(Card(number(ece.value), "expected calibration error", f"{interval(ece, False)} · before {before}"))
    shown = shown_sets(report)
    if shown is not None:
        title = f"of the sets right, {share(shown.level)} wanted"
        found.append(Card(percent(shown.coverage.value), title, interval(shown.coverage)))
        found.append(Card(number(shown.mean_size.value), "classes in a set, mean", interval(shown.mean_size, False)))
    far = lowest_auroc(report.detection, report.ood_score, "far")
    if far is not None:
        found.append(Card(number(far[0]), "AUROC, no cells at all", f"lowest, {far[1]}"))
    queue = clean_queue(report)
    row = None if queue is None else review_row(queue)
    if queue is not None and row is not None and queue.errors:
        found.append(
            Card(percent(row.caught.value), f"of the errors in {share(row.share)} of the cells", interval(row.caught))
        )
    if report.cost is not None:
        cost, right = report.cost.expected_cost, percent(report.cost.accuracy.value)
        found.append(Card(number(cost.value), "cost of a cell, mean", f"{interval(cost, False)} · accuracy {right}"))
    return found
