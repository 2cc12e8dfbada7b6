"""What each class of synthetic cell is made of: sizes, outline, nucleus, cytoplasm, granules. Draws no pixels.

Lengths are in micrometres, so that the numbers can be held against a textbook (Bain, *Blood Cells: A Practical
Guide*; Hoffbrand, *Essential Haematology*). Stains are concentrations of the four dyes of `synthetic_optics.STAINS`.
Cells of neighbouring classes overlap on purpose: a band neutrophil, a metamyelocyte and a monocyte are
hard to tell apart in a smear too, and a set without such cells would teach nothing about a classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SYNTHETIC_CLASSES: tuple[str, ...] = (
    "basophil",
    "eosinophil",
    "erythroblast",
    "ig",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
)
"""The classes that can be rendered; ``ig`` is an immature granulocyte."""

Dyes = tuple[float, float, float, float]
"""Concentrations of azure B on DNA, azure B on RNA, eosin and haemoglobin, in this order."""


@dataclass(frozen=True)
class Nucleus:
    """A nucleus: capsules melted together, with a texture.

    segments   float32 (S, 6): start x, start y, end x, end y, start radius, end radius; from the cell's centre
    density    how much DNA stain a unit area holds; about 1 in a segmented neutrophil
    contrast   how clumped the chromatin is: 0 is smooth (pyknotic)
    clump      size of the clumps
    membrane   extra stain along the edge
    redness    eosin in the nucleus, which makes it warmer
    """

    segments: NDArray[np.float32]
    density: float
    contrast: float
    clump: float
    membrane: float = 0.36
    redness: float = 0.0


@dataclass(frozen=True)
class Granules:
    """Granules of one kind.

    count          how many
    radius         mean radius
    dyes           what they take up
    over_nucleus   share of them that lies on top of the nucleus
    spread         how far out they reach, in cell radii
    patchiness     0 evenly spread, 1 in patches
    """

    count: int
    radius: float
    dyes: Dyes
    over_nucleus: float = 0.0
    spread: float = 0.95
    patchiness: float = 0.0


@dataclass(frozen=True)
class CellPlan:
    """All that is needed to draw one cell.

    radius, aspect, angle   the ellipse under the outline; angle in radians
    lumpiness               slow waviness of the outline, in radii
    fringe                  fast raggedness of the outline, in micrometres
    cytoplasm, mottling     its dyes, and how uneven they are
    vacuoles                number and mean radius of the clear holes
    """

    radius: float
    cytoplasm: Dyes
    nucleus: Nucleus | None
    granules: tuple[Granules, ...] = ()
    aspect: float = 1.0
    angle: float = 0.0
    lumpiness: float = 0.05
    fringe: float = 0.05
    mottling: float = 0.15
    vacuoles: tuple[int, float] = (0, 0.0)


def plan_cell(class_name: str, rng: np.random.Generator) -> CellPlan:
    """The plan of one cell of ``class_name``, one of SYNTHETIC_CLASSES, drawn from ``rng``."""
    return _RECIPES[class_name](rng)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())


def _normal(rng: np.random.Generator, mean: float, spread: float, low: float, high: float) -> float:
    return min(max(mean + spread * float(rng.standard_normal()), low), high)


def _turned(segments: Sequence[tuple[float, ...]], rng: np.random.Generator, shift: float) -> NDArray[np.float32]:
    """The segments turned by any angle, their centre of mass moved off the cell's centre by up to ``shift``."""
    table = np.asarray(segments, dtype=np.float32)
    table[:, :2] -= (centre := (table[:, :2].mean(0) + table[:, 2:4].mean(0)) / 2)
    table[:, 2:4] -= centre
    turn, away, distance = _between(rng, 0, 2 * np.pi), _between(rng, 0, 2 * np.pi), shift * float(rng.random()) ** 0.5
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]], dtype=np.float32)
    offset = np.array([np.cos(away), np.sin(away)], dtype=np.float32) * np.float32(distance)
    table[:, :2] = table[:, :2] @ matrix + offset
    table[:, 2:4] = table[:, 2:4] @ matrix + offset
    return table


