"""One self-contained HTML page of a run, or of two runs compared. No script, no outside request."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from hemascope.report import figures
from hemascope.report.page import markup, page, write_page
from hemascope.report.records import RunRecords, load_records
from hemascope.report.render_trust import cards as trust_cards
from hemascope.report.render_trust import verdict as trust_verdict
from hemascope.report.wording import comparison_verdict, confusions, headline_split, verdict
from hemascope.results import Comparison, Mistake, SplitEvaluation

LONGEST_LIST = 200
"""Rows of a list of left-out images that are shown; the rest is counted."""

MAX_MATRIX = 40
"""With more classes than this a confusion matrix is unreadable; the most frequent confusions stand in."""

_SHADES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.10, 0.25)
"""Shares of a true class at which a mistake takes the next darker shade."""

_TIMING_TITLES = {
    "loading": "Opening the cells",
    "features": "Features of the frozen backbone",
    "reading": "Reading images",
    "augmenting": "Augmenting",
    "forward": "Forward passes",
    "backward": "Backward passes",
    "optimizer": "Steps of the optimiser",
    "validation": "Validation",
    "calibration": "Calibration",
    "evaluation": "Evaluation",
}


@dataclass(frozen=True)
class MatrixCell:
    """One cell of a confusion matrix: how many, which share of the true class, how dark (0 to 6)."""

    count: int
    share: float | None
    shade: int
    right: bool


@dataclass(frozen=True)
class TimingRow:
    """Seconds of one part of the run and its share of the whole, 0 to 1."""

    title: str
    seconds: float
    share: float


@dataclass(frozen=True)
class GalleryItem:
    """A mistake and its picture as a ``data:`` address, None where the picture is missing."""

    mistake: Mistake
    picture: str | None


def render_report(run: Path, output: Path | None = None) -> Path:
    """Write the report of the run folder ``run`` to ``output`` (default ``run/report.html``) and return its path.

    Made of the saved records alone; the same records give the same bytes. Raises RunError where the records are
    missing or damaged, OutputError where the page cannot be written; an older report is then untouched.
    """
    records = load_records(run)
    target = run / "report.html" if output is None else output
    write_page(target, page("report.html.j2", _report_view(records)))
    return target


def render_comparison(comparison: Comparison, output: Path) -> None:
    """Write a small page about two runs on the same cells to ``output``. Raises OutputError."""
    metrics = [
        (
            title,
            comparison.first_metrics.get(name),
            comparison.second_metrics.get(name),
            comparison.difference.get(name),
            name == "log_loss",
        )
        for name, title in figures.METRIC_TITLES.items()
        if name in comparison.difference
    ]
    view = {
        "title": f"{comparison.first} and {comparison.second} compared",
        "comparison": comparison,
        "verdict": comparison_verdict(comparison),
        "metrics": metrics,
        "figure": markup(figures.differences(comparison)),
    }
    write_page(output, page("comparison.html.j2", view))


def _report_view(records: RunRecords) -> dict[str, Any]:
    """Everything the templates show, worked out; the templates only lay it out."""
    evaluation, manifest = records.evaluation, records.manifest
    main = headline_split(evaluation)
    splits = _ordered(evaluation.splits)
    class_names, split_counts = records.data_class_names(), records.split_counts()
    totals = [sum(column) for column in zip(*split_counts.values(), strict=True)] or list(manifest.data.class_counts)
    left_out = manifest.data.unreadable
    return {
        "title": records.name,
        "records": records,
        "evaluation": evaluation,
        "manifest": manifest,
        "verdict": verdict(evaluation, manifest.data.split_notes, manifest.data.grouped),
        "main": main,
        "splits": splits,
        "metric_titles": {k: v for k, v in figures.METRIC_TITLES.items() if any(k in s.metrics for s in splits)},
        "class_names": class_names,
        "split_counts": split_counts,
        "class_totals": totals,
        "imbalance": _imbalance(class_names, totals),
        "left_out": left_out[:LONGEST_LIST],
        "left_out_more": len(left_out) - LONGEST_LIST,
        "reasons": _reasons([one.reason for one in left_out]),
        "matrices": [(split, _matrix(split)) for split in [main, *(s for s in splits if s is not main)]],
        "confusions": confusions(main, evaluation.class_names)[:10],
        "galleries": [
            (
                "Worst mistakes",
                "The true class got the least probability.",
                _gallery(records, evaluation.worst_mistakes),
            ),
            (
                "Most certain mistakes",
                "The wrong class got the most probability.",
                _gallery(records, evaluation.certain_mistakes),
            ),
        ],
        "trust": None if records.trust is None else (trust_verdict(records.trust), trust_cards(records.trust)),
        "timing": _timing(manifest.timing),
        "reproduce": _commands(records),
        "figures": {
            "composition": markup(figures.composition(class_names, split_counts)),
            "curves": markup(figures.curves(records.stages)),
            "metrics": markup(figures.split_metrics(splits)),
            "classes": markup(figures.class_metrics(main)),
        },
    }


def _ordered(splits: Mapping[str, SplitEvaluation]) -> list[SplitEvaluation]:
    from hemascope.cells import SPLIT_NAMES

    known = [splits[name] for name in SPLIT_NAMES if name in splits]
    return [*known, *(split for name, split in splits.items() if name not in SPLIT_NAMES)]


def _imbalance(class_names: Sequence[str], totals: Sequence[int]) -> str:
    """One sentence on how uneven the classes are."""
    if not totals:
        return "How many cells each class has is not recorded."
    named = sorted(zip(totals, class_names, strict=True))
    (fewest, smallest), (most, largest) = named[0], named[-1]
    if not fewest:
        return f"The class {smallest} has no cells at all; the largest, {largest}, has {most:,}."
    if most < 1.05 * fewest:
        return f"The classes are about equally large: {fewest:,} to {most:,} cells each."
    return (
        f"The largest class, {largest} ({most:,} cells), has {most / fewest:.1f} times as many cells as the smallest, "
        f"{smallest} ({fewest:,})."
    )


def _reasons(reasons: Sequence[str]) -> list[tuple[str, int]]:
    """Each reason with how often it was given, most frequent first."""
    counted = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)} if len(reasons) < 5000 else {}
    return sorted(counted.items(), key=lambda item: -item[1])[:12]


def _matrix(split: SplitEvaluation) -> list[list[MatrixCell]] | None:
    """The confusion matrix with shades for mistakes, by their share of the true class. None: too many classes."""
    if len(split.confusion) > MAX_MATRIX:
        return None
    rows = []
    for true, row in enumerate(split.confusion):
        total = sum(row)
        cells = []
        for predicted, amount in enumerate(row):
            share = amount / total if total else None
            shade = sum(share > limit for limit in _SHADES[:-1]) if share is not None and true != predicted else 0
            cells.append(MatrixCell(amount, share, shade, true == predicted))
        rows.append(cells)
    return rows


def _gallery(records: RunRecords, mistakes: Sequence[Mistake]) -> list[GalleryItem]:
    return [GalleryItem(mistake, records.pictures.get(mistake.picture)) for mistake in mistakes]


def _timing(timing: Mapping[str, float | None]) -> list[TimingRow]:
    """Parts of the run in a fixed order, then what the total has beyond them."""
    known = {name: value for name, value in timing.items() if value is not None and isfinite(value)}
    parts = {name: max(value, 0.0) for name, value in known.items() if name != "total"}
    total = max(known.get("total", 0.0), sum(parts.values()))
    if total <= 0:
        return []
    order = [name for name in _TIMING_TITLES if name in parts]
    order += [name for name in parts if name not in _TIMING_TITLES]
    rows = [
        TimingRow(_TIMING_TITLES.get(name, name.replace("_", " ").capitalize()), parts[name], parts[name] / total)
        for name in order
    ]
    rest = total - sum(parts.values())
    if rest > 0.005 * total:
        rows.append(TimingRow("Everything else", rest, rest / total))
    return rows


def _commands(records: RunRecords) -> list[tuple[str, str]]:
    """(what it does, command line) to get the same numbers again."""
    manifest = records.manifest
    commands = []
    if manifest.command:
        commands.append(("The command of this run, as it was given", manifest.command))
    folder = shlex.quote(str(records.folder))
    source = manifest.data.source
    if source and records.config_text is not None and "train" in records.evaluation.splits:
        config = shlex.quote(str(records.folder / "config.toml"))
        commands.append(
            ("The same run again", f"hemascope train {shlex.quote(source)} --config {config} -o {folder}-again")
        )
    commands.append(("This page again, from the saved results", f"hemascope report {folder}"))
    return commands
