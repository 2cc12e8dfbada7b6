"""Images coloured unlike the others: another stain, another lamp, another scanner."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from hemascope.audit.exposure_detector import beyond
from hemascope.audit.material import Material
from hemascope.cells import UNLABELLED
from hemascope.findings import CheckResult, Finding

FEWEST = 50
SPREADS = 6.0
ROUNDS = 3
BULK = 0.9
"""Share of the images that the second and third round take as the bulk of the set."""

BORDER = 1 / 16
"""Width of the border that shows the ground, as a share of the side."""

_PLACES = ("ground", "whole image", "darkest tenth")


def check_stain(material: Material) -> CheckResult:
    """``odd_stain``: distance of each image's colours from those of the bulk; score 0.5 at the line, lower beyond.

    Ledoit and Wolf's covariance of nine optical densities. Not applicable below 50 images. Linear in N.
    """
    began = time.perf_counter()
    cells = material.cells
    if len(cells) < FEWEST:
        reason = f"it takes {FEWEST} images to say what colours are usual; there are {len(cells)}"
        return CheckResult("odd_stain", not_applicable=reason)
    densities = optical_densities(cells.images)
    distance, deviation = _distance(densities)
    median = float(np.median(distance))
    units = (distance - median) / max(beyond(distance, SPREADS) - median, 1e-9)
    scores = (1 / (1 + np.maximum(units, 0) ** 2)).astype(np.float32)
    order = np.flatnonzero(units >= 1)
    order = order[np.argsort(-units[order], kind="stable")]
    findings = [_finding(material, int(row), float(scores[row]), deviation[row]) for row in order]
    return CheckResult(
        "odd_stain",
        scores=scores,
        cut=0.5,
        cut_rule=(
            f"{SPREADS:g} spreads beyond the median Mahalanobis distance from the bulk of the set; the spread is that "
            "of the better half"
        ),
        findings=findings,
        seconds=time.perf_counter() - began,
    )


def optical_densities(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Float (N, 9): R, G, B of the ground (median of the border), of the whole (mean), of the darkest tenth.

    images uint8 (N, S, S, 3), read in blocks. Density: -ln((level + 1) / 256), 0 for white (Ruifrok, Johnston 2001).
    """
    count, side = images.shape[:2]
    width = max(1, round(side * BORDER))
    ring = np.ones((side, images.shape[2]), dtype=bool)
    ring[width:-width, width:-width] = False
    table = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
    found = np.empty((count, 9), dtype=np.float32)
    for block in _blocks(count):
        density = table[images[block]]
        found[block, :3] = np.median(density[:, ring], axis=1)
        found[block, 3:6] = density.mean((1, 2))
        found[block, 6:] = np.quantile(density.reshape(len(density), -1, 3), 0.9, axis=1)
    return found


def _distance(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mahalanobis distance from the bulk, float (N,), and each value in the bulk's deviations, float (N, 9)."""
    keep = np.ones(len(values), dtype=bool)
    for _ in range(ROUNDS):
        centre = np.median(values[keep], axis=0)
        scaled = ((values - centre) / (values[keep].std(0) + 1e-6)).astype(np.float64)
        covariance, _ = ledoit_wolf(scaled[keep], assume_centered=True)
        covariance += 1e-6 * np.eye(len(covariance))
        squared = np.einsum("ni,ij,nj->n", scaled, np.linalg.inv(covariance), scaled)
        distance = np.sqrt(np.maximum(squared, 0))
        keep = distance <= np.quantile(distance, BULK)
    return distance, scaled


def _finding(material: Material, row: int, score: float, deviation: NDArray[np.float64]) -> Finding:
    cells = material.cells
    worst = int(np.abs(deviation).argmax())
    colour, place = ("red", "green", "blue")[worst % 3], _PLACES[worst // 3]
    side = "darker" if deviation[worst] > 0 else "paler"
    label = int(cells.labels[row])
    return Finding(
        "odd_stain",
        cells.ids[row],
        cells.content_hash[row],
        score,
        "review",
        f"Its {place} is {side} in {colour} by {abs(deviation[worst]):.1f} deviations of the other images.",
        label="" if label == UNLABELLED else cells.class_names[label],
    )


def _blocks(count: int, size: int = 512) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
