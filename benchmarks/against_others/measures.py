"""How well scores, pairs and sets name what was planted. Ties count as ties; what was not named counts as missed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

Rows = NDArray[np.int64]
Floats = NDArray[Any]
BITS = 64


def image_average_precision(planted: NDArray[np.bool_], score: Floats, among: NDArray[np.bool_]) -> float:
    """Of N scores, lower is worse; only images ``among`` count, NaN as the best score."""
    return float(average_precision_score(planted[among], -np.nan_to_num(score, nan=np.inf, posinf=1e30)[among]))


def auroc(planted: NDArray[np.bool_], score: Floats) -> float:
    """Area under the receiver operating characteristic; lower scores are worse."""
    return float(roc_auc_score(planted, -np.nan_to_num(score, nan=1e30)))


def precision_at_planted(planted: NDArray[np.bool_], score: Floats) -> float:
    """Share of what was planted among the worst ``planted.sum()`` images; in the order given where scores tie."""
    worst = np.argsort(score, kind="stable")[: int(planted.sum())]
    return float(planted[worst].mean())


def recall_and_false(planted: NDArray[np.bool_], flagged: NDArray[np.bool_]) -> dict[str, float | int]:
    """What a tool's own cut gives: recall of the planted, and how many others it names."""
    return {"recall": float(flagged[planted].mean()), "false_alarms": int((flagged & ~planted).sum())}


def f1(planted: NDArray[np.bool_], flagged: NDArray[np.bool_]) -> float:
    """Harmonic mean of the precision and the recall of a tool's own cut."""
    return 2 * int((planted & flagged).sum()) / max(1, int(planted.sum() + flagged.sum()))


def pair_keys(left: Rows, right: Rows, count: int) -> Rows:
    """One number for each pair of rows, either way round."""
    return np.minimum(left, right) * count + np.maximum(left, right)


def pair_average_precision(pairs: Rows, distance: Floats, planted: Rows, count: int) -> float:
    """Of listed pairs (P, 2), nearest first, against planted pairs (Q, 2) of ``count`` images."""
    keys, first = np.unique(pair_keys(pairs[:, 0], pairs[:, 1], count), return_index=True)
    wanted = np.unique(pair_keys(planted[:, 0], planted[:, 1], count))
    hit = np.isin(keys, wanted)
    if not hit.any():
        return 0.0
    return float(average_precision_score(hit, -distance[first])) * int(hit.sum()) / len(wanted)


def pair_f1(pairs: Rows, planted: Rows, count: int) -> tuple[float, dict[str, float | int]]:
    """Of pairs called duplicates: the harmonic mean of precision and recall, and what it is made of."""
    keys = np.unique(pair_keys(pairs[:, 0], pairs[:, 1], count))
    wanted = np.unique(pair_keys(planted[:, 0], planted[:, 1], count))
    hits = int(np.isin(keys, wanted).sum())
    detail = {"recall": hits / len(wanted), "false_alarms": len(keys) - hits}
    return 2 * hits / max(1, len(keys) + len(wanted)), detail


def set_pairs(number: Rows, *, limit: int = 2_000_000) -> Rows:
    """All pairs within sets: ``number`` (N,) names each image's set, -1 for none. (P, 2)."""
    order = np.argsort(number, kind="stable")
    order = order[number[order] >= 0]
    cuts = np.flatnonzero(np.diff(number[order])) + 1
    sets = [members for members in np.split(order, cuts) if len(members) > 1]
    total = sum(len(members) * (len(members) - 1) // 2 for members in sets)
    if total > limit:
        raise ValueError(f"{total:,} pairs within sets are more than {limit:,}")
    pairs = [np.stack(np.triu_indices(len(members), 1), axis=1) for members in sets]
    found = [members[pair] for members, pair in zip(sets, pairs, strict=True)]
    return np.concatenate([np.empty((0, 2), dtype=np.int64), *found])


def code_average_precision(codes: NDArray[np.uint64], planted: Rows) -> float:
    """Of all pairs of N images by the Hamming distance of their 64-bit codes; none is left out."""
    everything = np.zeros(BITS + 1, dtype=np.int64)
    for row in range(len(codes) - 1):
        everything += np.bincount(np.bitwise_count(codes[row] ^ codes[row + 1 :]), minlength=BITS + 1)
    keys = np.unique(pair_keys(planted[:, 0], planted[:, 1], len(codes)))
    wanted = codes[keys // len(codes)] ^ codes[keys % len(codes)]
    hits = np.bincount(np.bitwise_count(wanted), minlength=BITS + 1)
    precision = np.cumsum(hits) / np.maximum(1, np.cumsum(everything))
    return float((precision * hits).sum() / len(keys))
