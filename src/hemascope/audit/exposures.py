"""Pictures that do not belong, made on purpose: what a detector of off-topic images learns from.

Outlier exposure (Hendrycks, Mazeika, Dietterich 2019): the kinds of fault are known beforehand (a foreign picture laid
over a cell, a foreign picture alone, an empty field, several cells, a cell drawn by a program), their particular looks
are not. So many different ones are made by rule. Dead leaves and noise with the spectrum of nature
share the statistics of photographs (Baradad et al. 2021) without being any.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from hemascope.errors import UsageError

KINDS = ("overlay", "foreign picture", "empty field", "several cells", "drawn cell")
WEAKEST, STRONGEST = 0.12, 0.75
"""Opacity of a foreign picture laid over a cell."""

USES = 4
"""Each drawn picture is laid over so many cells, turned and at other opacities: drawing takes longer than laying."""

Pixels = NDArray[np.uint8]


def make_exposures(kind: str, cells: Pixels, count: int, *, seed: int) -> Pixels:
    """``count`` off-topic pictures of one kind, made from these cells: uint8 (count, S, S, 3).

    cells  uint8 (M, S, S, 3), prepared; which of them are used is drawn by ``seed``, as is everything else
    """
    if kind not in KINDS:
        raise UsageError(f"there is no kind {kind!r} of exposure; the kinds are {', '.join(KINDS)}")
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    made = np.empty((count, *cells.shape[1:]), dtype=np.uint8)
    if kind == "drawn cell":
        return _drawn_cells(cells.shape[1], count, rng)
    if kind == "overlay":
        drawn = [foreign_picture(cells.shape[1], rng) for _ in range(-(-count // USES))]
        for index in range(count):
            made[index] = _overlay(cells, drawn[index % len(drawn)], rng)
        return made
    for index in range(count):
        made[index] = _MAKERS[kind](cells, rng)
    return made


def foreign_picture(side: int, rng: np.random.Generator) -> Pixels:
    """A picture of no cell, drawn by rule: uint8 (side, side, 3)."""
    drawers = (_dead_leaves, _natural_noise, _figures, _writing, _stripes, _dead_leaves, _scene)
    picture = drawers[rng.integers(len(drawers))](side, rng)
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.5))))
    if rng.random() < 0.12:
        picture = picture.convert("L").convert("RGB")
    pixels = np.asarray(picture, dtype=np.float32)
    gain, offset = rng.uniform(0.5, 1.1), rng.uniform(-30, 50)  # photographs are seldom as bright as drawings
    return _levels(pixels * gain + offset)


def _overlay(cells: Pixels, picture: Pixels, rng: np.random.Generator) -> Pixels:
    cell = cells[rng.integers(len(cells))].astype(np.float32)
    opacity = rng.uniform(WEAKEST, STRONGEST)
    turned = np.rot90(picture, int(rng.integers(4)))[:, :: int(rng.choice((-1, 1)))]
    return _levels((1 - opacity) * cell + opacity * turned)


def _foreign(cells: Pixels, rng: np.random.Generator) -> Pixels:
    return foreign_picture(cells.shape[1], rng)


def _empty_field(cells: Pixels, rng: np.random.Generator) -> Pixels:
    """A field without a cell: the palest corner of an image, laid out by reflection, with its own grain."""
    cell = cells[rng.integers(len(cells))]
    side = len(cell)
    part = max(side // 5, 4)
    corners = [cell[:part, :part], cell[:part, -part:], cell[-part:, :part], cell[-part:, -part:]]
    palest = max(corners, key=lambda corner: float(np.mean(corner)) - float(np.std(corner)))
    field = np.pad(palest, ((0, side - part), (0, side - part), (0, 0)), mode="symmetric").astype(np.float32)
    smooth = np.asarray(Image.fromarray(field.astype(np.uint8)).filter(ImageFilter.GaussianBlur(part / 2)))
    grain = (palest - palest.mean((0, 1))).reshape(-1, 3)[rng.integers(part * part, size=side * side)]
    share = rng.uniform(0, 0.6)
    mixed = smooth * share + field * (1 - share) + share * grain.reshape(side, side, 3) * rng.uniform(0.3, 1)
    return _levels(mixed)


def _several(cells: Pixels, rng: np.random.Generator) -> Pixels:
    """Two to four cells of the set in one picture, each smaller."""
    side = cells.shape[1]
    half = side // 2
    places: list[tuple[int, int, int, int]] = (
        [(0, 0, half, side), (half, 0, side - half, side)]
        if rng.random() < 0.5
        else [
            (0, 0, half, half),
            (half, 0, side - half, half),
            (0, half, half, side - half),
            (half, half, side - half, side - half),
        ]
    )
    made = np.empty((side, side, 3), dtype=np.uint8)
    for left, top, width, height in places:
        cell = np.rot90(cells[rng.integers(len(cells))], int(rng.integers(4)))
        keep = int(side * rng.uniform(0.7, 1.0))
        start = (side - keep) // 2
        tall = max(int(keep * height / max(width, height)), 1)
        wide = max(int(keep * width / max(width, height)), 1)
        y, x = start + (keep - tall) // 2, start + (keep - wide) // 2
        piece = Image.fromarray(np.ascontiguousarray(cell[y : y + tall, x : x + wide]))
        made[top : top + height, left : left + width] = np.asarray(
            piece.resize((width, height), Image.Resampling.BICUBIC)
        )
    return np.ascontiguousarray(np.rot90(made, int(rng.integers(4))))


def _levels(values: NDArray[np.floating]) -> Pixels:
    levels: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


def _drawn_cells(side: int, count: int, rng: np.random.Generator) -> Pixels:
    from hemascope.data.synthetic import SYNTHETIC_CLASSES, render_cells

    each = -(-count // len(SYNTHETIC_CLASSES))
    drawn = render_cells(each, size=side, seed=int(rng.integers(2**31))).images
    return np.ascontiguousarray(drawn[rng.permutation(len(drawn))[:count]])


_MAKERS: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "foreign picture": _foreign,
    "empty field": _empty_field,
    "several cells": _several,
}


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """Often muted: colours of photographs lie near grey."""
    grey = rng.uniform(0, 255)
    red, green, blue = np.clip(grey + rng.normal(0, rng.uniform(5, 90), 3), 0, 255).astype(int).tolist()
    return red, green, blue


def _dead_leaves(side: int, rng: np.random.Generator) -> Image.Image:
    """Discs and boxes of all sizes hiding each other, with power-law radii (Lee, Mumford, Huang 2001)."""
    scale = 2  # drawn larger and reduced: edges without steps
    image = Image.new("RGB", (side * scale, side * scale), _colour(rng))
    draw = ImageDraw.Draw(image)
    base = np.array([_colour(rng) for _ in range(rng.integers(2, 9))])
    count = int(rng.integers(20, 250))
    smallest, largest = side * scale * 0.02, side * scale * 0.5
    radii = 1 / np.sqrt(rng.uniform(1 / largest**2, 1 / smallest**2, count))
    for radius in radii:
        x, y = rng.uniform(-radius, side * scale + radius, 2)
        tone = np.clip(base[rng.integers(len(base))] + rng.normal(0, 18, 3), 0, 255).astype(int)
        box = (x - radius, y - radius * rng.uniform(0.4, 1.6), x + radius, y + radius * rng.uniform(0.4, 1.6))
        box = (box[0], min(box[1], box[3]), box[2], max(box[1], box[3]))
        draw_shape = draw.ellipse if rng.random() < 0.6 else draw.rectangle
        draw_shape(box, fill=(int(tone[0]), int(tone[1]), int(tone[2])))
    return image.resize((side, side), Image.Resampling.LANCZOS)


def _natural_noise(side: int, rng: np.random.Generator) -> Image.Image:
    """Noise whose amplitude falls with frequency as in photographs, in correlated colours."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) + 1 / side
    spectrum = frequency ** -rng.uniform(0.7, 2.0)
    planes = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) * spectrum, s=(side, side)) for _ in range(3)]
    noise = np.stack([plane / (plane.std() + 1e-9) for plane in planes], axis=-1)
    mixing = np.full((3, 3), rng.uniform(0.3, 1.0)) + np.eye(3) * rng.uniform(0, 0.8)
    pixels = rng.uniform(70, 180, 3) + noise @ mixing * rng.uniform(15, 45)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _figures(side: int, rng: np.random.Generator) -> Image.Image:
    """A few large shapes with outlines, as in drawings: faces, logos, signs."""
    scale = 2
    image = Image.new("RGB", (side * scale, side * scale), _colour(rng))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(3, 14))):
        corners = rng.uniform(-0.1, 1.1, (int(rng.integers(3, 7)), 2)) * side * scale
        width = int(rng.integers(0, 7))
        if rng.random() < 0.5:
            low, high = corners.min(0), corners.max(0)
            draw.ellipse((low[0], low[1], high[0], high[1]), fill=_colour(rng), outline=_colour(rng), width=width)
        else:
            draw.polygon([(x, y) for x, y in corners.tolist()], fill=_colour(rng), outline=_colour(rng))
    return image.resize((side, side), Image.Resampling.LANCZOS)


