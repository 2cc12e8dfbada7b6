"""Rows of pictures with captions, as one PNG: what a person looks at before believing a setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hemascope.atomic import atomic_path

SIDE = 96
"""Side of a picture on the sheet in pixels; larger ones are made smaller, small ones enlarged in whole steps."""

_GAP, _MARGIN, _CAPTION, _LINE, _TITLE = 6, 24, 236, 18, 44
_INK, _PALE, _PAPER = (24, 24, 28), (105, 105, 112), (255, 255, 255)


@dataclass(frozen=True)
class SheetRow:
    """A caption of a few lines, and pictures uint8 (H, W, 3) side by side, each with a word below (or none)."""

    caption: tuple[str, ...]
    pictures: Sequence[NDArray[np.uint8]]
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class SheetSection:
    """A title, a sentence, and rows."""

    title: str
    sentence: str
    rows: Sequence[SheetRow]


def save_contact_sheet(path: Path, sections: Sequence[SheetSection]) -> None:
    """Write ``sections`` below each other to ``path`` as PNG. Raises OutputError where it cannot be written."""
    columns = max((len(row.pictures) for section in sections for row in section.rows), default=1)
    width = 2 * _MARGIN + _CAPTION + columns * (SIDE + _GAP)
    height = 2 * _MARGIN + sum(_TITLE + sum(_row_height(row) for row in section.rows) + _GAP for section in sections)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(17), ImageFont.load_default(12)
    y = _MARGIN
    for section in sections:
        draw.text((_MARGIN, y), section.title, fill=_INK, font=large)
        draw.text((_MARGIN, y + 23), section.sentence, fill=_PALE, font=small)
        y += _TITLE
        for row in section.rows:
            for number, line in enumerate(row.caption):
                draw.text((_MARGIN, y + number * _LINE), line, fill=_PALE if number else _INK, font=small)
            for place, picture in enumerate(row.pictures):
                x = _MARGIN + _CAPTION + place * (SIDE + _GAP)
                sheet.paste(_fitted(picture), (x, y))
                if row.words:
                    draw.text((x, y + SIDE + 2), row.words[place], fill=_PALE, font=small)
            y += _row_height(row)
        y += _GAP
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG")


def _row_height(row: SheetRow) -> int:
    return SIDE + _GAP + (_LINE if row.words else 0)


def _fitted(picture: NDArray[np.uint8]) -> Image.Image:
    """The picture at the sheet's size: small ones keep their pixels visible."""
    image = Image.fromarray(picture)
    enlarging = max(image.size) < SIDE
    return image.resize((SIDE, SIDE), Image.Resampling.NEAREST if enlarging else Image.Resampling.LANCZOS)
