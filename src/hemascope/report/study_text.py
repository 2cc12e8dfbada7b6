"""A study as text: Markdown for a document, CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from hemascope.report.wording import duration, number
from hemascope.results import Estimate
from hemascope.study_results import Measured, Metric, StudyResult, VariantResult

CSV_COLUMNS = (
    "study", "variant", "label", "metric", "seeds", "mean", "low", "high", "spread",
    "difference", "difference_low", "difference_high", "excludes_zero", "seconds", "price_epochs", "parameters",
    "gflops",
)  # fmt: skip

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def study_csv(result: StudyResult) -> str:
    """One line a variant and metric; an apostrophe before any text that a spreadsheet would take for a formula."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for variant in result.variants:
        for metric in result.metrics:
            measured = variant.measures.get(metric.name)
            if measured is None:
                continue
            mean, difference = measured.mean, measured.difference or Estimate(value=None, n=0)
            excludes = "" if measured.differs is None else str(measured.differs).lower()
            writer.writerow(
                [
                    *(_harmless(text) for text in (result.name, variant.name, variant.label, metric.name)),
                    len(variant.seeds),
                    *map(_figure, (mean.value, mean.low, mean.high, measured.spread)),
                    *map(_figure, (difference.value, difference.low, difference.high)),
                    excludes,
                    *map(_figure, (variant.seconds, variant.price)),
                    "" if variant.parameters is None else variant.parameters,
                    _figure(variant.gflops),
                ]
            )
    return stream.getvalue()


def studies_markdown(results: Sequence[StudyResult], preface: str = "") -> str:
    """One page with all studies: ``preface``, every claim with what was found, then a section a study."""
    lines = [preface.rstrip(), ""] if preface else ["# Studies", ""]
    lines += ["| study | claim | these cells say | difference |", "|---|---|---|---|"]
    for result in results:
        for claim in result.claims:
            lines.append(
                f"| [{_cell(result.title)}](#{_anchor(result.title)}) | {_cell(claim.text)} | **{claim.finding}** | "
                f"{difference_words(claim.difference)} |"
            )
    return "\n".join([*lines, ""]) + "\n" + "\n".join(study_markdown(result) for result in results)


def study_markdown(result: StudyResult) -> str:
    """A section: question, what was said, findings, one table, what it was measured on and how it is made again."""
    shown = [metric for metric in result.metrics if difference_worth_showing(metric)]
    lines = [f"## {result.title}", "", result.question, ""]
    if result.said:
        lines += [f"The report: {result.said}", ""]
    if result.missing:
        lines += [f"**Not finished:** {len(result.missing)} of {result.planned} runs are missing.", ""]
    for claim in result.claims:
        what = next((metric.title for metric in result.metrics if metric.name == claim.metric), claim.metric)
        lines.append(f"- {claim.text}: **{claim.finding}** ({difference_words(claim.difference)}, {what})")
    if result.conclusion:
        lines += ["", result.conclusion]
    header = ["variant", *(f"{metric.title}" for metric in shown), "s a run", "parameters", "GFLOPs"]
    lines += ["", "| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    for variant in result.variants:
        name = _cell(variant.label or variant.name) + (" (base)" if variant.name == result.base else "")
        cells = [_measured(variant.measures.get(metric.name)) for metric in shown]
        lines.append("| " + " | ".join([name, *cells, *_costs(variant)]) + " |")
    cells_used = ", ".join(f"{count:,} {part}" for part, count in result.cells.items() if count)
    seeds = max((len(variant.seeds) for variant in result.variants), default=0)
    lines += ["", f"{said_of_intervals(result)} Cells: {cells_used}; {seeds} seeds."]
    lines += ["", *(f"{note}\n" for note in result.notes)]
    lines += [f"`hemascope study run studies/{result.name}.toml --data CELLS -o studies/out`", ""]
    lines += [f"Expected: {result.expected}. Measured: {measured_time(result)}.", ""]
    return "\n".join(lines) + "\n"


def measured_time(result: StudyResult) -> str:
    """The seconds all runs of a study took, added up, in words; runs shared by variants count once."""
    seen: dict[str, float] = {}
    for variant in result.variants:
        for run in variant.runs:
            seen[run] = variant.seconds or 0.0
    return f"{duration(sum(seen.values()))} of {len(seen)} runs added up, on {result.machine}"


def difference_words(difference: Estimate | None) -> str:
    """``−0.3 points (−0.9 to 0.2)``."""
    if difference is None or difference.value is None:
        return "not measured"
    text = f"{_signed(difference.value)} points"
    if difference.low is not None and difference.high is not None:
        text += f" ({_signed(difference.low)} to {_signed(difference.high)})"
    return text


def difference_worth_showing(metric: Metric) -> bool:
    """Whether a metric is of cells that neither trained the network nor chose its epoch."""
    return metric.name not in ("train", "validation")


def said_of_intervals(result: StudyResult) -> str:
    """How the intervals are made, for a reader."""
    return (
        "Means over seeds; 95 % intervals from the sampling of cells within classes and the spread over seeds together "
        "(Student's t with Satterthwaite's degrees of freedom), each by itself: of twenty true zeros one will seem not "
        "to be one. In brackets the paired difference to the base, in points."
    )


def _measured(measured: Measured | None) -> str:
    if measured is None:
        return "–"
    text = number(measured.mean.value)
    difference = measured.difference
    if difference is None or difference.value is None:
        return text
    inner = _signed(difference.value)
    if difference.low is not None and difference.high is not None:
        inner += f", {_signed(difference.low)} to {_signed(difference.high)}"
    return f"**{text}** ({inner})" if measured.differs else f"{text} ({inner})"


def _costs(variant: VariantResult) -> list[str]:
    return [
        "–" if variant.seconds is None else f"{variant.seconds:.0f}",
        "–" if variant.parameters is None else f"{variant.parameters / 1e6:.2f} M",
        "–" if variant.gflops is None else f"{variant.gflops:.3f}",
    ]


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _anchor(title: str) -> str:
    """What GitHub makes of a heading."""
    kept = "".join(sign for sign in title.lower() if sign.isalnum() or sign in " -_")
    return kept.replace(" ", "-")
