"""Pictures that are no training cells, made by code from a seed, to ask a model whether it notices.

FOREIGN names the kinds. Far ones show no cell at all, or a cell under something else; near ones show cells of another
make, several, or none where one should be. Some are made of given cells. They share no code with training's
augmentation or the stress test, so that neither has shown them to a model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy.ndimage import gaussian_filter

from hemascope.data.synthetic import render_cells
from hemascope.data.synthetic_morphology import SYNTHETIC_CLASSES
from hemascope.errors import DataError, UsageError
from hemascope.names import suggestion

Pixels = NDArray[np.uint8]
Planes = NDArray[np.float64]

SMALLEST, LARGEST = 16, 1024
"""Side of the pictures in pixels."""


@dataclass(frozen=True)
class ForeignSet:
    """One kind of picture.

    title        for people
    distance     far: no cell, or one under something else; near: cells of another make, several, or none
    needs_cells  whether the pictures are made of given cells
    draw         (size, generator, a function that draws a given cell) to one picture uint8 (size, size, 3)
    """

    title: str
    distance: Literal["far", "near"]
    needs_cells: bool
    draw: Callable[[int, np.random.Generator, Callable[[], Pixels]], Pixels]


def make_foreign(
    name: str, count: int, *, size: int = 96, seed: int = 0, cells: NDArray[np.uint8] | None = None
) -> Pixels:
    """``count`` pictures of the kind ``name``, uint8 (count, size, size, 3).

    ``cells``, uint8 (M, size, size, 3), are what kinds that need cells are made of. Picture i depends on the seed, the
    kind, i and the cells alone, so a larger set starts with the smaller one. Raises UsageError for an unknown kind or
    numbers out of range, DataError where cells are needed and not there or of another shape.
    """
    if name not in FOREIGN:
        raise UsageError(f"no set of foreign pictures is called {name!r}; {suggestion(name, list(FOREIGN))}")
    if count < 0 or not SMALLEST <= size <= LARGEST:
        raise UsageError(f"count must be 0 or more and size lie in {SMALLEST} to {LARGEST}, found {count} and {size}")
    kind = FOREIGN[name]
    if kind.needs_cells and (
        cells is None or not len(cells) or cells.shape[1:] != (size, size, 3) or cells.dtype != np.uint8
    ):
        found = "none" if cells is None else f"{cells.dtype} {cells.shape}"
        raise DataError(f"{name} is made of cells, uint8 (M, {size}, {size}, 3); found {found}")
    word = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")
    result = np.empty((count, size, size, 3), dtype=np.uint8)
    for index in range(count):
        rng = np.random.default_rng([seed, word, index])

        def cell(rng: np.random.Generator = rng) -> Pixels:
            assert cells is not None
            return np.asarray(cells[rng.integers(len(cells))])

        result[index] = kind.draw(size, rng, cell)
    return result


def _whole(values: NDArray[np.floating]) -> Pixels:
    rounded: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded


def _colour(rng: np.random.Generator) -> Planes:
    return rng.uniform(0, 255, 3)


def _rescaled(plane: NDArray[np.floating]) -> Planes:
    """To 0 to 1."""
    plane = plane - plane.min()
    return np.asarray(plane / max(float(plane.max()), 1e-12))


def _between(first: Planes, second: Planes, share: Planes) -> Pixels:
    """From one colour (3,) or picture to another, by ``share`` (S, S) in 0 to 1."""
    return _whole(first + (second - first) * share[..., None])


def _grid(size: int) -> tuple[Planes, Planes]:
    rows, columns = np.mgrid[0:size, 0:size] / (size - 1) - 0.5
    return rows, columns


# Far: no cell at all


def _plain(size: int, rng: np.random.Generator, _: Callable[[], Pixels]) -> Pixels:
    return _whole(np.full((size, size, 3), _colour(rng)) + rng.normal(0, rng.uniform(0, 2), (size, size, 3)))


def _gradient(size: int, rng: np.random.Generator, _: Callable[[], Pixels]) -> Pixels:
    rows, columns = _grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    if rng.random() < 0.5:
        plane = rows * np.sin(angle) + columns * np.cos(angle)
    else:
        plane = np.hypot(rows - rng.uniform(-0.5, 0.5), columns - rng.uniform(-0.5, 0.5))
    return _between(_colour(rng), _colour(rng), _rescaled(plane) ** rng.uniform(0.5, 2))


def _stripes(size: int, rng: np.random.Generator, _: Callable[[], Pixels]) -> Pixels:
    rows, columns = _grid(size)
    angle, waves, checks = rng.uniform(0, np.pi), rng.uniform(3, 20, 2), rng.random() < 0.5
    across = np.sin(2 * np.pi * waves[0] * (rows * np.sin(angle) + columns * np.cos(angle)))
    along = np.sin(2 * np.pi * waves[1] * (rows * np.cos(angle) - columns * np.sin(angle)))
    plane = across * along if checks else across
    return _between(_colour(rng), _colour(rng), (np.clip(plane * rng.uniform(1, 8), -1, 1) + 1) / 2)


def _noise(size: int, rng: np.random.Generator, _: Callable[[], Pixels]) -> Pixels:
    coarse = int(rng.integers(1, max(2, size // 12)))
    side = -(-size // coarse)
    blocks = rng.normal(0, 1, (side, side, 3 if rng.random() < 0.7 else 1)).repeat(coarse, 0).repeat(coarse, 1)
    return _whole(_colour(rng) + rng.uniform(20, 90) * blocks[:size, :size])


def _smooth_texture(size: int, rng: np.random.Generator, _: Callable[[], Pixels]) -> Pixels:
    """Marble, clouds and wood: waves bent by smooth noise."""
    rows, columns = _grid(size)
    bend = gaussian_filter(rng.normal(0, 1, (size, size)), size * rng.uniform(0.04, 0.15), mode="wrap")
    bend = _rescaled(bend) * rng.uniform(0.5, 4)
    plane = np.sin(2 * np.pi * (rng.uniform(0, 6) * rows + rng.uniform(0, 6) * columns + bend))
    return _between(_colour(rng), _colour(rng), _rescaled(plane) ** rng.uniform(0.5, 2))


def _rough_texture(size: int, rng: np.random.Generator, _: Callable[[], Pixels]) -> Pixels:
    """Gravel and bark: distances to scattered points, or fibres, with grain."""
    rows, columns = _grid(size)
    if rng.random() < 0.5:
        points = rng.uniform(-0.6, 0.6, (int(rng.integers(12, 120)), 2))
        away = np.sort(np.hypot(rows[..., None] - points[:, 0], columns[..., None] - points[:, 1]), axis=2)
        plane = away[..., 1] - away[..., 0] if rng.random() < 0.5 else away[..., 0]
    else:
        along, across = size * rng.uniform(0.05, 0.3), size * rng.uniform(0.003, 0.012)
        plane = gaussian_filter(rng.normal(0, 1, (size, size)), (along, across))
    picture = _between(_colour(rng), _colour(rng), _rescaled(plane)).astype(np.float64)
    return _whole(np.rot90(picture, int(rng.integers(4))) + rng.normal(0, rng.uniform(5, 30), (size, size, 1)))


def _natural(size: int, rng: np.random.Generator, _: Callable[[], Pixels]) -> Pixels:
    """The amplitudes of photographs, which fall with frequency (Field 1987), in colours that go together."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1.0 / size
    falls = frequency ** -rng.uniform(0.9, 1.6)
    planes = np.fft.irfft2(np.fft.rfft2(rng.normal(0, 1, (3, size, size))) * falls, s=(size, size))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    mixed = np.tensordot(rng.normal(0, 1, (3, 3)) + 1.5, planes, axes=1).transpose(1, 2, 0)
    return _whole(rng.uniform(70, 190, 3) + rng.uniform(20, 60) * mixed / mixed.std())


