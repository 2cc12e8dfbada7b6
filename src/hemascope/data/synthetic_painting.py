"""Lays cells on a slide as optical density. Edges are antialiased from signed distances, so any size is smooth.

Planes of colour come first, (3, height, width): numpy is several times faster that way than with colour last.
All noise is drawn on grids whose step is a length on the slide, not a pixel: the same seed gives the same cell at
every size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.data.synthetic_morphology import CellPlan, Dyes, Granules, Nucleus
from hemascope.data.synthetic_optics import FIELD, Floats

_MELT = 0.22  # micrometres over which two lobes flow into each other
_RED_CELL = 3.7  # mean radius of a red cell in micrometres
_EDGE = 0.16  # width in micrometres of the softest edge the objective resolves

Point = tuple[float, float]


@dataclass(frozen=True)
class _Window:
    """The part of the image a cell can touch: pixel slices, and coordinates in micrometres from the cell's centre."""

    rows: slice
    columns: slice
    x: Floats  # (1, w)
    y: Floats  # (h, 1)
    pixel: float
    reach: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.y.shape[0], self.x.shape[1]

    def noise(self, step: float, rng: np.random.Generator) -> Floats:
        """Smooth noise of unit variance at the grid points, ``step`` micrometres apart: float32 (h, w)."""
        side = math.ceil(2 * self.reach / step) + 2
        grid = Image.fromarray(rng.standard_normal((side, side), dtype=np.float32))
        half = self.pixel / 2
        edges = (self.x[0, 0] - half, self.y[0, 0] - half, self.x[0, -1] + half, self.y[-1, 0] + half)
        left, top, right, bottom = (min(max((float(edge) + self.reach) / step, 0.0), float(side)) for edge in edges)
        height, width = self.shape
        return np.asarray(
            grid.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, right, bottom)), dtype=np.float32
        )

    def cover(self, distance: Floats) -> Floats:
        """How much of each pixel lies inside, from the signed distance to the edge: 0 to 1."""
        return _clamped(0.5 - distance / max(self.pixel, _EDGE))


def _window(size: int, centre: Point, reach: float) -> _Window | None:
    """The window within ``reach`` of ``centre`` (x, y in micrometres), or None where it misses the image."""
    pixel = FIELD / size
    if any(middle + reach <= 0 or middle - reach >= FIELD for middle in centre):
        return None
    columns, rows = (
        slice(max(int((middle - reach) / pixel), 0), min(int((middle + reach) / pixel) + 1, size)) for middle in centre
    )
    x, y = (
        ((np.arange(span.start, span.stop) + 0.5) * pixel - middle).astype(np.float32)
        for span, middle in zip((columns, rows), centre, strict=True)
    )
    return _Window(rows, columns, x[None, :], y[:, None], pixel, reach)


def paint_red_cells(
    density: Floats, stains: Floats, occupied: Sequence[tuple[Point, float]], rng: np.random.Generator
) -> None:
    """Scatter red cells over ``density`` (3, S, S), in place, beside the ``occupied`` circles (centre, radius)."""
    amount = np.zeros(density.shape[1:], dtype=np.float32)
    crowding = float(rng.uniform(0.45, 1.0))
    mean = _RED_CELL * float(rng.normal(1.0, 0.05))
    hypochromia = float(rng.uniform(0.2, 0.9))  # pallor belongs to the patient and the part of the smear
    candidates = rng.uniform(-0.75 * mean, FIELD + 0.75 * mean, (int(34 * crowding), 2)).tolist()
    look = rng.standard_normal((len(candidates), 9)).tolist()
    placed = list(occupied)
    for place, (a, b, c, d, e, f, g, h, i) in zip(candidates, look, strict=True):
        radius = mean * (1 + 0.07 * a)
        closeness = 0.98 - 0.22 * abs(b)  # a few overlap
        if any(math.dist(place, other) < closeness * (radius + taken) for other, taken in placed):
            continue
        centre = (place[0], place[1])
        placed.append((centre, radius))
        window = _window(density.shape[1], centre, 1.45 * radius)
        if window is None:
            continue
        x, y = window.x, window.y
        stretch, skew, dent = 1 + 0.08 * c, 0.06 * d, 0.025 * e / radius
        rho = np.sqrt((x * stretch + skew * y) ** 2 + (y / stretch) ** 2) + dent * (x * x - y * y) + 0.03 * g * x
        inside = window.cover(rho - np.float32(radius))
        level = rho / radius
        pallor = min(max(hypochromia + 0.2 * f, 0.0), 1.0)
        width = 0.42 + 0.06 * h
        bowl = _clamped((np.float32(width + 0.2) - level) / 0.36)
        bowl *= bowl * (3 - 2 * bowl) * (0.85 * pallor)
        body = (0.92 + 0.1 * i) + 0.12 * level - bowl
        # Where two overlap the light passes both, but they flatten against each other.
        below = amount[window.rows, window.columns]
        below += (body - 0.82 * below) * inside
    density += amount * _planes(stains[3])


