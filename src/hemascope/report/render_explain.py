"""Overlays of an explanation, and the page made of its record and of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hemascope.atomic import atomic_path
from hemascope.explain_results import CellExplanation, ExplainReport, MethodResult
from hemascope.report.page import page, write_page
from hemascope.report.pictures import picture_address
from hemascope.report.wording import Card, percent

TITLES: Mapping[str, str] = {
    "integrated_gradients": "Integrated gradients",
    "rise": "RISE",
    "gradcam": "Grad-CAM",
    "hirescam": "HiResCAM",
    "gradcam++": "Grad-CAM++",
    "scorecam": "Score-CAM",
}

REVIEW: Mapping[str, str] = {
    "out_of_distribution": "it is unlike the training cells",
    "set_larger_than_one": "more than one class is possible",
    "views_disagree": "its views are named differently",
    "low_confidence": "the confidence is low",
    "words_disagree": "its features do not go with its name",
}
"""``results.REVIEW_REASONS`` in words."""

_SIDE, _GAP, _LINE, _FRAME = 168, 8, 22, 4
_INK, _FAILED, _PAPER = (24, 24, 28), (200, 64, 26), (255, 255, 255)
_STRENGTH = 0.65
"""Share of the colour where the map is 1; the cell stays visible below it, and is bare where the map is 0."""


def overlay(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """uint8 (S, S, 3) with its map, float (S, S) in 0 to 1, laid over it in inferno, thicker where it is hotter."""
    from matplotlib import colormaps

    values = np.clip(np.nan_to_num(heat), 0, 1)
    colour = colormaps["inferno"](values)[..., :3] * 255
    cover = (_STRENGTH * values)[..., None]
    blended: NDArray[np.uint8] = (image * (1 - cover) + colour * cover).round().astype(np.uint8)
    return blended


def save_overlay(
    path: Path,
    image: NDArray[np.uint8],
    heat: Sequence[NDArray[np.float32]],
    *,
    methods: Sequence[str],
    trustworthy: Sequence[bool],
    augmented: NDArray[np.uint8] | None = None,
    augmented_heat: Sequence[NDArray[np.float32]] = (),
) -> None:
    """Write one cell as a PNG: a column a method, the augmented version below; a frame and a cross mark a failed map.

    image, augmented  uint8 (S, S, 3); heat, augmented_heat: a map (S, S) a method

    Raises OutputError where it cannot be written.
    """
    rows = [[image, *(overlay(image, one) for one in heat)]]
    if augmented is not None:
        rows.append([augmented, *(overlay(augmented, one) for one in augmented_heat)])
    columns = 1 + len(methods)
    sheet = Image.new("RGB", (_GAP + columns * (_SIDE + _GAP), _GAP + len(rows) * (_SIDE + _GAP + _LINE)), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for line, pictures in enumerate(rows):
        top = _GAP + line * (_SIDE + _GAP + _LINE)
        for column, picture in enumerate(pictures):
            left = _GAP + column * (_SIDE + _GAP)
            sheet.paste(Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), (left, top + _LINE))
            failed = column > 0 and not trustworthy[column - 1]
            if column == 0:
                words = "as it is" if line == 0 else "augmented"
            else:
                words = TITLES.get(methods[column - 1], methods[column - 1])
            draw.text(
                (left, top + 2), f"{words}: fails" if failed else words, fill=_FAILED if failed else _INK, font=font
            )
            if failed:
                _mark(draw, left, top + _LINE)
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG")


def _mark(draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
    """A frame and, in a corner, a cross: seen without colour too."""
    right, bottom = left + _SIDE - 1, top + _SIDE - 1
    draw.rectangle((left, top, right, bottom), outline=_FAILED, width=_FRAME)
    low, high = 10, 28
    draw.rectangle((left + 4, top + 4, left + high + 6, top + high + 6), fill=_PAPER)
    draw.line((left + low, top + low, left + high, top + high), fill=_FAILED, width=4)
    draw.line((left + low, top + high, left + high, top + low), fill=_FAILED, width=4)


def render_explain(report: ExplainReport, folder: Path) -> Path:
    """Write ``report.html`` into ``folder``, with the pictures of ``overlays/`` in it, and return its path.

    Raises OutputError where it cannot be written.
    """
    path = folder / "report.html"
    write_page(path, page("explain.html.j2", _view(report, folder)))
    return path


def verdict(report: ExplainReport) -> str:
    """How many explanations hold, in a sentence a method."""
    n = len(report.cells)
    parts = []
    for method in report.methods:
        holds = report.holding(method)
        said = f"all {n:,}" if holds == n > 1 else "none" if not holds else f"{holds:,} of {n:,}"
        parts.append(f"{said} by {TITLES.get(method, method)}")
    cells = "1 cell was" if n == 1 else f"{n:,} cells were"
    return f"{cells} explained. Explanations that hold: {', '.join(parts)}."


def _view(report: ExplainReport, folder: Path) -> Mapping[str, object]:
    side = max(_GAP + (1 + len(report.methods)) * (_SIDE + _GAP), 2 * (_SIDE + 2 * _GAP + _LINE))
    return {
        "title": f"Explanations of {report.model}",
        "report": report,
        "verdict": verdict(report),
        "cards": [_card(report, method) for method in report.methods],
        "titles": TITLES,
        "width": _GAP + (1 + len(report.methods)) * (_SIDE + _GAP),
        "cells": [
            (
                cell,
                picture_address(folder, folder / "overlays", cell.picture, side),
                REVIEW.get(cell.review_reason, cell.review_reason),
                _alternative(cell),
            )
            for cell in report.cells
        ],
        "failures": sum(1 for cell in report.cells if not all(one.trustworthy for one in cell.methods)),
    }


def _card(report: ExplainReport, method: str) -> Card:
    results = [one for cell in report.cells for one in cell.methods if one.method == method]
    better = sum(one.insertion > one.random_insertion and one.deletion < one.random_deletion for one in results)
    inside = _mean(one.in_cell for one in results)
    agrees = _mean(one.agreement for one in results)
    details = [f"better than chance: {better:,}", f"of the map in the cell: {percent(inside)}"]
    if agrees is not None:
        details.append(f"agreement: {agrees:.2f}".replace("-", "\N{MINUS SIGN}"))
    if method in report.sanity:
        details.append(f"like one of another head: {report.sanity[method]:.2f}".replace("-", "\N{MINUS SIGN}"))
    return Card(
        f"{report.holding(method):,} of {len(results):,}", f"hold by {TITLES.get(method, method)}", " · ".join(details)
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _alternative(cell: CellExplanation) -> str:
    """The picture in words, for those who do not see it."""
    return f"{cell.id}, named {cell.label}: " + "; ".join(_in_words(one) for one in cell.methods)


def _in_words(one: MethodResult) -> str:
    place = "" if one.in_cell is None else f", {percent(one.in_cell)} of it in the cell"
    return f"map by {TITLES.get(one.method, one.method)}{place}, {'holds' if one.trustworthy else 'fails'}"