_WORDS = (
    "File", "Edit", "Patient", "Total", "Result", "2026", "0.73", "Report", "of", "the", "and", "Sample", "OK", "Save",
    "mg/dl", "WBC", "note", "see", "page", "1,284", "%", "Next", "Cancel", "Open", "with", "from", "date",
)  # fmt: skip


def _write(draw: ImageDraw.ImageDraw, size: int, rng: np.random.Generator, ink: tuple[int, ...], height: float) -> None:
    """Lines of words over the whole picture."""
    font = ImageFont.load_default(max(6.0, height))
    top = rng.uniform(-height, height)
    while top < size:
        words = " ".join(_WORDS[i] for i in rng.integers(len(_WORDS), size=12))
        draw.text((rng.uniform(-height, height), top), words, fill=ink, font=font)
        top += height * rng.uniform(1.2, 2.2)


def _ink(rng: np.random.Generator, opacity: float = 1.0) -> tuple[int, int, int, int]:
    red, green, blue = (int(v) for v in rng.integers(0, 256, 3))
    return red, green, blue, int(255 * opacity)


def _shapes(draw: ImageDraw.ImageDraw, size: int, rng: np.random.Generator, count: int, opacity: float) -> None:
    """Boxes, ellipses, lines, arrows and columns of a chart."""
    for _ in range(count):
        (left, top), (width, height) = rng.uniform(-0.1, 0.8, 2) * size, rng.uniform(0.1, 0.6, 2) * size
        box = (left, top, left + width, top + height)
        kind, ink, line = rng.integers(4), _ink(rng, opacity), int(max(1, size * rng.uniform(0.01, 0.05)))
        if kind == 0:
            draw.rectangle(box, fill=ink if rng.random() < 0.6 else None, outline=ink, width=line)
        elif kind == 1:
            draw.ellipse(box, fill=ink if rng.random() < 0.4 else None, outline=ink, width=line)
        elif kind == 2:
            draw.line(box, fill=ink, width=line)
        else:
            for step in range(4):
                high = rng.uniform(0.1, 1) * height
                place = left + step * width / 4
                draw.rectangle((place, top + height - high, place + width / 6, top + height), fill=ink)


