"""Figures of a trust test: reliability, coverage by class, sets that are no cells, and risk against coverage."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from hemascope.report.figures import MAX_CLASSES, finite
from hemascope.report.svg import INK, MUTED, PAPER, SERIES, draw, plain
from hemascope.results import Estimate
from hemascope.trust_results import (
    CalibrationMetrics,
    CalibrationResult,
    CoverageResult,
    DetectionResult,
    Distance,
    SelectiveResult,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
_PANEL = 190
_ROW = 26
_DASHED = (0, (4, 3))
MARKERS = "osDv^"
"""As in the page's legends."""

DISTANCES: dict[Distance, str] = {
    "far": "no cells at all",
    "near": "other cells, other laboratories, no single cell",
    "corrupted": "damaged cells",
}


def _share(value: float, _: object = None) -> str:
    return f"{100 * value:.4g} %"


def _limits(estimate: Estimate) -> tuple[float, float, float] | None:
    """Low, value and high, the value standing in for an end that is not known; None without a value."""
    value = finite(estimate.value)
    if value is None:
        return None
    low, high = finite(estimate.low), finite(estimate.high)
    return value if low is None else low, value, value if high is None else high


def reliability(results: Sequence[CalibrationResult]) -> str | None:
    """A panel a condition: share right against confidence, before (hollow squares) and after (dots, intervals)."""
    if not results:
        return None
    columns = min(COLUMNS, len(results))
    rows = -(-len(results) // columns)

    def paint(figure: Figure) -> None:
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for place, axes in enumerate(panels.flat):
            if place >= len(results):
                axes.set_axis_off()
                continue
            one = results[place]
            axes.plot([0, 1], [0, 1], color=MUTED, linestyle=_DASHED, linewidth=1.2)
            _bins(axes, one.before, SERIES[1], "s", hollow=True)
            _bins(axes, one.after, SERIES[0], "o")
            axes.set_title(plain(one.title, 28), fontsize=11, color=INK)
            axes.set_xlim(-0.03, 1.03)
            axes.set_ylim(-0.03, 1.03)
            axes.set_xticks([0, 0.5, 1])
            axes.set_yticks([0, 0.5, 1])
            axes.xaxis.set_major_formatter(_share)
            axes.yaxis.set_major_formatter(_share)
            if place % columns == 0:
                axes.set_ylabel("share right", fontsize=10)
            if place + columns >= len(results):
                axes.set_xlabel("confidence", fontsize=10)
                axes.tick_params(labelbottom=True)

    worst = max(results, key=lambda one: one.after.ece.value or 0.0)
    title = (
        f"Share of right answers against confidence under {len(results)} conditions; farthest apart: "
        f"{plain(worst.title)}, expected calibration error {worst.after.ece.value or 0:.3f}"
    )
    width = max(2, columns) * _PANEL
    return draw("reliability", title, width, rows * width / columns, paint)


def _bins(axes: Axes, metrics: CalibrationMetrics, colour: str, marker: str, hollow: bool = False) -> None:
    """Marks of the bins that hold cells, larger with more of them."""
    for one in metrics.bins:
        found, x = _limits(one.accuracy), finite(one.confidence)
        if found is None or x is None or not one.accuracy.n:
            continue
        low, value, high = found
        if not hollow:
            axes.plot([x, x], [low, high], color=colour, linewidth=1.2)
        size = 3.0 + 4.0 * sqrt(one.accuracy.n / max(metrics.n, 1))
        axes.plot(
            [x], [value], color=colour, marker=marker, markersize=size, markerfacecolor="none" if hollow else colour
        )


def class_coverage(results: Sequence[CoverageResult], class_names: Sequence[str]) -> str | None:
    """A panel a level: all cells and each class, observed coverage with its exact interval against the level.

    The pale band is where the coverage must lie if the promise holds; a row without one was promised nothing.
    """
    if not results or not 0 < len(class_names) <= MAX_CLASSES:
        return None
    shown = sorted(results, key=lambda one: one.level)[:4]
    names = ["all cells", *class_names]

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)
        for axes, one in zip(panels.flat, shown, strict=True):
            axes.axvline(one.level, color=INK, linestyle=_DASHED, linewidth=1.2)
            promised = [one.expected, *one.class_expected]
            for row, (estimate, band) in enumerate(zip([one.coverage, *one.class_coverage], promised, strict=True)):
                if band is not None:
                    axes.barh(row, band[1] - band[0], left=band[0], height=0.7, color=SERIES[4], alpha=0.22)
                _interval(axes, estimate, row, SERIES[0], "o")
            axes.set_title(f"{_share(one.level)} wanted", fontsize=12, color=INK)
            axes.xaxis.set_major_formatter(_share)
            axes.locator_params(axis="x", nbins=4)
        _names(panels.flat[0], names)

    found = [
        (one.class_coverage[k].value, one.level, name)
        for one in shown
        for k, name in enumerate(class_names)
        if one.class_coverage[k].value is not None
    ]
    lowest = min(found, key=lambda one: (one[0] or 0.0) - one[1], default=None)
    title = "Observed against wanted coverage, all cells and each class"
    if lowest is not None:
        title += f"; lowest: {plain(lowest[2])}, {_share(lowest[0] or 0.0)} where {_share(lowest[1])} was wanted"
    return draw("coverage", title, 760, 90 + _ROW * len(names), paint)