def _round(rng: np.random.Generator, radius: float, shift: float, oval: float = 0.1) -> NDArray[np.float32]:
    """One round or slightly oval body."""
    half = radius * oval * float(rng.random())
    return _turned([(-half, 0.0, half, 0.0, radius, radius * _between(rng, 0.92, 1.0))], rng, shift)


def _bent(rng: np.random.Generator, bend: float, thickness: float, span: float, shift: float) -> NDArray[np.float32]:
    """A bean, kidney or band: a thick arc of ``span`` radians, its two ends of unequal thickness."""
    steps = 4
    angles = np.linspace(-span / 2, span / 2, steps + 1)
    x = bend * np.cos(angles)
    y = bend * np.sin(angles) * _between(rng, 0.85, 1.15)
    width = thickness * (1.0 + 0.13 * rng.standard_normal(steps + 1))
    width[0] *= 1.08
    segments = [(x[i], y[i], x[i + 1], y[i + 1], width[i], width[i + 1]) for i in range(steps)]
    return _turned(segments, rng, shift)


def _lobed(rng: np.random.Generator, cell: float, lobes: int, thickness: float, shift: float) -> NDArray[np.float32]:
    """``lobes`` bodies strung on an arc, each bound to the next by a thin bridge."""
    lobe = cell * thickness
    span = _between(rng, 0.85, 1.1) * (lobes - 1) * (3.1 if lobes == 2 else 2.45 * lobe / (0.47 * cell))
    span = min(span, 5.3)
    angles = np.linspace(0, span, lobes) + 0.14 * rng.standard_normal(lobes)
    reach = cell * (0.46 + 0.07 * rng.standard_normal(lobes))
    segments: list[tuple[float, ...]] = []
    centres = np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=1)
    for (x, y), angle in zip(centres, angles, strict=True):
        lean = angle + np.pi / 2 + 0.6 * rng.standard_normal()
        half = lobe * _between(rng, 0.05, 0.75)
        dx, dy = half * np.cos(lean), half * np.sin(lean)
        width = lobe * _normal(rng, 1.0, 0.13, 0.7, 1.3)
        segments.append((x - dx, y - dy, x + dx, y + dy, width, width * _between(rng, 0.75, 1.05)))
    for (x, y), (u, v) in pairwise(centres):
        bridge = lobe * (_between(rng, 0.14, 0.3) if rng.random() < 0.65 else _between(rng, 0.35, 0.7))
        segments.append((x, y, u, v, bridge, bridge))
    return _turned(segments, rng, shift)


def _basophil(rng: np.random.Generator) -> CellPlan:
    radius = _normal(rng, 6.4, 0.6, 5.0, 7.8)
    if rng.random() < 0.5:
        shape = _lobed(rng, radius, int(rng.integers(2, 4)), 0.36, 0.1 * radius)
    else:
        shape = _bent(rng, 0.35 * radius, 0.4 * radius, _between(rng, 0.8, 2.4), 0.15 * radius)
    fullness = _between(rng, 0.4, 1.0)  # the stain dissolves the granules of many a basophil
    return CellPlan(
        radius=radius,
        aspect=_between(rng, 1.0, 1.3),
        angle=_between(rng, 0, np.pi),
        lumpiness=_between(rng, 0.02, 0.09),
        fringe=_between(rng, 0.04, 0.16),
        cytoplasm=(_between(rng, 0.06, 0.25), _between(rng, 0.0, 0.25), _between(rng, 0.1, 0.35), 0.0),
        mottling=0.5,
        nucleus=Nucleus(shape, _between(rng, 0.72, 1.0), _between(rng, 0.25, 0.45), 0.4, redness=_between(rng, 0, 0.3)),
        granules=(
            Granules(
                count=int(fullness * 620 * (radius / 6.2) ** 2),
                radius=_between(rng, 0.2, 0.32),
                dyes=(_between(rng, 0.85, 1.12), _between(rng, 0.0, 0.3), 0.0, 0.0),
                over_nucleus=0.9,
                spread=1.02,
                patchiness=_between(rng, 0.0, 0.4),
            ),
        ),
        vacuoles=(int(rng.poisson(1.2)), 0.35),
    )


