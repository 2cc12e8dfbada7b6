"""The interactive map: cells as points, coloured by class, split or finding, the one under the pointer shown.

Its data travel in a JSON block; pictures as sheets of small tiles, since thousands of single pictures would weigh
several times as much. Without script the page still has each map as a drawing, coloured by class.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.cells import UNLABELLED, CellDataset
from hemascope.findings import MapPoints
from hemascope.report.page import data_block, inline_script, markup, page, write_page
from hemascope.report.svg import plain
from hemascope.report.wording import number, percent

COLOURS = 12
"""Colours on the page, --map-1 to --map-12; told apart in sixes, with another shape for every further six."""

_SHEET = 16
_SPAN = 10_000
"""Places are whole numbers up to this: a hundred steps a pixel are more than anyone can zoom to."""

_TILES = ((6_000, 64), (20_000, 40))
"""Up to so many cells, tiles of so many pixels; smaller ones beyond, so that the page stays below 8 MB or so."""
_SMALLEST_TILE = 24
_STATIC_LEGEND = 60

Picture = Callable[[int], Image.Image | None]
"""The picture of a row, None where there is none."""


@dataclass(frozen=True)
class MapCells:
    """What is known of N cells, some of which are on a map.

    ids, labels, class_names, split  as in ``CellDataset``
    picture  of a row
    scores   float32 (N,) by the title of its check
    found    rows with findings by the title of the check, most severe first
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    class_names: Sequence[str]
    picture: Picture
    split: NDArray[np.str_] | None = None
    scores: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    found: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)


@dataclass(frozen=True)
class Panel:
    """One map as the template shows it: ``drawing`` is what stands there without script."""

    title: str
    caption: str
    drawing: Any


@dataclass(frozen=True)
class MapView:
    """Everything the map's template needs. ``legend``: (class, number of its colour, images on the map)."""

    data: Any
    panels: tuple[Panel, ...]
    cells: int
    legend: tuple[tuple[str, int, int], ...]
    more_classes: int


def render_map(cells: CellDataset, maps: Sequence[MapPoints], output: Path, *, title: str = "cells") -> Path:
    """Write a page with one map of ``cells``, or several side by side, and return its path.

    ``rows`` of the maps are rows of ``cells``. Maps of the same cells are linked: what is pointed at in one is marked
    in the others. Beside each stand its silhouette and the balanced accuracy of its nearest neighbours. Raises
    OutputError where the page cannot be written; an older one is then untouched.
    """

    def picture(row: int) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(cells.images[row]))

    known = MapCells(cells.ids, cells.labels, cells.class_names, picture, cells.split)
    view = {
        "title": title,
        "source": cells.source,
        "map": map_view(maps, known),
        "script": inline_script(["map.js"]),
    }
    write_page(output, page("map.html.j2", view))
    return output


def map_view(maps: Sequence[MapPoints], cells: MapCells) -> MapView:
    """The maps, one panel each, with everything known of the cells on them."""
    rows = np.unique(np.concatenate([one.rows for one in maps])) if maps else np.array([], dtype=np.int64)
    labels = cells.labels[rows]
    counts = np.bincount(labels[labels != UNLABELLED], minlength=len(cells.class_names))
    places = [_places(one.position) for one in maps]
    parts = None if cells.split is None else cells.split[rows]
    names = [] if parts is None else list(dict.fromkeys(parts.tolist()))
    data = {
        "span": _SPAN,
        "ids": [cells.ids[row] for row in rows.tolist()],
        "classes": list(cells.class_names),
        "label": labels.tolist(),
        "splits": names,
        "split": None if parts is None else [names.index(one) for one in parts.tolist()],
        "checks": [{"title": title, "cells": np.flatnonzero(np.isin(rows, at)).tolist()}
                   for title, at in cells.found.items()],
        "scores": [{"title": title, "values": _short(values[rows])} for title, values in cells.scores.items()],
        "panels": [
            {"title": one.title, "cells": np.searchsorted(rows, one.rows).tolist(),
             "x": place[:, 0].tolist(), "y": place[:, 1].tolist()}
            for one, place in zip(maps, places, strict=True)
        ],
        **_sheets(rows, cells.picture),
    }  # fmt: skip
    panels = tuple(
        Panel(one.title, _caption(one), markup(_drawing(one, place, cells.labels[one.rows])))
        for one, place in zip(maps, places, strict=True)
    )
    present = [(cells.class_names[k], k % COLOURS + 1, int(counts[k])) for k in np.flatnonzero(counts).tolist()]
    return MapView(
        data_block(data), panels, len(rows), tuple(present[:_STATIC_LEGEND]), max(0, len(present) - _STATIC_LEGEND)
    )


