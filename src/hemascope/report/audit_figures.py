"""The figures of an audit: each a function from results to an inline SVG, or None where nothing can be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hemascope.findings import CheckResult
from hemascope.report.figures import MAX_CLASSES, WIDTH
from hemascope.report.svg import GRID, INK, MISTAKE, MUTED, PAPER, SERIES, draw, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 60
MOST_SOURCES = 24
"""Sources drawn: those that stand apart, then those with most images; the table has more."""


def distribution(result: CheckResult) -> str | None:
    """Histogram of a check's scores on a logarithmic count, what lies at or below the cut in another colour."""
    if result.scores is None:
        return None
    scores = result.scores[~np.isnan(result.scores)]
    if not len(scores):
        return None
    cut = result.cut
    low = min(float(scores.min()), 1.0 if cut is None else cut)
    low = 0.0 if low < 0.4 else np.floor(20 * low) / 20 if low < 0.95 else 0.95
    edges = np.linspace(low, 1, _BINS + 1)
    inside = np.clip(scores, low, 1)
    below = scores <= cut if cut is not None else np.zeros(len(scores), dtype=bool)
    above, _ = np.histogram(inside[~below], edges)
    found, _ = np.histogram(inside[below], edges)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        width = edges[1] - edges[0]
        middle = edges[:-1] + width / 2
        # Drawn one over the other: on a logarithmic axis stacked heights would mean nothing.
        order = [(above, SERIES[0]), (found, MISTAKE)]
        for counts, colour in order:
            some = counts > 0
            axes.bar(middle[some], counts[some], width=0.88 * width, color=colour, linewidth=0, alpha=0.9)
        axes.set_yscale("log")
        axes.set_ylim(0.6, 2.2 * max(above.max(), found.max(), 1))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else "")
        axes.yaxis.set_minor_locator(_no_ticks())
        axes.set_xlim(low, 1)
        axes.tick_params(length=0)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("score (lower is worse)")
        axes.set_ylabel("images (log axis)")
        if cut is not None:
            right = cut < low + 0.75 * (1 - low)
            axes.axvline(cut, color=INK, linewidth=1.4, linestyle=(0, (4, 3)))
            axes.annotate(
                f"cut {cut:.3g}", (cut, 1), (6 if right else -6, -4), xycoords=("data", "axes fraction"), va="top",
                textcoords="offset points", ha="left" if right else "right", color=INK, fontsize=11,
            )  # fmt: skip

    said = f"Distribution of {len(scores):,} scores of {result.check.replace('_', ' ')}"
    said += "" if cut is None else f"; {int(below.sum()):,} at or below the cut of {cut:.3g}"
    return draw(f"scores-{result.check}", said, WIDTH, 210, paint)


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def probes(results: Sequence[Mapping[str, Any]]) -> str | None:
    """Dot and 95 % interval of each probe's balanced accuracy, in per cent, and chance as a line."""
    made = [one for one in results if isinstance(one.get("balanced_accuracy"), int | float)]
    if not made:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row, one in enumerate(made):
            value = 100 * float(one["balanced_accuracy"])
            colour = MISTAKE if one.get("found") else SERIES[0]
            low, high = one.get("low"), one.get("high")
            if isinstance(low, int | float) and isinstance(high, int | float):
                axes.plot([100 * low, 100 * high], [row, row], color=colour, linewidth=2.2, marker="|", markersize=8)
            axes.plot(value, row, marker="o", color=colour, markersize=7, markeredgecolor=PAPER)
            axes.annotate(
                f"{value:.1f}", (value, row), (0, 9), textcoords="offset points", ha="center", color=INK, fontsize=11
            )
        chance = made[0].get("chance")
        if isinstance(chance, int | float):
            axes.axvline(100 * chance, color=INK, linewidth=1.4, linestyle=(0, (4, 3)))
            axes.annotate(
                "chance", (100 * chance, 0), (5, 5), xycoords=("data", "axes fraction"), textcoords="offset points",
                color=INK, fontsize=11,
            )  # fmt: skip
        axes.set_yticks(range(len(made)), [plain(str(one.get("name", "")), 28) for one in made], color=INK, fontsize=12)
        axes.set_ylim(len(made) - 0.4, -0.6)
        axes.set_xlim(0, 103)
        axes.tick_params(length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("balanced accuracy of naming the class, per cent, with 95 % interval")

    said = "Balanced accuracy of each probe: " + ", ".join(
        f"{plain(str(one.get('name', '')))} {100 * float(one['balanced_accuracy']):.1f} %" for one in made
    )
    return draw("probes", said, WIDTH, 90 + 42 * len(made), paint)


def quartiles(name: str, statistics: Mapping[str, Any], key: str) -> str | None:
    """Median and quartiles of each measure (columns) for each class or source (rows).

    ``key`` is ``by_class`` or ``by_source`` of ``AuditReport.statistics``. Groups whose median stands apart are drawn
    in the colour of mistakes, with another marker.
    """
    measures = [one for one in statistics.values() if isinstance(one, Mapping) and _groups(one, key)]
    if not measures:
        return None
    first = _groups(measures[0], key)
    if key == "by_source":
        apart = {name for one in measures for name, group in _groups(one, key).items() if group.get("flag")}
        chosen = sorted(first, key=lambda name: (name not in apart, -first[name]["n"]))[:MOST_SOURCES]
        rows = [name for name in first if name in chosen]
    else:
        rows = list(first)
    if not 0 < len(rows) <= MAX_CLASSES:
        return None

    def paint(figure: Figure) -> None:
        grid = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
        for axes, measure in zip(grid, measures, strict=True):
            for row, group in enumerate(rows):
                values = _groups(measure, key).get(group)
                if values is None:
                    continue
                flagged = bool(values.get("flag"))
                colour = MISTAKE if flagged else SERIES[0]
                axes.plot([values["q1"], values["q3"]], [row, row], color=colour, linewidth=2.2, marker="|")
                axes.plot(
                    values["median"], row, marker="D" if flagged else "o", color=colour, markersize=6.5,
                    markeredgecolor=PAPER,
                )  # fmt: skip
            axes.set_title(_short_title(str(measure.get("title", ""))), fontsize=11, color=MUTED)
            axes.tick_params(length=0)
            axes.locator_params(axis="x", nbins=3 if len(measures) < 4 else 2)
            axes.grid(visible=False, axis="y")
            axes.spines["left"].set_color(GRID)
        grid[0].set_yticks(range(len(rows)), [plain(group, 22) for group in rows], color=INK, fontsize=12)
        grid[0].set_ylim(len(rows) - 0.4, -0.6)

    said = f"Median and quartiles of {len(measures)} measures for {len(rows)} " + (
        "classes" if key == "by_class" else "sources"
    )
    return draw(name, said, WIDTH, 80 + 26 * len(rows), paint)


def _groups(measure: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    """The groups of one measure that have all their numbers."""
    groups = measure.get(key)
    if not isinstance(groups, Mapping):
        return {}
    numbers = ("n", "q1", "median", "q3")
    return {
        str(name): group
        for name, group in groups.items()
        if isinstance(group, Mapping) and all(isinstance(group.get(one), int | float) for one in numbers)
    }


def _short_title(title: str) -> str:
    """Two short lines: what it is, and its unit without the brackets."""
    head, _, unit = title.partition(" (")
    return plain(head.replace("-like", ""), 20) + ("\n" + plain(unit.rstrip(")"), 20) if unit else "")