def _eosinophil(rng: np.random.Generator) -> CellPlan:
    radius = _normal(rng, 6.7, 0.55, 5.4, 8.2)
    lobes = int(rng.choice([1, 2, 3], p=[0.1, 0.68, 0.22]))
    if lobes == 1:
        shape = _bent(rng, 0.5 * radius, 0.27 * radius, _between(rng, 2.2, 3.6), 0.15 * radius)
    else:
        shape = _lobed(rng, radius, lobes, 0.33 if lobes == 2 else 0.27, 0.2 * radius)
    red = _between(rng, 0.72, 1.12)
    return CellPlan(
        radius=radius,
        aspect=_between(rng, 1.0, 1.18),
        angle=_between(rng, 0, np.pi),
        lumpiness=_between(rng, 0.02, 0.08),
        fringe=_between(rng, 0.01, 0.08),
        cytoplasm=(0.03, _between(rng, 0.15, 0.4), 0.5 * red, 0.0),
        mottling=0.3,
        nucleus=Nucleus(shape, _between(rng, 0.78, 0.95), _between(rng, 0.3, 0.5), 0.36),
        granules=(
            Granules(
                count=int(_between(rng, 420, 640) * (radius / 6.7) ** 2),
                radius=_between(rng, 0.22, 0.32),
                dyes=(_between(rng, 0.02, 0.14), _between(rng, 0.0, 0.18), red, 0.05),
                over_nucleus=0.03,
                spread=0.99,
                patchiness=_between(rng, 0.0, 0.7),
            ),
        ),
        vacuoles=(int(rng.poisson(0.4)), 0.4),
    )


def _erythroblast(rng: np.random.Generator) -> CellPlan:
    maturity = float(rng.beta(1.8, 1.2))  # 0 basophilic, 1 orthochromatic
    radius = _normal(rng, 5.7 - 1.1 * maturity, 0.5, 3.6, 7.2)
    share = _normal(rng, 0.74 - 0.2 * maturity, 0.05, 0.45, 0.82)
    if rng.random() < 0.06:  # a budding nucleus
        shape = _lobed(rng, radius * 0.8, int(rng.integers(2, 4)), 0.34, 0.1 * radius)
    else:
        shape = _round(rng, radius * share, radius * (1 - share) * 0.75, 0.12)
    return CellPlan(
        radius=radius,
        aspect=_between(rng, 1.0, 1.25),
        angle=_between(rng, 0, np.pi),
        lumpiness=_between(rng, 0.02, 0.1),
        fringe=_between(rng, 0.01, 0.09),
        cytoplasm=(
            0.22 * (1 - maturity) ** 2,
            _normal(rng, 1.25 - 0.75 * maturity, 0.15, 0.2, 1.5),
            0.05,
            _normal(rng, 0.2 + 0.6 * maturity, 0.15, 0.0, 1.1),
        ),
        mottling=_between(rng, 0.08, 0.3),
        nucleus=Nucleus(
            shape,
            density=_between(rng, 0.95, 1.1),
            contrast=_between(rng, 0.3, 0.55) * (1 - maturity) + 0.08,
            clump=_between(rng, 0.34, 0.55),
            membrane=0.1,
        ),
    )


