"""Which pixels are the nucleus and the cell in the middle of a picture, from the stain alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemascope.errors import DataError

_BINS = 64
_SMALLEST_CELL = 0.004
"""Share of the picture below which a patch of stain is dirt. A platelet of 2 micrometres in 21.6 has 0.0067."""

_FAINTEST_NUCLEUS = 0.3
"""Density above the ground, in natural logarithms, that the darker of two stains must have to be called one."""

_REACH = 0.3
"""Half the side of the square in the middle that the cell must touch, as a share of the picture's side."""

_NECK = 12
"""Part of the side; neighbours hang on the cell by less than twice that. A red cell is 2.9 of these in radius."""


def cell_masks(image: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Nucleus and cell, bool (S, S) each, of the cell in the middle of uint8 (S, S, 3) RGB.

    Azure dyes absorb red light, eosin hardly does: nuclei and basophilic cytoplasm are dark in the red channel, red
    cells are not. Otsu's (1979) two thresholds part the red channel's optical density above the ground's into ground,
    faint and dark stain. The nucleus is the dark stain around the middle, with all its lobes; the cell is the stain
    of either kind that holds it, with its holes filled, less what hangs on it by a neck, such as a red cell. The dark
    part of a platelet is given as nucleus, though it is none; both masks of an empty field are empty.

    The nucleus is found well. The rim of a pale cytoplasm is as pale as a red cell, and is found roughly; a red cell
    pressed flat against the cell may stay on it.
    Raises DataError for an array of another shape or type.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"an image must be uint8 (S, S, 3), found {image.dtype} {image.shape}")
    side = min(image.shape[:2])
    density = -np.log((image.astype(np.float32) + 1) / 256)
    red = ndimage.gaussian_filter(density[..., 0], side / 150)
    red = np.maximum(red - np.quantile(red, 0.1), 0)
    faint, dark = two_thresholds(red)
    nothing = np.zeros(red.shape, dtype=bool)
    if dark < _FAINTEST_NUCLEUS / 2:
        return nothing, nothing
    nucleus = ndimage.binary_fill_holes(_central(_opened(red > dark, side / 100), side, lobes=True))
    # A mean density of the dark part that is hardly above the ground is a platelet's or a shadow's.
    if not nucleus.any() or float(red[nucleus].mean()) < _FAINTEST_NUCLEUS:
        nucleus = nothing
    stain = _opened(red > faint, side / 40) | nucleus
    cell = _central(stain, side, lobes=False)
    if not cell.any():
        return nothing, nothing
    cell = _without_neighbours(ndimage.binary_fill_holes(cell | nucleus), nucleus, side / _NECK)
    return nucleus, cell


def two_thresholds(values: NDArray[np.float32]) -> tuple[float, float]:
    """The two cuts that part values into three kinds with the largest variance between them (Otsu 1979)."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return low, low
    counts, edges = np.histogram(values, bins=_BINS, range=(low, high))
    middles = (edges[:-1] + edges[1:]) / 2
    weight = np.concatenate([[0.0], np.cumsum(counts)])
    moment = np.concatenate([[0.0], np.cumsum(counts * middles)])
    first, second = np.triu_indices(_BINS, k=1)
    first, second = first + 1, second + 1  # classes are [0, first), [first, second), [second, end)

    def part(start: NDArray[np.intp] | int, stop: NDArray[np.intp] | int) -> NDArray[np.float64]:
        size = weight[stop] - weight[start]
        between: NDArray[np.float64] = (moment[stop] - moment[start]) ** 2 / np.maximum(size, 1e-12)
        return between

    best = int(np.argmax(part(0, first) + part(first, second) + part(second, _BINS)))
    return float(edges[first[best]]), float(edges[second[best]])


def _opened(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Without what a disc of ``radius`` pixels does not fit into."""
    if radius < 1:
        return mask
    inside = ndimage.distance_transform_edt(mask) > radius
    reached: NDArray[np.bool_] = ndimage.distance_transform_edt(~inside) <= radius
    return reached & mask


def _without_neighbours(cell: NDArray[np.bool_], nucleus: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """The pixels nearer to the core that holds the nucleus than to one that does not, such as a touching red cell's.

    Cores are the nucleus and what is further than ``radius`` pixels from the edge. Without a nucleus nothing is cut.
    """
    if not nucleus.any():
        return cell
    cores, _ = ndimage.label(nucleus | (ndimage.distance_transform_edt(cell) > radius))
    rows, columns = ndimage.distance_transform_edt(cores == 0, return_distances=False, return_indices=True)
    own = np.unique(cores[nucleus])
    kept, _ = ndimage.label(cell & np.isin(cores[rows, columns], own))
    # What is cut loose on the far side of a neighbour belongs to it.
    whole: NDArray[np.bool_] = np.isin(kept, np.unique(kept[nucleus]))
    return whole


def _central(mask: NDArray[np.bool_], side: int, *, lobes: bool) -> NDArray[np.bool_]:
    """The patches large enough to be no dirt that belong to the middle, empty where there is none.

    That is the patch with the most stain, weighed by its nearness to the middle, and with ``lobes`` those close to it.
    """
    labels, count = ndimage.label(mask)
    if not count:
        return np.zeros(mask.shape, dtype=bool)
    height, width = mask.shape
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2) / side
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    weights = np.bincount(labels.ravel(), weights=np.exp(-((distance / 0.2) ** 2)).ravel(), minlength=count + 1)
    nearest = ndimage.minimum(distance, labels, np.arange(count + 1))
    fits = (sizes >= _SMALLEST_CELL * mask.size) & (np.asarray(nearest) <= _REACH)
    fits[0] = False
    if not fits.any():
        return np.zeros(mask.shape, dtype=bool)
    chosen = int(np.argmax(np.where(fits, weights, -1)))
    main: NDArray[np.bool_] = labels == chosen
    if not lobes:
        return main
    away = ndimage.distance_transform_edt(~main)
    close = np.asarray(ndimage.minimum(away, labels, np.arange(count + 1))) <= side / 12
    inside = np.asarray(ndimage.mean(distance, labels, np.arange(count + 1))) <= _REACH
    keep = fits & close & inside
    keep[chosen] = True
    found: NDArray[np.bool_] = keep[labels]
    return found