def paint_cell(density: Floats, stains: Floats, plan: CellPlan, centre: Point, rng: np.random.Generator) -> None:
    """Lay one planned cell on ``density`` (3, S, S), in place; ``centre`` is (x, y) in micrometres."""
    long = plan.radius * plan.aspect**0.5
    reach = long * (1 + 2.2 * plan.lumpiness) + 1.5 * plan.fringe + 0.5
    window = _window(density.shape[1], centre, reach)
    if window is None:
        return
    slow_x, slow_y = (window.noise(max(0.42 * plan.radius, 1.0), rng) for _ in range(2))
    fine = window.noise(0.5, rng)
    sway = plan.lumpiness * plan.radius
    x, y = window.x + sway * slow_x, window.y + sway * slow_y

    outline = _ellipse(x, y, plan) + plan.fringe * fine
    inside = window.cover(outline)
    # The cell's margin is thin: a fringe lets the light through.
    body = plan.mottling * (0.55 * fine + 0.45 * window.noise(1.3, rng))
    body += 1 + 0.25 * _clamped(np.float32(1) + outline * np.float32(2))
    cell = np.maximum(body, 0.15) * _colour(plan.cytoplasm, stains)

    bulk: Floats | None = None
    if plan.nucleus is not None:
        # A nucleus is stiffer than the cell around it.
        stiff = min(0.45 * sway, 0.22)
        edge = _melted(window.x + stiff * slow_x, window.y + stiff * slow_y, plan.nucleus.segments)
        edge = np.maximum(edge, outline + 0.12)
        bulk = window.cover(edge)
        _blend(cell, _nuclear_density(window, edge, plan.nucleus, stains, rng), bulk)
    for kind in plan.granules:
        _paint_granules(cell, window, plan, kind, bulk=bulk, patches=slow_x, stains=stains, rng=rng)
    count, radius = plan.vacuoles
    if count:
        places = _scatter(plan, count, 0.9, rng)
        holes = _dots(window, places, radius * np.exp(0.35 * rng.standard_normal(count)))
        if bulk is not None:
            holes *= 1 - 0.8 * bulk
        _blend(cell, 0.08 * cell, 0.92 * holes)
    if any(kind.spread > 1 for kind in plan.granules):  # coarse granules bulge out of the outline
        inside = np.maximum(inside, window.cover(outline - np.float32(0.25)) * _clamped(cell[1] - 0.8))
    _blend(density[:, window.rows, window.columns], cell, inside)


def paint_debris(density: Floats, stains: Floats, rng: np.random.Generator) -> None:
    """Drop specks of stain precipitate on ``density``, in place."""
    for x, y, radius in rng.uniform((0, 0, 0.08), (FIELD, FIELD, 0.25), (int(rng.poisson(1.5)), 3)).tolist():
        window = _window(density.shape[1], (x, y), 2 * radius + _EDGE)
        if window is not None:
            speck = _dots(window, np.zeros((1, 2)), np.array([radius]))
            density[:, window.rows, window.columns] += 0.4 * speck * _planes(stains[0])


def _colour(dyes: Dyes, stains: Floats) -> Floats:
    mixed: Floats = np.asarray(dyes, dtype=np.float32) @ stains
    return _planes(mixed)


def _planes(colour: Floats) -> Floats:
    return colour[:, None, None]


def _clamped(values: Floats) -> Floats:
    """The values held between 0 and 1. Two plain ufuncs cost a third of np.clip on arrays this small."""
    return np.minimum(np.maximum(values, 0), 1)


def _blend(below: Floats, above: Floats, cover: Floats) -> None:
    """Put ``above`` over ``below`` (3, h, w), in place, where ``cover`` (h, w) says."""
    below += (above - below) * cover


def _ellipse(x: Floats, y: Floats, plan: CellPlan) -> Floats:
    """Signed distance, nearly, to the plan's ellipse; negative inside."""
    cos, sin, root = math.cos(plan.angle), math.sin(plan.angle), plan.aspect**0.5
    along, across = (x * cos + y * sin) / root, (y * cos - x * sin) * root
    distance: Floats = np.sqrt(along * along + across * across) - plan.radius
    return distance


def _melted(x: Floats, y: Floats, segments: Floats) -> Floats:
    """Signed distance to the union of tapering capsules, smoothed where they meet: float32 (h, w)."""
    total = np.zeros(x.shape, dtype=np.float32)
    for ax, ay, bx, by, start, stop in segments.tolist():
        px, py, dx, dy = x - ax, y - ay, bx - ax, by - ay
        along = _clamped((px * dx + py * dy) / max(dx * dx + dy * dy, 1e-6))
        px -= along * dx
        py -= along * dy
        distance = np.sqrt(px * px + py * py) - (start + along * (stop - start))
        total += np.exp(np.maximum(distance, -8) * (-1 / _MELT))
    return np.float32(-_MELT) * np.log(np.maximum(total, np.float32(1e-30)))