def _immature_granulocyte(rng: np.random.Generator) -> CellPlan:
    maturity = float(rng.random())  # 0 promyelocyte, 1 metamyelocyte turning into a band
    radius = _normal(rng, 7.2 - 0.9 * maturity, 0.7, 5.2, 9.3)
    if maturity < 0.55:
        shape = _round(rng, radius * _normal(rng, 0.7, 0.05, 0.58, 0.8), 0.24 * radius, 0.3)
    else:
        bend, thick = _between(rng, 0.34, 0.48), _between(rng, 0.52, 0.62) - 0.22 * (maturity - 0.55)
        shape = _bent(rng, bend * radius, thick * radius, 1.2 + 2.2 * (maturity - 0.55), 0.22 * radius)
    purple = _between(rng, 0.25, 0.8)
    return CellPlan(
        radius=radius,
        aspect=_between(rng, 1.0, 1.2),
        angle=_between(rng, 0, np.pi),
        lumpiness=_between(rng, 0.02, 0.09),
        fringe=_between(rng, 0.01, 0.1),
        cytoplasm=(
            _between(rng, 0.0, 0.14),
            _normal(rng, 0.75 - 0.5 * maturity, 0.15, 0.1, 1.2),
            _between(rng, 0.05, 0.25),
            0.0,
        ),
        mottling=_between(rng, 0.2, 0.5),
        nucleus=Nucleus(
            shape,
            density=_between(rng, 0.68, 0.88),
            contrast=_between(rng, 0.35, 0.55),
            clump=_between(rng, 0.24, 0.36),
            redness=_between(rng, 0.0, 0.25),
        ),
        granules=(
            Granules(
                count=int(_between(rng, 60, 480) * (radius / 7) ** 2),
                radius=_between(rng, 0.12, 0.22),
                dyes=(purple, 0.0, _between(rng, 0.0, 0.35), 0.0),
                over_nucleus=0.45 * (1 - maturity),
                patchiness=_between(rng, 0.0, 0.6),
            ),
        ),
        vacuoles=(int(rng.poisson(0.3)), 0.35),
    )


def _lymphocyte(rng: np.random.Generator) -> CellPlan:
    large = rng.random() < 0.2
    radius = _normal(rng, 6.1 if large else 5.0, 0.45, 4.0, 7.2)
    share = _between(rng, 0.68, 0.8) if large else _between(rng, 0.8, 0.92)
    if rng.random() < 0.25:  # slightly indented
        shape = _bent(rng, 0.3 * radius, (share - 0.22) * radius, _between(rng, 0.9, 1.8), 0.05 * radius)
    else:
        shape = _round(rng, radius * share, radius * (1 - share) * 0.8, 0.2)
    return CellPlan(
        radius=radius,
        aspect=_between(rng, 1.0, 1.22),
        angle=_between(rng, 0, np.pi),
        lumpiness=_between(rng, 0.03, 0.1),
        fringe=_between(rng, 0.04, 0.22),
        cytoplasm=(
            _between(rng, 0.0, 0.15),
            _between(rng, 0.45, 0.9) if large else _between(rng, 0.7, 1.6),
            _between(rng, 0.0, 0.12),
            0.0,
        ),
        mottling=_between(rng, 0.2, 0.5),
        nucleus=Nucleus(
            shape,
            density=_between(rng, 0.82, 1.02),
            contrast=_between(rng, 0.18, 0.36),
            clump=_between(rng, 0.36, 0.6),
            membrane=0.16,
            redness=_between(rng, 0.0, 0.35),
        ),
        granules=(Granules(int(rng.integers(4, 20)) if large else 0, 0.2, (0.5, 0.0, 0.2, 0.0)),),
    )


def _monocyte(rng: np.random.Generator) -> CellPlan:
    radius = _normal(rng, 7.7, 0.7, 6.0, 9.6)
    kind = rng.random()
    if kind < 0.6:  # kidney to horseshoe
        span, thick = _between(rng, 1.3, 3.2), _between(rng, 0.36, 0.5)
        shape = _bent(rng, 0.38 * radius, thick * radius, span, 0.2 * radius)
    elif kind < 0.85:  # folded, with broad lobes
        shape = _lobed(rng, 0.8 * radius, int(rng.integers(2, 4)), 0.46, 0.2 * radius)
    else:
        shape = _round(rng, radius * _between(rng, 0.56, 0.68), 0.2 * radius, 0.5)
    vacuolated = rng.random() < 0.55
    return CellPlan(
        radius=radius,
        aspect=_between(rng, 1.0, 1.35),
        angle=_between(rng, 0, np.pi),
        lumpiness=_between(rng, 0.04, 0.16),
        fringe=_between(rng, 0.03, 0.24),
        cytoplasm=(_between(rng, 0.0, 0.06), _between(rng, 0.4, 0.95), _between(rng, 0.0, 0.12), 0.0),
        mottling=_between(rng, 0.12, 0.32),
        nucleus=Nucleus(
            shape,
            density=_between(rng, 0.62, 0.84),
            contrast=_between(rng, 0.26, 0.44),
            clump=_between(rng, 0.22, 0.32),
            redness=_between(rng, 0.0, 0.4),
        ),
        granules=(Granules(int(rng.integers(0, 160)), 0.15, (_between(rng, 0.15, 0.4), 0.2, 0.1, 0.0)),),
        vacuoles=(int(rng.integers(1, 12)) if vacuolated else 0, _between(rng, 0.3, 0.6)),
    )


