"""The forest plot of a study: each variant's paired difference to the base with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hemascope.report.svg import INK, MUTED, SERIES, draw, plain
from hemascope.study_results import Metric, StudyResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW = 30


def forest(result: StudyResult, metric: Metric) -> str | None:
    """One line a variant, a filled mark where its interval excludes zero; None where there is nothing to show."""
    rows = [
        (one.label or one.name, one.measures[metric.name])
        for one in result.variants
        if metric.name in one.measures and one.measures[metric.name].difference is not None
    ]
    if not rows:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvline(0, color=MUTED, linewidth=1.2)
        for place, (_, measured) in enumerate(rows):
            difference = measured.difference
            if difference is None or difference.value is None:
                continue
            value = 100 * difference.value
            low = value if difference.low is None else 100 * difference.low
            high = value if difference.high is None else 100 * difference.high
            filled = bool(measured.differs)
            axes.plot([low, high], [place, place], color=SERIES[0], linewidth=2)
            axes.plot(
                [value],
                [place],
                marker="o",
                markersize=8,
                markeredgewidth=1.8,
                color=SERIES[0],
                markerfacecolor=SERIES[0] if filled else "none",
            )
        axes.set_yticks(np.arange(len(rows)), [plain(label, 44) for label, _ in rows], color=INK, fontsize=12)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(length=0)
        axes.set_xlabel(f"points of balanced accuracy, {metric.title}, against {plain(base_label(result), 40)}")

    apart = [label for label, measured in rows if measured.differs]
    title = (
        f"Differences of {len(rows)} variants to {base_label(result)}, {metric.title}; the interval excludes zero for "
        f"{', '.join(apart) if apart else 'none of them'}"
    )
    return draw(f"forest-{metric.name}", title, 760, 80 + _ROW * len(rows), paint)


def base_label(result: StudyResult) -> str:
    """What the base is called."""
    return next((one.label or one.name for one in result.variants if one.name == result.base), result.base)
