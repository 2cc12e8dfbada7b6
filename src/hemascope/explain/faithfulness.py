"""Whether a map tells what the network used: pixels put in and taken out in the map's order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemascope.explain.attribution import empty_field
from hemascope.explain.cams import predict_probs
from hemascope.explain.sanity import MOST_ALIKE, STAYS
from hemascope.models.classifier import Classifier

STEPS = 24


def insertion_deletion(
    classifier: Classifier,
    image: NDArray[np.uint8],
    heat: NDArray[np.float32],
    target: int,
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> tuple[float, float]:
    """Areas under the probability of ``target`` while pixels are revealed and while they are removed, 0 to 1.

    image  prepared uint8 (S, S, 3); heat float32 (S, S)

    Insertion (high is good) starts from an empty field, deletion (low is good) ends there; the hottest pixels go first
    (Petsiuk et al. 2018, who delete to grey, which no smear shows). Equal pixels go in an order drawn from ``seed``, as
    any other would favour a corner.
    """
    empty = empty_field(image)
    ties = np.random.default_rng(seed).random(heat.size)
    order = np.lexsort((ties, -heat.ravel()))
    rank = np.empty(heat.size, dtype=np.int64)
    rank[order] = np.arange(heat.size)
    ends = np.linspace(0, heat.size, steps + 1).round().astype(np.int64)
    shown = (rank.reshape(1, *heat.shape) < ends[:, None, None])[..., None]
    both = np.concatenate([np.where(shown, image, empty), np.where(shown, empty, image)])
    probs = predict_probs(classifier, both)[:, target].astype(np.float64)
    return _area(probs[: steps + 1]), _area(probs[steps + 1 :])


def random_maps(side: int, count: int, seed: int) -> NDArray[np.float32]:
    """Maps that know nothing, float32 (count, S, S), as coarse as a CAM's: noise of 7 x 7 places, scaled up."""
    noise = np.random.default_rng(seed).random((count, 7, 7))
    zoomed = np.stack([ndimage.zoom(one, side / 7, order=1) for one in noise])
    return zoomed.astype(np.float32)


def centre_map(side: int) -> NDArray[np.float32]:
    """A round blob in the middle, float32 (S, S): what a map must beat to say more than that cells are centred."""
    place = (np.arange(side) - (side - 1) / 2) / side
    blob: NDArray[np.float32] = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 0.2**2)).astype(np.float32)
    return blob


def share_inside(heat: NDArray[np.float32], mask: NDArray[np.bool_]) -> float | None:
    """Share of the map's sum that lies in a mask, (S, S) each; None for an empty map or mask."""
    total = float(heat.sum(dtype=np.float64))
    return float(heat[mask].sum(dtype=np.float64)) / total if total > 0 and mask.any() else None


def agreement(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Pearson's correlation of two maps of the same places, (S, S) each; 0 where one of them is flat."""
    one, other = (each.ravel().astype(np.float64) - float(each.mean()) for each in (first, second))
    scale = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / scale if scale > 1e-12 else 0.0


def reasons_to_doubt(
    insertion: float,
    deletion: float,
    random_insertion: float,
    random_deletion: float,
    agrees: float | None = None,
    *,
    least_agreement: float = 0.5,
    stays: float | None = None,
    empty: bool = False,
) -> list[str]:
    """Why a map is not to be trusted, in words; none where it is.

    agrees  correlation with the map of a second version; None: none was explained
    stays   how like maps of the method are to those of a network with another head (``sanity.likeness``)
    empty   whether the map is zero everywhere, or has one value
    """
    if empty:
        return ["the map is empty or everywhere the same: by this method no place speaks for the class"]
    reasons = []
    if not insertion > random_insertion:
        reasons.append("revealing its places brings the class back no sooner than random places do")
    if not deletion < random_deletion:
        reasons.append("removing its places takes the class away no sooner than random places do")
    if agrees is not None and not agrees >= least_agreement:
        reasons.append("the map of an augmented version of the cell lies elsewhere")
    if stays is not None and stays > MOST_ALIKE:
        reasons.append(STAYS)
    return reasons


def _area(values: NDArray[np.float64]) -> float:
    return float(np.trapezoid(values, dx=1 / (len(values) - 1)))
