"""The figures of the report: each a function from records to an inline SVG, or None where nothing can be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from hemascope.report.records import StageHistory
from hemascope.report.svg import GRID, INK, MUTED, PAPER, SERIES, draw, plain
from hemascope.results import Comparison, Estimate, SplitEvaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 760
"""CSS pixels a figure is designed for; the page scales it."""

MAX_CLASSES = 60
"""With more classes than this a figure with a row a class is unreadable and left out."""

CURVE_POINTS = 240
"""Points a curve is thinned to, a stage: more than its pixels would be invisible weight."""

METRIC_TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
    "macro_f1": "Macro F1",
    "macro_auroc": "Macro AUROC",
    "log_loss": "Log loss",
}
"""How the metrics of an evaluation are called on the page, in the order shown."""

MARKERS = ("o", "s", "D", "^", "v")
"""Shapes that tell the series apart without colour; the page's legends draw the same."""


def finite(value: float | None) -> float | None:
    """``value``, or None where it is not a finite number."""
    return value if value is not None and isfinite(value) else None


def composition(class_names: Sequence[str], split_counts: Mapping[str, Sequence[int]]) -> str | None:
    """Stacked bars: cells of each class (rows) by split (colours). Counts are images."""
    splits = list(split_counts.items())[: len(SERIES)]
    if not splits or not 0 < len(class_names) <= MAX_CLASSES:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        rows = np.arange(len(class_names))
        left = np.zeros(len(class_names))
        for colour, (_, counts) in zip(SERIES, splits, strict=False):
            axes.barh(rows, counts, left=left, height=0.68, color=colour, edgecolor=PAPER, linewidth=1.2)
            left = left + np.asarray(counts, dtype=float)
        for row, total in zip(rows, left, strict=True):
            axes.annotate(
                f"{total:,.0f}", (total, row), (5, 0), textcoords="offset points", va="center", color=INK, fontsize=11
            )
        axes.set_xlim(0, max(float(left.max()), 1.0) * 1.1)
        _class_rows(axes, class_names)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("cells")

    title = "Cells of each class: " + ", ".join(
        f"{plain(name)} {sum(counts[index] for _, counts in splits):,}" for index, name in enumerate(class_names)
    )
    return draw("composition", title, WIDTH, 70 + 28 * len(class_names), paint)


