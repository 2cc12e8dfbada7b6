"""What the training cells look like, in a few numbers, and how far new ones are from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from scipy.linalg import sqrtm

from hemascope.audit.pixel_measures import COLUMNS, measure_pixels
from hemascope.audit.stain import optical_densities
from hemascope.errors import BundleError, DataError
from hemascope.results import SavedRecord
from hemascope.shift_results import MeasureShift

Floats = NDArray[np.float64]

QUANTILES = 51
"""Numbers kept of each measure: its quantiles from 0 to 1."""

SAMPLES = 300
"""Random sets of training cells behind a usual distance."""

MOST = 2000
"""Cells measured; the quantiles of more differ less than two laboratories' do."""


class Measure(NamedTuple):
    """What a number of a picture is called, and what it is part of."""

    title: str
    group: str


MEASURES: Mapping[str, Measure] = {
    "ground_red": Measure("ground, density in red", "stain"),
    "ground_green": Measure("ground, density in green", "stain"),
    "ground_blue": Measure("ground, density in blue", "stain"),
    "stain_red": Measure("stained parts, density in red", "stain"),
    "stain_green": Measure("stained parts, density in green", "stain"),
    "stain_blue": Measure("stained parts, density in blue", "stain"),
    "sharpness": Measure("sharpness (logarithm)", "sharpness"),
    "foreground": Measure("share of the picture that is stained", "scale"),
    "brightness": Measure("brightness", "light"),
    "contrast": Measure("contrast", "light"),
}
"""Each measure of a prepared picture, in the order of the columns of ``measured``."""


class Reference(SavedRecord):
    """The training cells: QUANTILES quantiles of each of MEASURES."""

    n: int = Field(ge=1)
    quantiles: dict[str, tuple[float, ...]]


def measured(images: NDArray[np.uint8]) -> Floats:
    """float64 (N, len(MEASURES)) of prepared pictures uint8 (N, S, S, 3)."""
    density = optical_densities(images).astype(np.float64)
    pixels = np.stack([measure_pixels(image) for image in images]) if len(images) else np.zeros((0, 18), np.float32)
    sharpness = np.log(np.maximum(pixels[:, COLUMNS["sharpness"]].astype(np.float64), 1e-6))
    rest = [pixels[:, COLUMNS[name]].astype(np.float64) for name in ("foreground", "brightness", "contrast")]
    return np.concatenate([density[:, :3], density[:, 6:], sharpness, *rest], axis=1)


def fit_reference(images: NDArray[np.uint8]) -> dict[str, Any]:
    """What to keep of the training cells, ready for JSON. Raises DataError without cells."""
    if not len(images):
        raise DataError("a reference takes at least one training cell")
    values = measured(images)
    grid = np.linspace(0, 1, QUANTILES)
    return Reference(
        n=len(values),
        quantiles={name: tuple(np.quantile(values[:, k], grid).round(6).tolist()) for k, name in enumerate(MEASURES)},
    ).model_dump(mode="json")


def read_reference(record: Mapping[str, Any], where: object = "the bundle") -> Reference:
    """The reference in a bundle. Raises BundleError where it is malformed."""
    try:
        found = Reference.model_validate(record)
    except ValidationError as error:
        raise BundleError(f"the reference for shifts in {where} is malformed: {error.errors()[0]['msg']}.") from error
    for name in MEASURES:
        values = found.quantiles.get(name, ())
        if len(values) != QUANTILES or not np.isfinite(values).all() or (np.diff(values) < 0).any():
            raise BundleError(f"the reference for shifts in {where} has no sound quantiles of {name}.")
    return found


def measure_shifts(reference: Reference, values: Floats, *, seed: int = 0) -> tuple[MeasureShift, ...]:
    """How far each measure of N new pictures (N, len(MEASURES)) lies from the training cells'.

    The distance is Wasserstein's first, in deviations of the training cells (a width of 0 counts as one thousandth of
    the value). Its usual size is simulated: the 95 % quantile over SAMPLES sets of N drawn from the reference itself.
    Raises DataError without pictures.
    """
    if not len(values):
        raise DataError("a shift takes at least one new picture")
    grid = np.linspace(0, 1, QUANTILES)
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.random((SAMPLES, min(len(values), MOST))), axis=1)
    found = []
    for k, (name, measure) in enumerate(MEASURES.items()):
        known = np.array(reference.quantiles[name])
        spread = _spread(known)
        own = np.quantile(values[:, k], grid)
        chance = np.array([np.abs(np.quantile(np.interp(row, grid, known), grid) - known).mean() for row in drawn])
        found.append(
            MeasureShift(
                name=name,
                title=measure.title,
                group=measure.group,
                distance=float(np.abs(own - known).mean() / spread),
                usual=float(np.quantile(chance, 0.95) / spread),
                reference=float(known[QUANTILES // 2]),
                found=float(np.median(values[:, k])),
            )
        )
    return tuple(found)


def _spread(quantiles: Floats) -> float:
    """The deviation of a normal law with these quartiles."""
    low, high = np.interp([0.25, 0.75], np.linspace(0, 1, len(quantiles)), quantiles)
    return float(max((high - low) / 1.349, 1e-3 * abs(quantiles[len(quantiles) // 2]), 1e-9))


def fit_embedding(vectors: NDArray[np.floating[Any]]) -> dict[str, NDArray[np.generic]]:
    """Mean and covariance of features (N, P) of calibration cells, as arrays for a bundle."""
    units = _unit(np.asarray(vectors, dtype=np.float64))
    covariance = np.cov(units, rowvar=False) if len(units) > 1 else np.zeros((units.shape[1], units.shape[1]))
    return {
        "shift_mean": units.mean(axis=0).astype(np.float32),
        "shift_covariance": np.atleast_2d(covariance).astype(np.float32),
    }


def embedding_shift(
    arrays: Mapping[str, NDArray[np.generic]], vectors: NDArray[np.floating[Any]], *, seed: int = 0, samples: int = 60
) -> tuple[float, float]:
    """The Fréchet distance of features (N, P) to the calibration cells', and what 95 % of chance draws stay below.

    Both are taken as normal laws of features of length 1 (Dowson and Landau 1982; Heusel et al. 2017). The distance is
    biased upwards in small sets, and so is the usual one, which is simulated at the same N. Raises BundleError where
    the arrays are not there or do not fit.
    """
    mean, covariance = (np.asarray(arrays.get(name), dtype=np.float64) for name in ("shift_mean", "shift_covariance"))
    width = vectors.shape[1]
    shapes_fit = mean.shape == (width,) and covariance.shape == (width, width)
    if not (shapes_fit and np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise BundleError(
            "the reference for shifts has arrays that do not fit or are not finite. Fit it again with hemascope "
            "calibrate."
        )
    units = _unit(np.asarray(vectors, dtype=np.float64))
    rng = np.random.default_rng(seed)
    values, axes = np.linalg.eigh(covariance)
    factor = axes * np.sqrt(np.maximum(values, 0))
    count = min(len(units), MOST)
    chance = [_frechet(mean, covariance, mean + rng.normal(size=(count, width)) @ factor.T) for _ in range(samples)]
    return _frechet(mean, covariance, units), float(np.quantile(chance, 0.95))


def _frechet(mean: Floats, covariance: Floats, units: Floats) -> float:
    own = np.cov(units, rowvar=False) if len(units) > 1 else np.zeros_like(covariance)
    root = np.real(sqrtm(covariance @ own))
    gap = np.square(units.mean(axis=0) - mean).sum() + np.trace(covariance + own - 2 * root)
    return float(np.sqrt(max(gap, 0.0)))


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
