"""Figures of a stress test: balanced accuracy against severity, and what stacked layers do by their kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hemascope.report.svg import INK, MUTED, SERIES, draw, plain
from hemascope.stress_results import Baseline, Condition, StackResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
_PANEL = (190, 150)


def severity_curves(
    clean: Condition, corruptions: Mapping[str, Sequence[Condition]], baseline: Baseline | None
) -> str | None:
    """One small panel a corruption: the curve with its interval, clean as severity 0, the baseline's mean dashed."""
    if not corruptions:
        return None
    every = [clean, *(one for conditions in corruptions.values() for one in conditions)]
    lowest = min(_low(one) for one in every)
    if baseline is not None:
        lowest = min(lowest, *(1 - baseline.errors.get(name, 0.0) for name in corruptions))
    rows = -(-len(corruptions) // COLUMNS)

    def paint(figure: Figure) -> None:
        panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
        for place, axes in enumerate(panels.flat):
            if place >= len(corruptions):
                axes.set_axis_off()
                continue
            name = list(corruptions)[place]
            _panel(axes, clean, corruptions[name], None if baseline is None else baseline.errors.get(name))
            axes.set_ylim(max(0.0, lowest - 0.03), 1.005)
            if place % COLUMNS == 0:
                axes.set_ylabel("balanced accuracy", fontsize=10)
            if place + COLUMNS >= len(corruptions):
                axes.set_xlabel("severity", fontsize=10)
                axes.tick_params(labelbottom=True)

    worst = min(every, key=lambda one: one.balanced_accuracy.value or 0.0)
    title = (
        f"Balanced accuracy against severity for {len(corruptions)} corruptions; lowest "
        f"{100 * (worst.balanced_accuracy.value or 0):.1f} % ({worst.title}, severity {worst.severity})"
    )
    return draw("severity", title, COLUMNS * _PANEL[0], rows * _PANEL[1], paint)


def _panel(axes: Axes, clean: Condition, conditions: Sequence[Condition], baseline: float | None) -> None:
    shown = [clean, *conditions]
    severities = [one.severity for one in shown]
    values = np.array([one.balanced_accuracy.value or 0.0 for one in shown])
    axes.fill_between(
        severities,
        [_low(one) for one in shown],
        [_high(one) for one in shown],
        color=SERIES[0],
        alpha=0.18,
        linewidth=0,
    )
    axes.plot(severities, values, color=SERIES[0], marker="o", markersize=4)
    if baseline is not None:
        axes.axhline(1 - baseline, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
    axes.set_title(plain(conditions[0].title, 30), fontsize=11, color=INK)
    axes.set_xticks(severities)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def _low(one: Condition) -> float:
    estimate = one.balanced_accuracy
    return estimate.low if estimate.low is not None else estimate.value or 0.0


def _high(one: Condition) -> float:
    estimate = one.balanced_accuracy
    return estimate.high if estimate.high is not None else estimate.value or 0.0


def stack_families(stacks: Sequence[StackResult]) -> str | None:
    """Balanced accuracy of the cells whose stack held a layer of each family, one mark a stacked test."""
    families = list(dict.fromkeys(name for one in stacks for name in one.by_family))
    if not families:
        return None
    first = stacks[-1].by_family
    families.sort(key=lambda name: first[name].value or 0.0 if name in first else 1.0)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, stack in enumerate(stacks):
            for row, family in enumerate(families):
                found = stack.by_family.get(family)
                if found is None or found.value is None:
                    continue
                y = row + (number - (len(stacks) - 1) / 2) * 0.26
                low = found.low if found.low is not None else found.value
                high = found.high if found.high is not None else found.value
                axes.plot([low, high], [y, y], color=SERIES[number % 5], linewidth=2)
                axes.plot([found.value], [y], color=SERIES[number % 5], marker="os^Dv"[number % 5], markersize=6)
        axes.set_yticks(np.arange(len(families)), families, color=INK, fontsize=12)
        axes.set_ylim(len(families) - 0.5, -0.5)
        axes.tick_params(length=0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.set_xlabel("balanced accuracy of the cells under such a layer")

    worst = families[0]
    title = f"Balanced accuracy by the kind of layer in the stack; lowest where {worst} is among them"
    return draw("families", title, 760, 80 + 34 * len(families), paint)
