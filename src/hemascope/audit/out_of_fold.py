"""Class probabilities for every image by a model that has not seen it, from embeddings. No torch.

The model is linear discriminant analysis with a shrunken common covariance (Friedman 1989): too stiff to learn single
labels, which is what finding wrong ones asks for, and fitted from sums alone. The sums of each fold are made once; a
model is the sums of the other folds, and leaving images out later takes only their own share away again. scikit-learn's
class of the same name has no weights and would go over the images again for every fold and round.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from hemascope.audit.standardised import standardised
from hemascope.progress import SILENT, Advance, Progress

FOLDS = 5

LARGEST_FIT = 50_000
"""Images a model is fitted on, at most; the rest are judged all the same."""

SHRINKAGES = (0.1, 0.2, 0.4)
"""Shares of the covariance that may be replaced by a sphere; the one under which the given labels are likeliest, out of
fold, is taken. Fewer images need more: on 1,000 real cells 0.4 is best, on 7,000 0.2."""

DOUBTED = 1 / 3
"""An image whose label is less likely than this share of the likeliest class does not teach in the second round. It
costs nothing at 3 % of wrong labels, and at 10 % between confusable classes average precision rises from 0.95 to 0.97
(half of the real cells)."""

_FEWEST_DRAWN = 500  # images of a rare class that are kept when the rest is sampled
_BLOCK = 4096
_TEMPERATURES = (0.0, 8.0)  # logarithms; probabilities are never sharper than the model itself gives

Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]
Ints = NDArray[np.int64]


class OutOfFold(NamedTuple):
    """What models that never saw them say of n images, K classes.

    probabilities  float32 (n, K)
    shrinkage      chosen of SHRINKAGES
    doubted        share of the images that did not teach in the second round
    """

    probabilities: Floats
    shrinkage: float
    doubted: float


def out_of_fold_probabilities(
    vectors: NDArray[np.floating],
    labels: Ints,
    fold: Ints,
    *,
    seed: int,
    rows: Ints | None = None,
    weights: Numbers | None = None,
    progress: Progress = SILENT,
) -> OutOfFold:
    """Probability of each class for each of n images, by models that saw nothing of the image's fold.

    vectors  (N, D), a memory map is read in blocks
    labels   int64 (n,), 0 to K - 1; every class lies in at least two folds
    fold     int64 (n,), 0 to FOLDS - 1; what must not vouch for each other (copies, a patient) is in one
    rows     int64 (n,), rising: the rows of ``vectors`` that count. None for all
    weights  (n,), how much each image teaches. None for 1

    Two rounds: the second leaves out of the fit the images whose label the first found unlikely. That choice was made
    by models that saw the other folds, so an image has a faint say in it; none in what is fitted. Scores are brought to
    probabilities by one temperature, the one under which the given labels are likeliest (Guo et al. 2017). Time is
    linear in n: sums are of LARGEST_FIT images a model at most, drawn by ``seed``. Memory: FOLDS matrices of D x D.
    """
    rows = np.arange(len(labels), dtype=np.int64) if rows is None else rows
    weights = np.ones(len(labels)) if weights is None else weights
    scaled = standardised(vectors, seed=seed)
    rng = np.random.default_rng(seed)
    drawn, rate = _drawn(labels, rng)
    with progress.task("judging labels", 2 * len(drawn) + len(labels), "images") as advance:
        sums = _Sums(len(rate), scaled.shape[1], rate)
        stands_for = weights[drawn] / rate[labels[drawn]]
        taught = _Taught(rows[drawn], fold[drawn], labels[drawn], weights[drawn])
        sums.add(scaled, taught, advance=advance)
        models = [sums.models(shrinkage) for shrinkage in SHRINKAGES]
        found = _scores(scaled, taught.rows, taught.fold, models, advance)
        fits = [_temperature(scores, taught.labels, stands_for) for scores in found]
        best = int(np.argmin([loss for _, loss in fits]))
        out = _doubted(found[best] / np.float32(fits[best][0]), taught)
        sums.add(scaled, taught.of(out), sign=-1)
        scores = _scores(scaled, rows, fold, [sums.models(SHRINKAGES[best])], advance)[0]
    temperature, _ = _temperature(scores[drawn], taught.labels, stands_for)
    scores /= np.float32(temperature)
    scores -= logsumexp(scores, axis=1, keepdims=True)
    return OutOfFold(np.exp(scores), SHRINKAGES[best], float(out.mean()))


def _drawn(labels: Ints, rng: np.random.Generator) -> tuple[Ints, Numbers]:
    """Rows the sums are made of, rising, and the share drawn of each class: int64 (m,), float64 (K,)."""
    counts = np.bincount(labels)
    limit = LARGEST_FIT * FOLDS // (FOLDS - 1)
    wanted = np.minimum(counts, np.maximum(_FEWEST_DRAWN, counts * limit // len(labels)))
    if len(labels) <= limit:
        wanted = counts
    shuffled = rng.permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    place = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels[order]]
    return np.sort(order[place < wanted[labels[order]]]), wanted / np.maximum(counts, 1)


class _Taught(NamedTuple):
    """m images that models are fitted on: their rows, folds, labels, and how much each teaches; all (m,)."""

    rows: Ints
    fold: Ints
    labels: Ints
    weights: Numbers

    def of(self, which: NDArray[np.bool_]) -> _Taught:
        return _Taught(self.rows[which], self.fold[which], self.labels[which], self.weights[which])


class _Model(NamedTuple):
    """Scores of K classes are ``x @ weight + offset``: float32 (D, K) and (K,)."""

    weight: Floats
    offset: Floats


class _Sums:
    """Number, sum and squares of the images of each fold: all that discriminant analysis takes."""

    def __init__(self, classes: int, width: int, rate: Numbers) -> None:
        self.rate = rate
        self.count = np.zeros((FOLDS, classes))
        self.total = np.zeros((FOLDS, classes, width))
        self.square = np.zeros((FOLDS, width, width), dtype=np.float32)

    def add(self, scaled: Floats, taught: _Taught, *, sign: int = 1, advance: Advance = lambda count: None) -> None:
        """Add images, or take them away again with ``sign`` -1."""
        for part in range(FOLDS):
            own = np.flatnonzero(taught.fold == part)
            for start in range(0, len(own), _BLOCK):
                chosen = own[start : start + _BLOCK]
                weights = taught.weights[chosen].astype(np.float32)
                block = scaled[taught.rows[chosen]]
                member = np.zeros((len(chosen), self.count.shape[1]), dtype=np.float32)
                member[np.arange(len(chosen)), taught.labels[chosen]] = sign * weights
                self.count[part] += member.sum(axis=0, dtype=np.float64)
                self.total[part] += member.T @ block
                block *= np.sqrt(weights)[:, None]
                self.square[part] += sign * (block.T @ block)
                advance(len(chosen))

    def models(self, shrinkage: float) -> list[_Model]:
        """For each fold the model of all the others."""
        count, total = self.count.sum(axis=0), self.total.sum(axis=0)
        square = self.square.sum(axis=0)
        return [
            self._model(count - self.count[part], total - self.total[part], square - self.square[part], shrinkage)
            for part in range(FOLDS)
        ]

    def _model(self, count: Numbers, total: Numbers, square: Floats, shrinkage: float) -> _Model:
        mean = total / count[:, None]
        common = (square - (mean * count[:, None]).T @ mean) / count.sum()
        spread = max(float(np.trace(common)) / len(common), 1e-9)
        common *= 1 - shrinkage
        common[np.diag_indices_from(common)] += shrinkage * spread
        weight = cho_solve(cho_factor(common, overwrite_a=True), mean.T)
        prior = count / self.rate
        offset = np.log(prior / prior.sum()) - (mean.T * weight).sum(axis=0) / 2
        return _Model(weight.astype(np.float32), offset.astype(np.float32))


def _scores(scaled: Floats, rows: Ints, fold: Ints, sets: list[list[_Model]], advance: Advance) -> list[Floats]:
    """Scores (n, K) of each set of models, every image by the model of its fold."""
    classes = len(sets[0][0].offset)
    weight = np.concatenate([model.weight for models in sets for model in models], axis=1)
    offset = np.concatenate([model.offset for models in sets for model in models])
    found = np.empty((len(sets), len(rows), classes), dtype=np.float32)
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        said = (scaled[rows[part]] @ weight + offset).reshape(-1, len(sets), FOLDS, classes)
        found[:, part] = said[np.arange(len(said)), :, fold[part]].transpose(1, 0, 2)
        advance(len(said))
    return list(found)


def _temperature(scores: Floats, labels: Ints, weights: Numbers) -> tuple[float, float]:
    """The temperature under which the labels are likeliest, and their log loss there."""
    index = np.arange(len(labels))

    def loss(power: float) -> float:
        logs = scores / np.float32(np.exp(power))
        return float(np.average(logsumexp(logs, axis=1) - logs[index, labels], weights=weights))

    found = minimize_scalar(loss, bounds=_TEMPERATURES, method="bounded")
    return float(np.exp(found.x)), float(found.fun)


def _doubted(scores: Floats, taught: _Taught) -> NDArray[np.bool_]:
    """Whose label is too unlikely to teach: bool (m,). A class stays whole where any model would lose half of it."""
    classes = scores.shape[1]
    out: NDArray[np.bool_] = scores[np.arange(len(scores)), taught.labels] < scores.max(axis=1) + np.log(DOUBTED)

    def held(which: NDArray[np.bool_]) -> Numbers:
        """Weight of each class in the fit for each fold."""
        place, weights = (taught.fold * classes + taught.labels)[which], taught.weights[which]
        table = np.bincount(place, weights, minlength=FOLDS * classes).reshape(FOLDS, classes)
        return np.asarray(table.sum(axis=0) - table)

    enough: NDArray[np.bool_] = np.all(held(~out) >= held(np.ones(len(out), dtype=bool)) / 2, axis=0)
    return out & enough[taught.labels]
