"""Fitting the words: one multinomial logistic regression for each attribute, and the cut for contradictions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from hemascope.errors import DataError
from hemascope.morphology.attributes import ATTRIBUTES, DESCRIBED
from hemascope.morphology.head import (
    COLUMNS,
    PREFIX,
    VALUES,
    AttributeHead,
    FittedAttribute,
    Floats,
    Ints,
    WordsRecord,
    surprises,
)
from hemascope.progress import SILENT, Progress

COMPONENTS = 256
"""Principal components the weights are sought in: as good as all 1,280 features, and several times as fast."""

INVERSE_L2 = (0.003, 0.01, 0.03, 0.1, 0.3)
PRIOR_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
FALSE_ALARMS = 0.01

_SMOOTHING = 0.5
"""Added to each count of a value in a class (Jeffreys' prior), so that nothing is impossible."""
_NEVER = -30.0
"""The logit of a value that no cell of the fit has."""


class _Fit(NamedTuple):
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    offset: NDArray[np.float64]
    fitted: FittedAttribute


def fit_attributes(
    features: Floats,
    values: Ints,
    labels: Ints,
    class_names: Sequence[str],
    *,
    fit: NDArray[np.bool_],
    choose: NDArray[np.bool_],
    cut: NDArray[np.bool_],
    false_alarms: float = FALSE_ALARMS,
    seed: int = 0,
    progress: Progress = SILENT,
) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    """Record (JSON-ready) and arrays of an ``AttributeHead``, about 90 KB for D = 1,280.

    features     floating (N, D), what the classifier's head is given, with the views it predicts with
    values       int64 (N, 11): the number of each attribute's value, -1 where a cell was not described
    labels       int64 (N,): true classes, indices into ``class_names``
    fit          bool (N,): cells the weights and the frequencies of values in classes come from
    choose       bool (N,): cells that strength of L2, temperature and the weight of rare values are chosen on, by macro
                 F1; best cells that neither ``fit`` nor the network's training holds
    cut          bool (N,): cells with a right label, of which the cut is to mark the share ``false_alarms``; they need
                 no values. May be those of ``choose``
    seed         of the principal components

    Raises DataError for shapes that do not fit, features that are not finite, masks that overlap, or attributes of
    which the fit holds fewer than two values.
    """
    classes = _check(features, values, labels, class_names, fit, choose, cut)
    used = fit | choose | cut
    features, values, labels = features[used], values[used], labels[used]
    fit, choose, cut = fit[used], choose[used], cut[used]
    mean = features[fit].mean(axis=0, dtype=np.float64)
    spread = features[fit].std(axis=0, dtype=np.float64)
    scale = np.where(spread > 1e-6, spread, 1.0)  # a constant feature says nothing and is left as it is
    standard = (features - mean) / scale
    count = min(COMPONENTS, features.shape[1], int(fit.sum()) - 1)
    components = PCA(count, svd_solver="randomized", random_state=seed).fit(standard[fit])
    unit = np.sqrt(components.explained_variance_.mean())
    reduced = components.transform(standard) / unit

    weight, bias, offset = np.zeros((VALUES, count)), np.zeros(VALUES), np.zeros(VALUES)
    fitted: dict[str, FittedAttribute] = {}
    with progress.task("fitting morphology", len(ATTRIBUTES), "attributes") as advance:
        for column, (name, columns) in enumerate(COLUMNS.items()):
            found = _fit_one(name, reduced, values[:, column], fit, choose)
            weight[columns], bias[columns], offset[columns] = found.weight, found.bias, found.offset
            fitted[name] = found.fitted
            advance(1)
    whole = weight @ components.components_ / unit
    bias = bias - whole @ components.mean_
    arrays: dict[str, NDArray[np.generic]] = {
        "mean": mean.astype(np.float32),
        "scale": scale.astype(np.float32),
        "weight": whole.astype(np.float16),
        "bias": bias.astype(np.float32),
        "offset": offset.astype(np.float32),
        "frequency": _frequencies(values[fit], _rows(labels[fit], classes)).astype(np.float32),
        "typical": np.zeros(len(classes), dtype=np.float32),
    }
    arrays = {PREFIX + name: array for name, array in arrays.items()}
    record = WordsRecord(
        dimensions=features.shape[1],
        attributes=fitted,
        classes=tuple(class_names[k].strip().lower() for k in classes),
        cut=0.0,
        false_alarms=false_alarms,
        fitted_on=int(fit.sum()),
        chosen_on=int(choose.sum()),
        cut_on=int(cut.sum()),
    )
    # What is usual and the cut are measured with the head as it will be read: its weights are rounded.
    head = AttributeHead.from_saved(record.model_dump(), arrays)
    probs = np.concatenate(list(head.predict(features[cut]).values()), axis=1)
    rows = _rows(labels[cut], classes)
    surprise = surprises(probs, head.frequency)[np.arange(len(rows)), rows]
    typical = np.array([np.median(surprise[rows == row]) for row in range(len(classes))], dtype=np.float32)
    arrays[PREFIX + "typical"] = typical
    limit = float(np.quantile(surprise - typical[rows], 1 - false_alarms, method="higher"))
    return record.model_copy(update={"cut": limit}).model_dump(mode="json"), arrays


def _fit_one(
    name: str, reduced: NDArray[np.float64], values: Ints, fit: NDArray[np.bool_], choose: NDArray[np.bool_]
) -> _Fit:
    """The best of ``INVERSE_L2`` and ``PRIOR_POWERS`` by macro F1 on ``choose``; of equals the smoothest."""
    vocabulary = ATTRIBUTES[name].values
    present = np.unique(values[fit])
    if len(present) < 2:
        raise DataError(f"the cells to fit hold fewer than two values of {name}; give cells of every white class")
    prior = np.bincount(values[fit], minlength=len(vocabulary)) / fit.sum()
    logs = np.log(np.where(prior > 0, prior, 1))
    truth = values[choose]
    best: tuple[float, _Fit] | None = None
    for inverse in INVERSE_L2:
        with warnings.catch_warnings():
            # A fit that is cut off is one more regularised candidate, judged like the others on cells it has not seen.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=inverse, max_iter=500).fit(reduced[fit], values[fit])
        weight, bias = _full(model, len(vocabulary))
        logits = reduced[choose] @ weight.T + bias
        temperature = _temperature(logits, truth)
        for power in PRIOR_POWERS:
            decided = (logits / temperature - power * logs).argmax(axis=1)
            score = float(f1_score(truth, decided, average="macro", zero_division=0))
            if best is None or score > best[0] + 1e-9:
                record = FittedAttribute(
                    values=vocabulary, inverse_l2=inverse, temperature=temperature, prior_power=power
                )
                best = score, _Fit(weight / temperature, bias / temperature, power * logs, record)
    assert best is not None
    return best[1]


def _full(model: LogisticRegression, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights and biases with a row for each of ``count`` values, also those the model never saw."""
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps the one difference
        coefficients, intercepts = np.concatenate([-coefficients, coefficients]) / 2, np.array([-1, 1]) * intercepts / 2
    weight, bias = np.zeros((count, coefficients.shape[1])), np.full(count, _NEVER)
    weight[model.classes_], bias[model.classes_] = coefficients, intercepts
    return weight, bias


def _temperature(logits: NDArray[np.float64], truth: Ints) -> float:
    """What logits must be divided by for the least log loss on cells that were not fitted (Guo et al. 2017)."""

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        own = scaled[np.arange(len(truth)), truth]
        return float((np.log(np.exp(scaled).sum(axis=1)) - own).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-1.5, 3.0), method="bounded").x))


def _frequencies(values: Ints, rows: Ints) -> NDArray[np.float64]:
    """How often each value is seen in each class, smoothed: (C, V)."""
    frequency = np.zeros((int(rows.max()) + 1, VALUES))
    for column, columns in enumerate(COLUMNS.values()):
        np.add.at(frequency[:, columns], (rows, values[:, column]), 1)
        part = frequency[:, columns] + _SMOOTHING
        frequency[:, columns] = part / part.sum(axis=1, keepdims=True)
    return frequency


def _rows(labels: Ints, classes: Ints) -> Ints:
    return np.searchsorted(classes, labels).astype(np.int64)


def _check(features: Floats, values: Ints, labels: Ints, class_names: Sequence[str], *masks: NDArray[np.bool_]) -> Ints:
    """The described classes among the fitted, as indices into ``class_names``, rising. Raises DataError."""
    fit, choose, cut = masks
    n = len(features)
    if features.ndim != 2 or values.shape != (n, len(ATTRIBUTES)) or labels.shape != (n,):
        raise DataError(
            f"features (N, D), values (N, {len(ATTRIBUTES)}) and labels (N,) must be of the same cells, found "
            f"{features.shape}, {values.shape} and {labels.shape}"
        )
    if any(mask.shape != (n,) or not mask.any() for mask in masks):
        raise DataError("fit, choose and cut must each mark some of the cells: a bool for every cell, not all False")
    if (fit & (choose | cut)).any():
        raise DataError("cells to fit must not be among those to choose or cut on")
    used = fit | choose | cut
    if not np.isfinite(features[used]).all():
        raise DataError("features must be finite, found NaN or infinity: leave out unreadable images first")
    limits = np.array([len(attribute.values) for attribute in ATTRIBUTES.values()])
    described = values[fit | choose]
    if (described < 0).any() or (described >= limits).any():
        raise DataError("cells to fit or choose on must have a known value of every attribute")
    known = np.array([name.strip().lower() in DESCRIBED for name in class_names])
    if labels[used].min() < 0 or labels[used].max() >= len(known) or not known[labels[used]].all():
        raise DataError(f"cells must be of the classes {', '.join(DESCRIBED)}; leave out the others")
    classes = np.unique(labels[fit])
    missing = np.setdiff1d(labels[cut], classes)
    if len(missing) or len(np.setdiff1d(classes, labels[cut])):
        raise DataError("cells to fit and cells for the cut must be of the same classes; give more cells")
    return classes.astype(np.int64)
