"""Does a map depend on what was learnt? The same method on a network whose last layers are drawn anew."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from hemascope.models.classifier import Classifier

SANITY_CELLS = 3
"""Cells whose maps are made a second time: methods differ by more than cells do, and each costs a map more."""

MOST_ALIKE = 0.5
"""A rank correlation above it: more than half of what the map shows was there before the classes were learnt."""

STAYS = "the map stays as it was for a network whose last layer was drawn anew"


def with_new_head(classifier: Classifier, seed: int) -> Classifier:
    """A copy whose head's layers are drawn anew, as widely spread as they were; the backbone stays.

    Adebayo et al. (2018) draw layers anew from the last one on: a map of what tells the classes apart must change.
    """
    drawn = copy.deepcopy(classifier)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for layer in drawn.head.modules():
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.normal_(layer.weight, std=float(layer.weight.std()))
                if layer.bias is not None:
                    layer.bias.zero_()
    return drawn.eval()


def likeness(maps: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Mean over N images of Spearman's rank correlation of two maps, (N, S, S) each; a flat map is like no other."""
    return float(np.mean([_rank_correlation(one, other) for one, other in zip(maps, others, strict=True)]))


def _rank_correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    ranks = [rankdata(one.ravel()) for one in (first, second)]
    centred = [one - one.mean() for one in ranks]
    scale = float(np.sqrt((centred[0] @ centred[0]) * (centred[1] @ centred[1])))
    return float(centred[0] @ centred[1]) / scale if scale > 0 else 0.0
