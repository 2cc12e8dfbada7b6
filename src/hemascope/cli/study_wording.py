"""A study's table as lines of a terminal."""

from __future__ import annotations

from hemascope.results import Estimate
from hemascope.study_results import Measured, StudyResult


def study_lines(result: StudyResult) -> list[str]:
    """The findings, then a line a variant: its clean and stacked balanced accuracy beside the base's."""
    lines = [f"{result.title}  ({result.planned - len(result.missing)} of {result.planned} runs)"]
    for claim in result.claims:
        lines.append(f"  {claim.finding:<13}  {claim.text}  ({points(claim.difference)})")
    shown = [metric for metric in result.metrics if metric.name not in ("train", "validation")]
    width = max(len(variant.name) for variant in result.variants)
    lines.append("  ".join(["", f"{'':<{width}}", *(f"{metric.title:>32}" for metric in shown)]))
    for variant in result.variants:
        mark = " (base)" if variant.name == result.base else ""
        cells = [_cell(variant.measures.get(metric.name)) + mark for metric in shown]
        lines.append("  ".join(["", f"{variant.name:<{width}}", *(f"{cell:>32}" for cell in cells)]))
    return lines


def points(difference: Estimate | None) -> str:
    """A difference of balanced accuracy in points, with its interval."""
    if difference is None or difference.value is None:
        return "not measured"
    text = f"{100 * difference.value:+.1f}"
    if difference.low is not None and difference.high is not None:
        text += f", {100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
    return f"{text} points"


def _cell(measured: Measured | None) -> str:
    if measured is None or measured.mean.value is None:
        return "missing"
    if measured.difference is None:
        return f"{measured.mean.value:.3f}"
    return f"{measured.mean.value:.3f} ({points(measured.difference).removesuffix(' points')})"