def _nuclear_density(
    window: _Window, edge: Floats, nucleus: Nucleus, stains: Floats, rng: np.random.Generator
) -> Floats:
    """Optical density (3, h, w) of clumped chromatin with a stained membrane."""
    # Dark clumps are much alike; between them the pale parachromatin shows as small gaps.
    amount = 1.08 + (0.4 * nucleus.contrast) * window.noise(2.4 * nucleus.clump, rng)
    amount -= (1.45 * nucleus.contrast) * _clamped(window.noise(nucleus.clump, rng) - 0.1)
    amount += nucleus.membrane * np.maximum(1 - np.abs(edge + 0.3) / 0.35, 0)
    np.maximum(amount, 0.3, out=amount)
    amount *= nucleus.density
    return amount * _colour((1.0, 0.1, nucleus.redness, 0.0), stains)


def _scatter(plan: CellPlan, count: int, spread: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Places (count, 2) in micrometres, even over the plan's ellipse drawn in or out by ``spread``."""
    turn, out = rng.random((2, count))
    ring = plan.radius * spread * np.sqrt(out)
    along, across = ring * np.cos(2 * np.pi * turn) * plan.aspect**0.5, ring * np.sin(2 * np.pi * turn)
    across /= plan.aspect**0.5
    cos, sin = np.cos(plan.angle), np.sin(plan.angle)
    return np.stack([along * cos - across * sin, along * sin + across * cos], axis=1)


def _paint_granules(
    cell: Floats,
    window: _Window,
    plan: CellPlan,
    kind: Granules,
    *,
    bulk: Floats | None,
    patches: Floats,
    stains: Floats,
    rng: np.random.Generator,
) -> None:
    """Granules of one kind on ``cell`` (3, h, w), in place, hidden behind the nucleus but for their share on top."""
    if not kind.count:
        return
    places = _scatter(plan, kind.count, kind.spread, rng)
    radii = kind.radius * np.exp(0.22 * rng.standard_normal(kind.count))
    strength = np.clip(1 + 0.22 * rng.standard_normal(kind.count), 0.4, 1.5)
    cover = _dots(window, places, radii, strength)
    if kind.patchiness:
        cover *= 1 - kind.patchiness * _clamped(0.6 * patches)
    if bulk is not None:
        cover *= 1 - (1 - kind.over_nucleus) * bulk
    _blend(cell, np.maximum(cell, _colour(kind.dyes, stains)), cover)


def _dots(
    window: _Window,
    places: NDArray[np.float64],
    radii: NDArray[np.float64],
    strength: NDArray[np.float64] | float = 1.0,
) -> Floats:
    """Antialiased discs at ``places`` (n, 2) of ``radii`` (n,), the strongest where they overlap: float32 (h, w)."""
    height, width = window.shape
    pixel = window.pixel
    soft = max(pixel, _EDGE)
    margin = math.ceil((float(radii.max()) + soft / 2) / pixel)
    column = (places[:, 0] - float(window.x[0, 0])) / pixel
    row = (places[:, 1] - float(window.y[0, 0])) / pixel
    # Frame the window so that a stamp never falls outside; far ones land in the frame's corner and are cut off.
    base_column = np.clip(np.rint(column), -margin, width - 1 + margin).astype(np.intp)
    base_row = np.clip(np.rint(row), -margin, height - 1 + margin).astype(np.intp)
    steps = np.arange(-margin, margin + 1)
    away_x = ((base_column - column)[:, None] + steps).astype(np.float32) * pixel
    away_y = ((base_row - row)[:, None] + steps).astype(np.float32) * pixel
    distance = np.sqrt((away_x * away_x)[:, None, :] + (away_y * away_y)[:, :, None])
    # A disc smaller than a pixel must weaken, not vanish or grow.
    weight = np.minimum(1, (2 * radii / soft) ** 2) * strength
    stamps = _clamped((0.5 + radii / soft).astype(np.float32)[:, None, None] - distance / soft)
    stamps *= weight.astype(np.float32)[:, None, None]
    framed = np.zeros((height + 4 * margin, width + 4 * margin), dtype=np.float32)
    index = (base_row[:, None, None] + steps[:, None] + 2 * margin) * framed.shape[1]
    index = index + base_column[:, None, None] + steps + 2 * margin
    np.maximum.at(framed.reshape(-1), index.reshape(-1), stamps.reshape(-1))
    return framed[2 * margin : 2 * margin + height, 2 * margin : 2 * margin + width]