def _short(values: NDArray[np.float32]) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 3) for value in values]


def _places(position: NDArray[np.float32]) -> NDArray[np.int64]:
    """Positions as whole numbers in 0 to _SPAN, the longer side filling it, neither side stretched; y downwards."""
    if not len(position):
        return np.zeros((0, 2), dtype=np.int64)
    low, high = position.min(axis=0).astype(np.float64), position.max(axis=0).astype(np.float64)
    extent = max(float((high - low).max()), 1e-12)
    centred = (position - (low + high) / 2) / extent * [1, -1] + 0.5
    places: NDArray[np.int64] = np.rint(_SPAN * centred).astype(np.int64)
    return places


def _caption(one: MapPoints) -> str:
    if one.silhouette is None and one.knn_accuracy is None:
        return "Without two classes there is no separation to measure."
    parts = []
    if one.silhouette is not None:
        parts.append(f"silhouette {number(one.silhouette)}".replace("-", "\N{MINUS SIGN}"))
    if one.knn_accuracy is not None:
        parts.append(f"k-NN balanced accuracy {percent(one.knn_accuracy)}")
    return " · ".join(parts)


def _drawing(one: MapPoints, places: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
    """An SVG of the map: one path a class, each point a stroke of no length with a round or square end."""
    paths = []
    for label in np.unique(labels).tolist():
        stroke = "var(--muted)" if label == UNLABELLED else f"var(--map-{label % COLOURS + 1})"
        cap = "square" if label != UNLABELLED and label // (COLOURS // 2) % 2 else "round"
        points = "".join(f"M{x / 10:.0f} {y / 10:.0f}h0" for x, y in places[labels == label].tolist())
        paths.append(f'<path d="{points}" stroke="{stroke}" stroke-linecap="{cap}"/>')
    from markupsafe import escape

    title = escape(plain(f"Map of {len(places):,} cells, {one.title}", 120))
    return (
        f'<svg viewBox="-15 -15 1030 1030" role="img"><title>{title}</title>'
        f'<g fill="none" stroke-width="{9 if len(places) > 1500 else 13}">{"".join(paths)}</g></svg>'
    )


def _sheets(rows: NDArray[np.int64], picture: Picture) -> dict[str, Any]:
    """Pictures of all rows as sheets of tiles, and which tile is whose (-1: none)."""
    side = next((side for most, side in _TILES if len(rows) <= most), _SMALLEST_TILE)
    sheets: list[str] = []
    tile: list[int] = []
    used = 0
    sheet = Image.new("RGB", (_SHEET * side, _SHEET * side))
    for row in rows.tolist():
        found = picture(row)
        if found is None:
            tile.append(-1)
            continue
        place = used % _SHEET**2
        sheet.paste(_square(found, side), (place % _SHEET * side, place // _SHEET * side))
        tile.append(used)
        used += 1
        if place == _SHEET**2 - 1:
            sheets.append(_webp(sheet))
    if used % _SHEET**2:
        lines = -(-(used % _SHEET**2) // _SHEET)
        sheets.append(_webp(sheet.crop((0, 0, _SHEET * side, lines * side))))
    return {"tile": side, "columns": _SHEET, "sheets": sheets, "picture": tile}


def _square(picture: Image.Image, side: int) -> Image.Image:
    picture = picture.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    if picture.size == (side, side):
        return picture
    whole = Image.new("RGB", (side, side), (128, 128, 128))
    whole.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return whole


def _webp(sheet: Image.Image) -> str:
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=72, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