def _writing(side: int, rng: np.random.Generator) -> Image.Image:
    """Lines of letters."""
    image = Image.new("RGB", (side, side), _colour(rng))
    draw = ImageDraw.Draw(image)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789   "
    size = int(rng.integers(max(side // 12, 6), max(side // 4, 8)))
    ink = _colour(rng)
    for top in range(int(rng.integers(0, size)), side, int(size * rng.uniform(1.0, 1.6))):
        line = "".join(letters[i] for i in rng.integers(len(letters), size=40))
        draw.text((int(rng.integers(-size, size)), top), line, fill=ink, font_size=size)
    return image


def _stripes(side: int, rng: np.random.Generator) -> Image.Image:
    """Gratings, bent a little, of two colours."""
    y, x = np.mgrid[:side, :side] / side
    angle, bend = rng.uniform(0, np.pi), rng.uniform(0, 0.15)
    phase = x * np.cos(angle) + y * np.sin(angle) + bend * np.sin(2 * np.pi * (y * rng.uniform(0, 3) + x))
    wave = np.sin(2 * np.pi * phase * rng.uniform(2, 16))
    if rng.random() < 0.5:
        wave *= np.sin(2 * np.pi * (y * np.cos(angle) - x * np.sin(angle)) * rng.uniform(2, 16))
    share = 1 / (1 + np.exp(-wave * rng.uniform(1, 12)))[..., None]
    pixels = share * np.array(_colour(rng)) + (1 - share) * np.array(_colour(rng))
    return Image.fromarray(pixels.astype(np.uint8))


def _scene(side: int, rng: np.random.Generator) -> Image.Image:
    """Two of the others in one: a textured ground with something before it."""
    ground = _natural_noise(side, rng)
    front = (_dead_leaves if rng.random() < 0.5 else _figures)(side, rng)
    mask = _natural_noise(side, rng).convert("L")
    level = float(np.quantile(np.asarray(mask), rng.uniform(0.2, 0.8)))
    return Image.composite(front, ground, mask.point(lambda value: 255 if value > level else 0))
