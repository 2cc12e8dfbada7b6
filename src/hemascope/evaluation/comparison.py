"""Two models on the same cells: paired differences with intervals, and McNemar's test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from hemascope.bootstrap import (
    Floats,
    Ints,
    estimate,
    lowest_rates,
    percentile_interval,
    resample_class_means,
    resample_counts,
)
from hemascope.errors import DataError
from hemascope.evaluation.record import scorable
from hemascope.evaluation.table import as_utf8
from hemascope.metrics import accuracy, balanced_accuracy, log_losses, macro_average, precision_recall_f1
from hemascope.results import Comparison, Estimate, Predictions

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")


def compare(
    first: Predictions,
    second: Predictions,
    *,
    first_name: str,
    second_name: str,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare two sets of predictions on the cells both have, matched by id; differences are second minus first.

    Cells that only one has, that could not be read by either, or that have no label are left out. The classes
    must be the same; their order may differ. Intervals are of the paired case bootstrap: each resample draws the
    same cells for both. Confusion-based metrics resample the joint counts of (true, first's, second's class).

    Two models that agree on every cell differ by 0 in every resample, which is not certainty: the interval is then
    how far apart they could be while so many cells still show no disagreement at 2.5 %.

    McNemar's p-value is the exact two-sided binomial one (McNemar, 1947), 1 where no cell tells the two apart.
    Raises DataError where classes or labels disagree, an id occurs twice, or no cell is in both.
    """
    labels, first_probs, second_probs = _matched(first, second, first_name, second_name)
    n, classes = first_probs.shape
    first_predicted, second_predicted = first_probs.argmax(axis=1), second_probs.argmax(axis=1)
    rng = np.random.default_rng(seed)

    # The kinds of cells there are: far fewer than classes cubed.
    kinds, counts = np.unique((labels * classes + first_predicted) * classes + second_predicted, return_counts=True)
    true, first_kind, second_kind = kinds // classes**2, kinds // classes % classes, kinds % classes
    sides = [true * classes + first_kind, true * classes + second_kind]
    values = [_scores(_fold(counts[None, :], side, classes)) for side in sides]
    samples: list[dict[str, list[Floats]]] = [{name: [] for name in METRICS} for _ in sides]
    # Each chunk of resamples unfolds into matrices of classes squared: keep those small as well.
    for drawn in resample_counts(counts, resamples, rng):
        step = max(1, 4_000_000 // classes**2)
        for start in range(0, len(drawn), step):
            for side, sampled in zip(sides, samples, strict=True):
                for name, score in _scores(_fold(drawn[start : start + step], side, classes)).items():
                    sampled[name].append(score)

    losses = np.stack([log_losses(probs, labels) for probs in (first_probs, second_probs)], axis=1)
    sizes, means = resample_class_means(losses, labels, classes, resamples, rng)
    resampled_losses = (sizes[:, :, None] * means).sum(axis=1) / n
    for side in range(2):
        values[side]["log_loss"] = losses[:, side].mean(keepdims=True)
        samples[side]["log_loss"] = [resampled_losses[:, side]]

    support = np.bincount(labels, minlength=classes)
    trials = {"accuracy": np.array([n]), "balanced_accuracy": support[support > 0], "macro_f1": support[support > 0]}
    estimates: list[dict[str, Estimate]] = [{}, {}]
    difference = {}
    for name in METRICS:
        drawn_scores = [np.concatenate(sampled[name]) for sampled in samples]
        at_hand = [float(value[name][0]) for value in values]
        for side in range(2):
            counted = trials.get(name)
            # All right or all wrong: every class has the same rate, which is the mean itself.
            rates = None if counted is None else np.full(counted.shape, at_hand[side])
            estimates[side][name] = estimate(at_hand[side], drawn_scores[side], n, rates=rates, counts=counted)
        difference[name] = _difference(
            at_hand[1] - at_hand[0], drawn_scores[1] - drawn_scores[0], n, counts=trials.get(name)
        )

    right = [first_predicted == labels, second_predicted == labels]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    discordant = only_first + only_second
    return Comparison(
        first=as_utf8(first_name),
        second=as_utf8(second_name),
        n=n,
        first_metrics=estimates[0],
        second_metrics=estimates[1],
        difference=difference,
        only_first_correct=only_first,
        only_second_correct=only_second,
        both_correct=int((right[0] & right[1]).sum()),
        neither_correct=int((~right[0] & ~right[1]).sum()),
        p_value=float(binomtest(only_second, discordant).pvalue) if discordant else 1.0,
    )


def _fold(counts: Ints, side: Ints, classes: int) -> Ints:
    """Counts of joint kinds (B, C) summed into one model's confusion matrices (B, K, K); ``side`` (C,) says where."""
    folded = np.zeros((len(counts), classes * classes), dtype=np.int64)
    order = np.argsort(side, kind="stable")
    cells, starts = np.unique(side[order], return_index=True)
    folded[:, cells] = np.add.reduceat(counts[:, order], starts, axis=1)
    return folded.reshape(-1, classes, classes)


def _scores(confusion: Ints) -> dict[str, Floats]:
    return {
        "accuracy": accuracy(confusion),
        "balanced_accuracy": balanced_accuracy(confusion),
        "macro_f1": macro_average(precision_recall_f1(confusion)[2], confusion),
    }


def _difference(value: float, samples: Floats, n: int, *, counts: Ints | None) -> Estimate:
    measured = estimate(value, samples, n)
    if measured.low is not None or counts is None:
        return measured
    bottom, _ = percentile_interval(samples)
    if np.isnan(bottom):
        return measured
    # No resample differs: cells of the kinds unseen so far could be this share of all cells. One of them moves a
    # difference of 0 by 1; a difference of 1 it can turn round, which moves it by 2.
    unseen = 1.0 - float(lowest_rates(counts).mean())
    reach = unseen if abs(value) < 0.5 else 2.0 * unseen
    return Estimate(value=value, low=max(-1.0, value - reach), high=min(1.0, value + reach), n=n)


def _matched(
    first: Predictions, second: Predictions, first_name: str, second_name: str
) -> tuple[Ints, NDArray[np.float32], NDArray[np.float32]]:
    """Labels (M,) and both models' probabilities (M, K) of the M cells both can be scored on; first's class order."""
    if sorted(first.class_names) != sorted(second.class_names):
        raise DataError(
            f"{first_name} and {second_name} cannot be compared: the classes differ, "
            f"{', '.join(first.class_names)} and {', '.join(second.class_names)}"
        )
    rows = [_scorable_rows(first, first_name), _scorable_rows(second, second_name)]
    shared = [name for name in rows[0] if name in rows[1]]
    if not shared:
        raise DataError(
            f"{first_name} and {second_name} have no scored cell in common: {len(rows[0])} and {len(rows[1])} cells, "
            "none with the same id. Evaluate both on the same cells first."
        )
    own = np.array([rows[0][name] for name in shared], dtype=np.intp)
    other = np.array([rows[1][name] for name in shared], dtype=np.intp)
    assert first.labels is not None and second.labels is not None  # _scorable_rows has checked
    position = {name: k for k, name in enumerate(first.class_names)}
    to_first = np.array([position[name] for name in second.class_names], dtype=np.int64)
    labels = first.labels[own]
    unlike = np.flatnonzero(labels != to_first[second.labels[other]])
    if unlike.size:
        raise DataError(
            f"{first_name} and {second_name} cannot be compared: {unlike.size} of {len(shared)} shared cells have "
            f"different true labels, {shared[int(unlike[0])]} for one"
        )
    columns = [second.class_names.index(name) for name in first.class_names]
    return labels, first.probs[own], second.probs[other][:, columns]


def _scorable_rows(predictions: Predictions, name: str) -> dict[str, int]:
    """Row by id, of the cells that can be scored."""
    rows: dict[str, int] = {}
    for row in np.flatnonzero(scorable(predictions)).tolist():
        cell = predictions.ids[row]
        if cell in rows:
            raise DataError(f"{name} has two predictions for {cell}, so cells cannot be matched by id")
        rows[cell] = row
    return rows
