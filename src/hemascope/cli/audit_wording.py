"""An audit and a map in lines for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from hemascope.findings import CHECKS, AuditReport, CheckResult, MapPoints


def audit_lines(report: AuditReport) -> Iterator[str]:
    """What was found, check by check; what could not be checked is said, and is not called passed."""
    yield f"{len(report):,} images of {report.source}"
    yield ""
    width = max(len(CHECKS[result.check].title) for result in report.results)
    for result in report.results:
        yield f"  {CHECKS[result.check].title:{width}}  {_outcome(result)}"
    proposed = Counter(finding.suggestion for finding in report.findings)
    images = len({finding.id for finding in report.findings if finding.suggestion == "drop"})
    yield ""
    yield (
        f"Proposed: drop {images:,} images, relabel {proposed['relabel']:,}, look at {proposed['review']:,} findings. "
        "Nothing is done until someone decides."
    )


def _outcome(result: CheckResult) -> str:
    if result.not_applicable:
        return f"not applicable: {result.not_applicable}"
    if sentence := result.summary.get("sentence"):
        return str(sentence)
    if not result.findings:
        return "passed"
    kinds = Counter(finding.suggestion for finding in result.findings)
    parts = ", ".join(f"{count:,} to {kind}" for kind, count in kinds.most_common())
    return f"{len(result.findings):,} found ({parts})"


def map_lines(maps: Sequence[MapPoints]) -> Iterator[str]:
    """The two numbers of each map."""
    for drawn in maps:
        silhouette = "no classes" if drawn.silhouette is None else f"{drawn.silhouette:+.3f}"
        neighbours = "no classes" if drawn.knn_accuracy is None else f"{drawn.knn_accuracy:.4f}"
        yield f"  {drawn.title:18} silhouette {silhouette}, balanced accuracy of nearest neighbours {neighbours}"