def _neutrophil(rng: np.random.Generator) -> CellPlan:
    radius = _normal(rng, 6.6, 0.6, 5.2, 8.3)
    lobes = int(rng.choice([1, 2, 3, 4, 5], p=[0.22, 0.18, 0.33, 0.2, 0.07]))
    if lobes == 1:  # a band
        shape = _bent(rng, 0.48 * radius, _between(rng, 0.21, 0.34) * radius, _between(rng, 2.6, 4.3), 0.15 * radius)
    else:
        shape = _lobed(rng, radius, lobes, (0.31, 0.27, 0.235, 0.215)[lobes - 2], 0.16 * radius)
    toxic = float(rng.random()) ** 2  # from hypogranular to toxic granulation
    return CellPlan(
        radius=radius,
        aspect=_between(rng, 1.0, 1.18),
        angle=_between(rng, 0, np.pi),
        lumpiness=_between(rng, 0.02, 0.08),
        fringe=_between(rng, 0.01, 0.09),
        cytoplasm=(0.0, _between(rng, 0.04, 0.32), _between(rng, 0.12, 0.3), 0.0),
        mottling=_between(rng, 0.2, 0.5),
        nucleus=Nucleus(shape, _between(rng, 0.84, 1.02), _between(rng, 0.28, 0.48), _between(rng, 0.3, 0.42)),
        granules=(
            Granules(
                count=int(_between(rng, 120, 420) * (radius / 6.6) ** 2),
                radius=_between(rng, 0.09, 0.17),
                dyes=(0.12 + 0.5 * toxic, 0.0, _between(rng, 0.1, 0.4), 0.0),
                over_nucleus=0.0,
                patchiness=_between(rng, 0.0, 0.5),
            ),
        ),
        vacuoles=(int(rng.poisson(0.25)), 0.4),
    )


def _platelet(rng: np.random.Generator) -> CellPlan:
    radius = _normal(rng, 2.6, 0.5, 1.3, 4.2)
    depth = _between(rng, 0.35, 1.0)
    return CellPlan(
        radius=radius,
        aspect=_between(rng, 1.0, 1.5),
        angle=_between(rng, 0, np.pi),
        lumpiness=_between(rng, 0.05, 0.14),
        fringe=_between(rng, 0.08, 0.26),
        cytoplasm=(_between(rng, 0.05, 0.3) * depth, _between(rng, 0.15, 0.6), _between(rng, 0.0, 0.15), 0.0),
        mottling=0.4,
        nucleus=None,
        granules=(
            Granules(
                count=int(_between(rng, 12, 30) * radius**1.5),
                radius=_between(rng, 0.16, 0.26),
                dyes=(0.85 * depth, 0.1, _between(rng, 0.0, 0.3), 0.0),
                spread=_between(rng, 0.65, 0.9),
            ),
        ),
    )


_RECIPES: dict[str, Callable[[np.random.Generator], CellPlan]] = {
    "basophil": _basophil,
    "eosinophil": _eosinophil,
    "erythroblast": _erythroblast,
    "ig": _immature_granulocyte,
    "lymphocyte": _lymphocyte,
    "monocyte": _monocyte,
    "neutrophil": _neutrophil,
    "platelet": _platelet,
}