def _screenshot(size: int, rng: np.random.Generator, _: Callable[[], Pixels]) -> Pixels:
    dark = rng.random() < 0.3
    paper = tuple(int(v) for v in rng.integers(0, 60, 3) if dark) or tuple(int(v) for v in rng.integers(215, 256, 3))
    image = Image.new("RGB", (size, size), paper)
    draw = ImageDraw.Draw(image)
    ink = tuple(int(v) for v in (rng.integers(180, 256, 3) if dark else rng.integers(0, 90, 3)))
    _write(draw, size, rng, ink, size * rng.uniform(0.08, 0.2))
    for _bar in range(int(rng.integers(0, 3))):  # a bar, a button
        left, top = rng.uniform(0, 0.8, 2) * size
        draw.rectangle((left, top, left + size * rng.uniform(0.1, 0.9), top + size * 0.08), fill=_ink(rng)[:3])
    return np.asarray(image)


def _graphics(size: int, rng: np.random.Generator, _: Callable[[], Pixels]) -> Pixels:
    image = Image.new("RGB", (size, size), _ink(rng)[:3])
    _shapes(ImageDraw.Draw(image, "RGBA"), size, rng, int(rng.integers(4, 12)), 1.0)
    return np.asarray(image)


# Far: a cell under something else


def _text_over(size: int, rng: np.random.Generator, cell: Callable[[], Pixels]) -> Pixels:
    image = Image.fromarray(cell())
    opacity = rng.uniform(0.7, 1.0)
    _write(ImageDraw.Draw(image, "RGBA"), size, rng, _ink(rng, opacity), size * rng.uniform(0.12, 0.25))
    return np.asarray(image)


def _graphics_over(size: int, rng: np.random.Generator, cell: Callable[[], Pixels]) -> Pixels:
    image = Image.fromarray(cell())
    _shapes(ImageDraw.Draw(image, "RGBA"), size, rng, int(rng.integers(3, 8)), rng.uniform(0.5, 1.0))
    return np.asarray(image)


def _picture_over(size: int, rng: np.random.Generator, cell: Callable[[], Pixels]) -> Pixels:
    """Another picture shines through, as in a double exposure."""
    makers = (_stripes, _smooth_texture, _rough_texture, _natural, _screenshot, _graphics)
    picture = makers[rng.integers(len(makers))](size, rng, cell).astype(np.float64)
    return _between(cell().astype(np.float64), picture, np.full((size, size), rng.uniform(0.35, 0.7)))


# Near: cells of another make, several, or none


def _synthetic(size: int, rng: np.random.Generator, _: Callable[[], Pixels]) -> Pixels:
    name = SYNTHETIC_CLASSES[rng.integers(len(SYNTHETIC_CLASSES))]
    return np.asarray(render_cells({name: 1}, size=size, seed=int(rng.integers(2**31))).images[0])


def _field_of(cell: Pixels, rng: np.random.Generator) -> Pixels:
    """The lightest corner of a cell's picture, mirrored until it fills it: the smear without the cell."""
    size = len(cell)
    side = size // 4
    corners = [np.rot90(cell, turn)[:side, :side] for turn in range(4)]
    lightest = corners[int(np.argmax([corner.mean() for corner in corners]))]
    turned = np.rot90(lightest, int(rng.integers(4)))
    return np.pad(turned, ((0, size - side), (0, size - side), (0, 0)), mode="symmetric")


def _empty_field(size: int, rng: np.random.Generator, cell: Callable[[], Pixels]) -> Pixels:
    return np.asarray(_field_of(cell(), rng))


def _several(size: int, rng: np.random.Generator, cell: Callable[[], Pixels]) -> Pixels:
    """Two or three cells, made smaller, beside each other on an empty field."""
    count = int(rng.integers(2, 4))
    result = _field_of(cell(), rng).astype(np.float64)
    rows, columns = _grid(size)
    turn = rng.uniform(0, 2 * np.pi)
    for index in range(count):
        angle = turn + 2 * np.pi * index / count
        side = int(size * rng.uniform(0.55, 0.7))
        small = np.asarray(Image.fromarray(cell()).resize((side, side), Image.Resampling.LANCZOS))
        away = 0.24 if count == 2 else 0.27
        row, column = (round((0.5 + away * f(angle)) * size - side / 2) for f in (np.sin, np.cos))
        layer = np.pad(small, ((size, size), (size, size), (0, 0)), mode="edge")
        layer = layer[size - row : 2 * size - row, size - column : 2 * size - column]
        distance = np.hypot(rows - away * np.sin(angle), columns - away * np.cos(angle)) * size / side
        cover = np.clip((0.42 - distance) / 0.06, 0, 1)[..., None]
        result += (layer - result) * cover
    return _whole(result)


