"""The page of a stress test, made of its record and its example pictures alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hemascope.report.page import markup, page, write_page
from hemascope.report.pictures import picture_address
from hemascope.report.stress_figures import severity_curves, stack_families
from hemascope.report.wording import percent
from hemascope.results import Estimate
from hemascope.stress_results import Condition, CorruptionResult, Example, StressReport

GATE_TITLES = {
    "clean": "clean cells",
    "mean": "mean over all corruptions",
    "stacked_1_2": "one or two strong layers",
    "stacked_2_4": "two to four strong layers",
}


STRIP = 6 * 160
"""Longest side of a picture on the page: a strip holds six cells."""


@dataclass(frozen=True)
class Row:
    """A corruption's line in the table: its record and its condition at each severity (None: not measured)."""

    record: CorruptionResult
    mean: Estimate
    cells: tuple[Condition | None, ...]
    shades: tuple[int, ...]


@dataclass(frozen=True)
class Shown:
    """An example with its picture as a ``data:`` address; ``verdicts``: (label said, whether right)."""

    record: Example
    address: str | None
    verdicts: tuple[tuple[str, bool], ...]


def render_stress(report: StressReport, folder: Path) -> Path:
    """Write ``report.html`` into ``folder``, whose ``examples/`` holds the pictures, and return its path.

    Raises OutputError where the page cannot be written.
    """
    path = folder / "report.html"
    write_page(path, page("stress.html.j2", _view(report, folder)))
    return path


def _view(report: StressReport, folder: Path) -> Mapping[str, object]:
    severities = sorted({one.severity for one in report.conditions})
    of = {(one.name, one.severity): one for one in report.conditions}
    rows = [_row(one, [of.get((one.name, severity)) for severity in severities]) for one in report.corruptions]
    curves = {one.name: [c for c in report.conditions if c.name == one.name] for one in report.corruptions}
    shown = [_shown(one, folder) for one in report.examples]
    return {
        "title": f"Stress test of {report.model}",
        "report": report,
        "severities": severities,
        "rows": rows,
        "exposures": sorted({one.exposure for one in report.corruptions}),
        "curves": markup(severity_curves(report.clean, curves, report.baseline)),
        "families": markup(stack_families(report.stacks)),
        "verdict": verdict(report),
        "gate": [(GATE_TITLES.get(one.name, one.name.replace("_", " ")), one) for one in report.gate],
        "recalls": list(
            zip(report.class_names, report.clean_recall, *(one.recall for one in report.stacks), strict=True)
        ),
        "strips": [one for one in shown if len(one.verdicts) > 1],
        "stacked": [one for one in shown if len(one.verdicts) == 1],
        "unseen": [one for one in report.corruptions if one.exposure in ("not trained on", "held out")],
    }


def verdict(report: StressReport) -> str:
    """The result in a sentence or two."""
    mean = report.means["mean_balanced_accuracy"]
    worst = max(report.corruptions, key=lambda one: one.error.value or 0.0)
    clean = percent(report.clean.balanced_accuracy.value)
    sentences = [
        f"Clean cells are named with a balanced accuracy of {clean}, cells under the corruptions of a microscope with "
        f"{percent(mean.value)} on average."
    ]
    if report.stacks:
        parts = [
            f"{percent(one.condition.balanced_accuracy.value)} under {one.condition.title}" for one in report.stacks
        ]
        sentences.append(f"It is {' and '.join(parts)}.")
    sentences.append(f"Hardest: {worst.title}, {percent(1 - (worst.error.value or 0.0))} on average.")
    return " ".join(sentences)


def _row(record: CorruptionResult, cells: list[Condition | None]) -> Row:
    error = record.error
    mean = Estimate(
        value=None if error.value is None else 1 - error.value,
        low=None if error.high is None else 1 - error.high,
        high=None if error.low is None else 1 - error.low,
        n=error.n,
    )
    return Row(record, mean, tuple(cells), tuple(_shade(one) for one in cells))


def _shade(condition: Condition | None) -> int:
    """0 (hardly an error) to 6 (a third wrong, or more)."""
    if condition is None or condition.balanced_accuracy.value is None:
        return 0
    error = 1 - condition.balanced_accuracy.value
    return sum(error >= step for step in (0.015, 0.03, 0.06, 0.12, 0.2, 0.33))


def _shown(record: Example, folder: Path) -> Shown:
    address = picture_address(folder, folder / "examples", record.picture, STRIP)
    return Shown(record, address, tuple((said, said == record.true_label) for said in record.predicted_labels))