def _class_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names down the left side, first on top, no tick marks."""
    axes.set_yticks(np.arange(len(names)), [plain(name, 24) for name in names], color=INK, fontsize=12)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _thinned(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """At most CURVE_POINTS points, each the mean of its neighbours."""
    parts = np.array_split(np.asarray(points, dtype=float), min(len(points), CURVE_POINTS))
    return [float(part[:, 0].mean()) for part in parts], [float(part[:, 1].mean()) for part in parts]


def _curve(
    axes: Axes, points: Sequence[tuple[float, float | None]], colour: str, marker: str | None = None, thin: bool = False
) -> None:
    known = [(x, y) for x, y in points if y is not None and isfinite(y) and abs(y) < 1e12]
    if not known:
        return
    x, y = _thinned(known) if thin else ([p[0] for p in known], [p[1] for p in known])
    alone = marker is not None or len(x) == 1
    axes.plot(x, y, color=colour, marker=(marker or "o") if alone else None, markersize=4.5, markeredgecolor=PAPER)


def curves(stages: Sequence[StageHistory]) -> str | None:
    """Loss, balanced accuracy and learning rate (rows, the last on a log axis) over epochs; a column a stage."""
    drawn = [stage for stage in stages if stage.steps or stage.epochs][:12]
    if not drawn:
        return None
    lengths = [max([*(p.epoch for p in stage.steps), *(p.epoch for p in stage.epochs)]) for stage in drawn]
    # Square roots: a frozen stage of 30 cheap epochs must not squeeze the few that matter.
    ratios = np.sqrt(np.maximum(lengths, 0.5))
    ratios = np.maximum(ratios / ratios.max(), 0.35)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(
            3, len(drawn), sharey="row", squeeze=False, gridspec_kw={"width_ratios": ratios, "height_ratios": [4, 4, 3]}
        )
        for column, stage in enumerate(drawn):
            loss, score, rate = grid[:, column]
            if stage.steps:
                _curve(loss, [(p.epoch, p.loss) for p in stage.steps], SERIES[0], thin=True)
            else:
                _curve(loss, [(p.epoch, p.train_loss) for p in stage.epochs], SERIES[0])
            _curve(loss, [(p.epoch, p.validation_loss) for p in stage.epochs], SERIES[1], MARKERS[1])
            _curve(score, [(p.epoch, p.validation_balanced_accuracy) for p in stage.epochs], SERIES[1], MARKERS[1])
            points = [(p.epoch, p.lr) for p in (stage.steps or stage.epochs) if p.lr is not None and p.lr > 0]
            if points:
                _curve(rate, points, SERIES[2], thin=True)
                rate.set_yscale("log")
                rate.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-"))
                rate.yaxis.set_minor_formatter("")
            loss.set_title(f"stage: {plain(stage.name, 24)}", fontsize=12, fontweight="bold", loc="left")
            rate.set_xlabel("epoch of the stage")
            for axes in (loss, score):
                axes.tick_params(labelbottom=False)
            for axes in (loss, score, rate):
                axes.set_xlim(0, max(lengths[column], 1e-3) * 1.03)
                axes.tick_params(length=0, which="both")
        for row, label in enumerate(("loss", "balanced\naccuracy, %", "learning rate\n(log axis)")):
            grid[row, 0].set_ylabel(label)
        grid[1, 0].yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
        figure.align_ylabels(grid[:, 0])

    title = "Training curves of " + ", then ".join(plain(stage.name, 24) for stage in drawn)
    return draw("curves", title, WIDTH, 520, paint)


def _intervals(
    axes: Axes, rows: Sequence[str], series: Sequence[tuple[str, str, Sequence[Estimate | None]]], scale: float = 1.0
) -> None:
    """A dot and a line from low to high for each row and series; undefined values leave a gap."""
    spread = 0.24 if len(series) > 1 else 0.0
    offsets = np.linspace(-spread, spread, len(series)) if len(series) > 1 else [0.0]
    _class_rows(axes, rows)
    for row in range(len(rows) - 1):
        axes.axhline(row + 0.5, color=GRID, linewidth=0.6)
    for offset, (colour, marker, estimates) in zip(offsets, series, strict=True):
        for row, estimate in enumerate(estimates):
            value = finite(estimate.value) if estimate else None
            if estimate is None or value is None:
                continue
            low, high = finite(estimate.low), finite(estimate.high)
            if low is not None and high is not None:
                ends = [scale * low, scale * high]
                axes.plot(ends, [row + offset] * 2, color=colour, linewidth=2.2, marker="|", markersize=7)
            axes.plot(scale * value, row + offset, marker=marker, color=colour, markersize=6.5, markeredgecolor=PAPER)


def _percent_axis(axes: Axes, estimates: Sequence[Estimate | None]) -> None:
    """From just below the lowest bound to 100 %: differences near the top must be visible."""
    bounds = [
        bound
        for e in estimates
        if e is not None and finite(e.value) is not None
        for bound in (finite(e.value), finite(e.low))
        if bound is not None
    ]
    lowest = max(min(bounds, default=0.0), 0.0) * 100
    room = max(100 - lowest, 0.5)
    axes.set_xlim(max(lowest - 0.06 * room, 0), 100 + 0.02 * room)
    axes.set_xlabel("per cent, with 95 % interval (the axis does not start at 0)")


def split_metrics(splits: Sequence[SplitEvaluation]) -> str | None:
    """Dot and 95 % interval of each metric (rows) for each split (colours and shapes), in per cent."""
    names = [name for name in METRIC_TITLES if name != "log_loss" and any(name in s.metrics for s in splits)]
    shown = splits[: len(SERIES)]
    if not names:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        series = [
            (SERIES[place], MARKERS[place], [split.metrics.get(name) for name in names])
            for place, split in enumerate(shown)
        ]
        _intervals(axes, [METRIC_TITLES[name] for name in names], series, 100)
        _percent_axis(axes, [estimate for _, _, estimates in series for estimate in estimates])

    title = "Metrics with 95 % intervals for " + ", ".join(plain(split.split) for split in shown)
    return draw("metrics", title, WIDTH, 70 + 46 * len(names), paint)


def class_metrics(split: SplitEvaluation) -> str | None:
    """Dot and 95 % interval of recall and precision for each class of one split, in per cent."""
    classes = split.per_class
    if not 0 < len(classes) <= MAX_CLASSES:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        series: list[tuple[str, str, Sequence[Estimate | None]]] = [
            (SERIES[0], MARKERS[0], [one.recall for one in classes]),
            (SERIES[1], MARKERS[1], [one.precision for one in classes]),
        ]
        _intervals(axes, [one.name for one in classes], series, 100)
        _percent_axis(axes, [estimate for _, _, estimates in series for estimate in estimates])

    return draw(
        "classes", f"Recall and precision of each class, {plain(split.split)}", WIDTH, 70 + 36 * len(classes), paint
    )


def differences(comparison: Comparison) -> str | None:
    """Dot and 95 % interval of the difference (second minus first) of each metric, in percentage points."""
    names = [name for name in METRIC_TITLES if name != "log_loss" and name in comparison.difference]
    if not names:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvline(0, color=MUTED, linewidth=1.4)
        estimates = [comparison.difference[name] for name in names]
        _intervals(axes, [METRIC_TITLES[name] for name in names], [(SERIES[0], MARKERS[0], estimates)], 100)
        reach = [abs(b) for e in estimates for b in (finite(e.value), finite(e.low), finite(e.high)) if b is not None]
        edge = 100 * max([*reach, 0.002]) * 1.15
        axes.set_xlim(-edge, edge)
        axes.set_xlabel("percentage points (left of 0: first run better, right: second run better)")

    return draw("differences", "Difference of each metric, second run minus first", WIDTH, 70 + 36 * len(names), paint)