def _turned_hue(size: int, rng: np.random.Generator, cell: Callable[[], Pixels]) -> Pixels:
    """The cell with its colours turned by 25 to 180 degrees, as no stain of the training cells does."""
    hsv = np.array(Image.fromarray(cell()).convert("HSV"))
    turn = int(rng.uniform(25, 180) / 360 * 256) * int(rng.choice([-1, 1]))
    hsv[..., 0] = (hsv[..., 0].astype(int) + turn) % 256
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


_DYES = np.array([
    [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]],  # haematoxylin and eosin
    [[0.65, 0.70, 0.29], [0.27, 0.57, 0.78]],  # haematoxylin and diaminobenzidine
    [[0.29, 0.83, 0.47], [0.57, 0.22, 0.79]],  # Feulgen red and light green
    [[0.98, 0.14, 0.14], [0.35, 0.78, 0.52]],  # methyl green and a red
])  # fmt: skip
"""Two dyes each: absorption of red, green and blue, of length about 1."""

_OWN_DYES = np.array([[0.60, 0.75, 0.28], [0.21, 0.91, 0.36]])
"""Azure and eosin, as in May-Grünwald-Giemsa, roughly."""


def _other_dyes(size: int, rng: np.random.Generator, cell: Callable[[], Pixels]) -> Pixels:
    """The amounts of two dyes in the cell, shown in the colours of two others (Ruifrok and Johnston 2001)."""
    picture = cell().astype(np.float64)
    light = np.maximum(np.percentile(picture, 95, axis=(0, 1)), 1)
    density = -np.log(np.clip(picture / light, 1 / 255, 1))
    amounts = np.maximum(0, density @ np.linalg.pinv(_OWN_DYES))
    dyes = _DYES[rng.integers(len(_DYES))] * rng.uniform(0.8, 1.2, (2, 1))
    return _whole(rng.uniform(225, 250, 3) * np.exp(-amounts @ dyes))


def _other_scanner(size: int, rng: np.random.Generator, cell: Callable[[], Pixels]) -> Pixels:
    """Another lens, white balance, gamma and sharpening."""
    image = Image.fromarray(cell()).filter(ImageFilter.GaussianBlur(size / 96 * rng.uniform(0.3, 1.2)))
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.UnsharpMask(2, int(rng.uniform(60, 250)), 0))
    light = np.asarray(image, dtype=np.float64) / 255 * rng.uniform(0.8, 1.12, 3)
    picture = 255 * np.clip(light, 0, 1) ** rng.uniform(0.65, 1.5)
    return _whole(picture + rng.normal(0, rng.uniform(0, 5), picture.shape))


FOREIGN: dict[str, ForeignSet] = {
    "plain": ForeignSet("Plain colours", "far", False, _plain),
    "gradient": ForeignSet("Gradients", "far", False, _gradient),
    "stripes": ForeignSet("Stripes and checks", "far", False, _stripes),
    "noise": ForeignSet("Coloured noise", "far", False, _noise),
    "smooth_texture": ForeignSet("Smooth textures", "far", False, _smooth_texture),
    "rough_texture": ForeignSet("Rough textures", "far", False, _rough_texture),
    "natural": ForeignSet("Pictures with a photograph's spectrum", "far", False, _natural),
    "screenshot": ForeignSet("Screenshots with text", "far", False, _screenshot),
    "graphics": ForeignSet("Graphics", "far", False, _graphics),
    "text_over": ForeignSet("Cells under text", "far", True, _text_over),
    "graphics_over": ForeignSet("Cells under graphics", "far", True, _graphics_over),
    "picture_over": ForeignSet("Cells under another picture", "far", True, _picture_over),
    "synthetic": ForeignSet("Synthetic cells", "near", False, _synthetic),
    "several": ForeignSet("Two or three cells", "near", True, _several),
    "empty_field": ForeignSet("Smear without a cell", "near", True, _empty_field),
    "turned_hue": ForeignSet("Colours turned", "near", True, _turned_hue),
    "other_dyes": ForeignSet("Other dyes", "near", True, _other_dyes),
    "other_scanner": ForeignSet("Another scanner", "near", True, _other_scanner),
}
"""Every kind, by name, far ones first."""
