"""Blots and bubbles of the test, drawn from what they are on a slide."""

from __future__ import annotations

import numpy as np

from hemascope.corruptions.pixels import Pixels, distances, laid_over, surface, warped, whole


def blots(image: Pixels, count: int, rng: np.random.Generator, *, largest: float = 0.13) -> Pixels:
    """``count`` deposits of dye: ragged, violet-blue, darkest in the middle; radii up to ``largest`` of the side."""
    side = image.shape[0]
    for _ in range(count):
        row, column = rng.uniform(0.05, 0.95, 2)
        radius = rng.uniform(0.4, 1.0) * largest
        edge = 0.22 * radius * surface(rng, side, 0.035)
        depth = (radius + edge - distances(side, float(row), float(column))) / (0.35 * radius)
        colour = np.array([rng.uniform(30, 85), rng.uniform(15, 55), rng.uniform(75, 135)])
        covered = depth > 0  # a small part, so the rest costs nothing
        image = image.copy()
        image[covered] = laid_over(image[covered], colour, 0.93 * np.clip(depth[covered], 0, 1))
    return image


def air_bubbles(image: Pixels, count: int, radius: float, rng: np.random.Generator) -> Pixels:
    """``count`` bubbles of about ``radius`` (in sides): the inside bent, a dark rim, a bright spot near it.

    Where two overlap, their bends add up and their shades multiply. Each is worked out in its own box alone.
    """
    side = image.shape[0]
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    shade, glow = np.ones((side, side), np.float32), np.zeros((side, side), np.float32)
    bent = np.zeros((side, side), dtype=bool)
    for _ in range(count):
        row, column = rng.uniform(0, side, 2).astype(np.float32)
        mine = np.float32(max(1.0, radius * side * rng.uniform(0.6, 1.4)))
        angle = rng.uniform(0, 2 * np.pi)
        reach = 1.3 * mine
        box = tuple(slice(max(0, int(at - reach)), max(0, int(at + reach) + 2)) for at in (row, column))
        down = np.arange(side, dtype=np.float32)[box[0], None] - row
        right = np.arange(side, dtype=np.float32)[None, box[1]] - column
        away = np.hypot(down, right) / mine
        inside = away < 1
        # A bubble is a weak lens: towards its rim the picture is drawn from nearer its middle.
        pull = np.where(inside, np.float32(0.25) * away**2, np.float32(0))
        rows[box] -= down * pull
        columns[box] -= right * pull
        bent[box] |= inside
        shade[box] *= 1 + np.float32(0.08) * inside - np.float32(0.55) * np.exp(-0.5 * ((away - 0.97) / 0.09) ** 2)
        spot = np.hypot(down - 0.6 * mine * np.sin(angle), right - 0.6 * mine * np.cos(angle)) / mine
        glow[box] += 110 * np.exp(-0.5 * (spot / 0.16) ** 2)
    image = image.copy()
    image[bent] = warped(image, rows[bent], columns[bent], "nearest")
    return whole(image * shade[..., None] + glow[..., None])