def damaged_coverage(results: Sequence[CoverageResult]) -> str | None:
    """A row a condition: coverage with its exact interval, the wanted level dashed."""
    if not results:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvline(results[0].level, color=INK, linestyle=_DASHED, linewidth=1.2)
        for row, one in enumerate(results):
            _interval(axes, one.coverage, row, SERIES[0], "o")
        _names(axes, [one.title for one in results])
        axes.xaxis.set_major_formatter(_share)
        axes.set_xlabel("sets that hold the true class")

    worst = min(results, key=lambda one: 1.0 if one.coverage.value is None else one.coverage.value)
    title = (
        f"Coverage under {len(results)} conditions where {_share(results[0].level)} is wanted; lowest "
        f"{_share(worst.coverage.value or 0)} ({plain(worst.title)})"
    )
    return draw("damaged", title, 760, 80 + _ROW * len(results), paint)


def detection(results: Sequence[DetectionResult], score: str) -> str | None:
    """A row a set: AUROC of ``score`` with its interval, coloured and shaped by how far the set is from cells."""
    known = [(one, one.auroc[score]) for one in results if score in one.auroc and one.auroc[score].value is not None]
    if not known:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row, (one, estimate) in enumerate(known):
            place = list(DISTANCES).index(one.distance)
            _interval(axes, estimate, row, SERIES[place], MARKERS[place])
        axes.axvline(0.5, color=MUTED, linestyle=_DASHED, linewidth=1.2)
        axes.set_xlim(right=1.01)
        _names(axes, [one.title for one, _ in known])
        axes.set_xlabel("AUROC: 1 tells every image from the cells, 0.5 is a guess")

    worst = min(known, key=lambda found: found[1].value or 0.0)
    title = f"AUROC for {len(known)} sets of images; lowest {worst[1].value or 0:.3f} ({plain(worst[0].title)})"
    return draw("detection", title, 760, 80 + _ROW * len(known), paint)


def risk_curves(clean: SelectiveResult | None, damaged: Sequence[SelectiveResult]) -> str | None:
    """Share of errors among the cells kept, against the share kept: clean on the left, up to five damaged beside it."""
    panels = [[one] for one in (clean,) if one is not None and one.curve]
    if damaged:
        panels.append(list(damaged)[: len(SERIES)])
    if not panels:
        return None

    def paint(figure: Figure) -> None:
        for axes, curves in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
            for number, one in enumerate(curves):
                coverage, risk = np.array(one.curve, dtype=float).reshape(-1, 2).T
                axes.plot(coverage, risk, color=SERIES[number])
                if len(curves) > 1 and len(coverage):
                    axes.plot(
                        coverage[-1:], risk[-1:], color=SERIES[number], marker=MARKERS[number], markeredgecolor=PAPER
                    )
            axes.set_title(curves[0].title if len(curves) == 1 else "under damage", fontsize=12, color=INK)
            axes.set_xlim(0, 1.02)
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_formatter(_share)
            axes.yaxis.set_major_formatter(_share)
            axes.set_xlabel("cells kept, the least doubtful first")
        figure.axes[0].set_ylabel("errors among them")

    first = panels[0][0]
    title = (
        f"Errors among the cells kept against the share kept; {plain(first.title)}: "
        f"{_share(first.errors / first.n if first.n else 0.0)} if all are kept"
    )
    return draw("risk", title, 760, 300, paint)


def _interval(axes: Axes, estimate: Estimate, row: float, colour: str, marker: str) -> None:
    found = _limits(estimate)
    if found is None:
        return
    axes.plot([found[0], found[2]], [row, row], color=colour, linewidth=2)
    axes.plot([found[1]], [row], color=colour, marker=marker, markersize=6, markeredgecolor=PAPER)


def _names(axes: Axes, names: Sequence[str]) -> None:
    """Down the left side, the first on top."""
    axes.set_yticks(np.arange(len(names)), [plain(name, 34) for name in names], color=INK, fontsize=12)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.grid(visible=False, axis="y")
