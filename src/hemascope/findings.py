"""What an audit finds: the data types that audit, ledger, clean and report share. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hemascope.errors import DataError

Severity = Literal["error", "warning", "note"]
"""error: would spoil training or its measurement; warning: probably should not stay; note: worth knowing."""

Suggestion = Literal["drop", "relabel", "review"]
"""drop: leave the image out; relabel: give it the label named; review: a person must look, nothing is proposed."""


@dataclass(frozen=True)
class Check:
    """One question asked of a data set.

    code      stable, lower case with underscores: what ledgers and reports call it
    title     for people
    severity  of its findings
    question  what it asks, one sentence
    """

    code: str
    title: str
    severity: Severity
    question: str

    @property
    def page(self) -> str:
        """Where the documentation explains it."""
        return f"docs/checks.md#{self.code}"


CHECKS: dict[str, Check] = {
    check.code: check
    for check in (
        Check("unreadable", "Unreadable images", "error", "Can every image be decoded?"),
        Check("odd_mode", "Odd colour mode", "warning", "Is every image RGB of 8 bits, as the others are?"),
        Check("odd_size", "Odd size", "warning", "Does every image have about as many pixels as the others?"),
        Check("odd_aspect", "Odd aspect ratio", "warning", "Is every image about as square as the others?"),
        Check("blank", "Blank images", "error", "Does every image show anything at all?"),
        Check("dark", "Too dark", "warning", "Is every image bright enough to be read?"),
        Check("bright", "Too bright", "warning", "Is every image dark enough to be read?"),
        Check("blurred", "Blurred", "warning", "Is every image in focus, compared with the others?"),
        Check("low_information", "Low information", "warning", "Does every image hold as much detail as a cell has?"),
        Check("odd_stain", "Odd stain", "warning", "Is every image coloured as the others are?"),
        Check("exact_duplicate", "Exact duplicates", "error", "Is every image there once only, pixel by pixel?"),
        Check("conflicting_label", "Conflicting labels", "error", "Do equal pictures have equal labels?"),
        Check("near_duplicate", "Near duplicates", "warning", "Is any image an edited copy of another?"),
        Check("off_topic", "Off-topic images", "error", "Is every image a picture of one cell, as the others are?"),
        Check("outlier", "Outliers", "note", "Which images are least like any other?"),
        Check("label_error", "Label errors", "warning", "Does every label agree with what the picture looks like?"),
        Check("leakage", "Leakage between splits", "error", "Is any image of one split also in another?"),
        Check("class_imbalance", "Class imbalance", "note", "Are the classes of about equal size?"),
        Check("shortcut", "Shortcuts", "warning", "Can the class be told without looking at the cell?"),
    )
}
"""Every check by its code, in the order they are shown."""


@dataclass(frozen=True)
class Finding:
    """One thing found about one image.

    check         code of the check
    id            the image's id
    content_hash  hash of its decoded pixels, "" where it could not be decoded
    score         0 to 1, lower is worse; the same scale as the check's ``scores``
    suggestion    what to do about it
    why           one sentence, for people
    label         its label, "" where it has none
    new_label     the label suggested, for relabel
    related       id of the image it was compared with: a cluster's representative, the other copy, "" for none
    """

    check: str
    id: str
    content_hash: str
    score: float
    suggestion: Suggestion
    why: str
    label: str = ""
    new_label: str = ""
    related: str = ""

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise DataError(f"there is no check {self.check!r}; the checks are {', '.join(CHECKS)}")
        if not 0 <= self.score <= 1:
            raise DataError(f"the score of {self.id} by {self.check} must lie in 0 to 1, found {self.score}")
        if (self.suggestion == "relabel") != bool(self.new_label):
            raise DataError(f"{self.id}: a new label goes with the suggestion relabel, and with no other")


@dataclass(frozen=True)
class CheckResult:
    """What one check said of N images.

    check           its code
    scores          float32 (N,) in 0 to 1, lower is worse, NaN for images it does not apply to; None for checks of
                    the whole set
    cut             findings have scores at or below it; None where there is no such line
    cut_rule        how the cut was found, in words; every automatic choice is stated
    findings        worst first
    not_applicable  why the check could not be made, "" where it was. Not applicable is not passed
    summary         figures for the report, plain JSON (numbers, strings, lists, dicts). Checks of the whole set, which
                    have no findings, say here what they found: ``verdict``, "passed" or "found", and ``sentence``
    seconds         it took
    """

    check: str
    scores: NDArray[np.float32] | None = None
    cut: float | None = None
    cut_rule: str = ""
    findings: Sequence[Finding] = ()
    not_applicable: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise DataError(f"there is no check {self.check!r}; the checks are {', '.join(CHECKS)}")
        if self.scores is not None:
            known = self.scores[~np.isnan(self.scores)]
            if len(known) and (known.min() < 0 or known.max() > 1):
                raise DataError(
                    f"scores of {self.check} must lie in 0 to 1, found {known.min():.3g} to {known.max():.3g}"
                )

    @property
    def passed(self) -> bool:
        """Made, and nothing found: neither an image nor, by a check of the whole set, a verdict of "found"."""
        return not self.not_applicable and not self.findings and self.summary.get("verdict") != "found"


@dataclass(frozen=True)
class MapPoints:
    """A two-dimensional picture of embeddings, for the eye; distances between far points mean little.

    rows        int64 (M,), which of the N images; M at most a few thousand
    position    float32 (M, 2)
    silhouette  of the classes in the embedding space (not in the picture), -1 to 1 (Rousseeuw 1987); None without two
                classes
    knn_accuracy balanced accuracy of naming each image by its nearest others in the embedding space; None as above
    title       such as "pretrained" or "after fine-tuning"
    """

    rows: NDArray[np.int64]
    position: NDArray[np.float32]
    silhouette: float | None
    knn_accuracy: float | None
    title: str = ""


@dataclass(frozen=True)
class AuditReport:
    """Everything an audit says of N images.

    results      one for each check, in the order of CHECKS
    ids          N ids, in the order of every ``scores``
    content_hash N hashes
    labels       int64 (N,), -1 unlabelled
    class_names  K names
    split        N names of parts, or None
    fingerprint  of the cells (``CellDataset.fingerprint``)
    source       where they came from, for people
    embedding    what the embeddings were made with, for people
    statistics   stain, sharpness and scale per class and per source: plain JSON
    map          the picture of the embeddings, None where it was not asked for
    facts        versions, seed, options, seconds: plain JSON
    """

    results: Sequence[CheckResult]
    ids: Sequence[str]
    content_hash: Sequence[str]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    fingerprint: str
    source: str
    embedding: str
    split: NDArray[np.str_] | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    map: MapPoints | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def findings(self) -> list[Finding]:
        """All findings, check by check, worst first within each."""
        return [finding for result in self.results for finding in result.findings]

    def result(self, check: str) -> CheckResult:
        """The result of the check with this code. Raises DataError where it was not made."""
        for result in self.results:
            if result.check == check:
                return result
        raise DataError(f"the audit has no check {check!r}; it has {', '.join(r.check for r in self.results)}")
