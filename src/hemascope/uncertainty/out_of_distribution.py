"""How unlike the training cells an image is, told by what the classifier's head is given and by what it answers.

``fit_detector`` keeps little: a few directions in which the features of the training cells lie, the cells in these
directions (the bank), and class means with one covariance. What lies outside the directions is not lost: its length
is the difference of two squared norms. ``Detector`` is what is kept, ready to judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from scipy.linalg import solve_triangular
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf

from hemascope.errors import BundleError, DataError, UsageError
from hemascope.names import suggestion
from hemascope.results import SavedRecord

Floats = NDArray[np.float32]

SCORES: Final = ("energy", "max_logit", "msp", "knn", "mahalanobis", "relative_mahalanobis", "vim")
"""Higher is less like the training cells.

energy                minus the log-sum-exp of the logits (Liu et al. 2020)
max_logit             minus the largest logit (Hendrycks et al. 2022)
msp                   1 minus the largest softmax probability (Hendrycks and Gimpel 2017)
knn                   distance to the ``neighbours``-th nearest training cell, features of length 1 (Sun et al. 2022)
mahalanobis           squared distance to the nearest class mean, one covariance for all classes (Lee et al. 2018)
relative_mahalanobis  the same less the squared distance to the mean of all cells (Ren et al. 2021)
vim                   length outside the cells' directions, as a logit, less log-sum-exp (Wang et al. 2022)
"""

DEFAULT: Final = "mahalanobis"
"""The score ``in_distribution`` goes by unless another is asked for; benchmarks/out_of_distribution.py says why."""

FALSE_ALARM: Final = 0.01
COMPONENTS: Final = 64
BANK: Final = 10_000
NEIGHBOURS: Final = 10
FIT_ROWS: Final = 20_000
"""Directions and covariances are estimated from at most so many cells, drawn evenly over the classes."""

LARGEST_BANK: Final = 100_000
LARGEST_WIDTH: Final = 65_536
"""Of features; a file that asks for more is not believed."""

_ROUNDED_WELL = (1e-2, 1e3)
"""Lengths of features that float16 holds well as they are."""
_BLOCK = 1024
_WORST = float(np.finfo(np.float32).max)


class DetectorRecord(SavedRecord):
    """The numbers of a detector that are no arrays.

    score              one of SCORES, which ``cut`` belongs to: above it an image is out of distribution
    false_alarm        share of cells like those it was fitted on that lie above the cut, as it was wanted
    fitted_on          cells of the calibration part
    width, classes     columns of features and of logits
    neighbours         of ``knn``
    scale              lengths outside the directions are divided by it, as ``basis`` is already
    residual_variance  mean square of those lengths over the calibration part
    alpha              what such a length counts as a logit: ``vim``
    """

    version: Literal[1] = 1
    score: str
    cut: float = Field(allow_inf_nan=False)
    false_alarm: float = Field(gt=0, lt=1)
    fitted_on: int = Field(ge=1)
    width: int = Field(ge=1, le=LARGEST_WIDTH)
    classes: int = Field(ge=1)
    neighbours: int = Field(ge=1)
    scale: float = Field(gt=0, allow_inf_nan=False)
    residual_variance: float = Field(ge=0, allow_inf_nan=False)
    alpha: float = Field(ge=0, allow_inf_nan=False)


def fit_detector(
    features: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    *,
    calibration_features: NDArray[np.floating[Any]],
    calibration_logits: NDArray[np.floating[Any]],
    head_weight: NDArray[np.floating[Any]] | None = None,
    head_bias: NDArray[np.floating[Any]] | None = None,
    score: str = DEFAULT,
    false_alarm: float = FALSE_ALARM,
    components: int = COMPONENTS,
    bank: int = BANK,
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    """What a ``Detector`` is made of: a record ready for JSON, and arrays.

    features              (N, D) of training cells, as the head is given them
    labels                (N,) their classes, 0 or more; cells without one (below 0) help to find directions alone
    calibration_features  (C, D) of cells the network has not learnt from: they set the cut, and what counts as far
    calibration_logits    (C, K) of the same cells; later logits must be made alike (no temperature here or there)
    head_weight           (K, D) of a head of one linear layer, with head_bias (K,): the origin the directions go
                          through is then the point of no evidence (Wang et al. 2022), else the mean of the features
    false_alarm           share of good cells that may be called out of distribution
    components            directions kept, fewer where there are fewer cells or dimensions
    bank                  training cells kept to look for neighbours in; all where they are no more, else drawn evenly
                          over the classes

    The arrays, for P directions and M cells in the bank: ``basis`` (P, D) and ``centre`` (D,), so that
    ``(x - centre) @ basis.T`` is what ``bank_vectors`` (M, P) hold, float16; ``bank_labels`` int16 (M,);
    ``bank_rows`` int32 (M,), which of the N they are; ``class_means`` (classes, P), ``whitening`` (P, P),
    ``whitening_all`` (P, P). For 9,568 cells of 1,280 features 1.5 MB.

    Raises DataError for shapes that do not go together, no cells, or values that are not finite, UsageError for an
    unknown score or a setting out of range.
    """
    _check_settings(score, false_alarm, components, bank, neighbours)
    features, labels = _matrix("features", features), np.asarray(labels)
    inside, logits = _matrix("calibration features", calibration_features), _matrix("logits", calibration_logits)
    if labels.shape != (len(features),) or (labels.size and labels.max() > np.iinfo(np.int16).max):
        raise DataError(f"labels must be {len(features)} numbers of classes, found shape {labels.shape}")
    if inside.shape[1] != features.shape[1] or len(logits) != len(inside):
        raise DataError(
            f"calibration features and logits must have shapes (C, {features.shape[1]}) and (C, K), "
            f"found {inside.shape} and {logits.shape}"
        )
    if not len(inside) or len(features) < 2 or not (labels >= 0).any():
        raise DataError(
            f"a detector needs at least 2 training cells, one of them labelled, and 1 calibration cell; found "
            f"{len(features)}, {int((labels >= 0).sum())} and {len(inside)}"
        )
    rng = np.random.default_rng([seed, 83])
    rows = _drawn_evenly(labels, FIT_ROWS, rng)
    centre = _origin(features[rows], head_weight, head_bias)
    basis, scale = _directions(features[rows] - centre, components)
    arrays: dict[str, NDArray[np.generic]] = {"basis": basis, "centre": centre}
    vectors = _projected(features[rows], centre, basis)
    arrays |= _gaussians(vectors, labels[rows])
    kept = _drawn_evenly(labels, bank, rng)
    bank_vectors = _projected(features[kept], centre, basis)
    arrays["bank_vectors"] = np.clip(bank_vectors, -65504, 65504).astype(np.float16)
    arrays["bank_labels"] = labels[kept].astype(np.int16)
    arrays["bank_rows"] = kept.astype(np.int32)

    outside = _lengths_outside(inside, _projected(inside, centre, basis), centre, scale)
    largest, length = float(logits.max(axis=1).mean()), float(outside.mean())
    record = DetectorRecord(
        score=score,
        cut=0.0,
        false_alarm=false_alarm,
        fitted_on=len(inside),
        width=features.shape[1],
        classes=logits.shape[1],
        neighbours=min(neighbours, len(kept)),
        scale=scale,
        residual_variance=float(np.square(outside, dtype=np.float64).mean()),
        alpha=max(0.0, largest) / length if length > 0 else 0.0,
    )
    found = Detector(record, arrays).score(inside, logits)
    cut = float(np.sort(found)[_rank(len(found), false_alarm)])
    return record.model_copy(update={"cut": cut}).model_dump(mode="json"), arrays


class Detector:
    """Tells images that are no training cells, by ``record`` and ``arrays`` of ``fit_detector``."""

    def __init__(self, record: DetectorRecord, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        self.record = record
        self.cut = record.cut
        self.default = record.score
        self._centre = arrays["centre"].astype(np.float32)
        self._basis = arrays["basis"].astype(np.float32)
        self._bank = _unit(arrays["bank_vectors"].astype(np.float32))
        self._means = arrays["class_means"].astype(np.float32)
        self._whitening = arrays["whitening"].astype(np.float32)
        self._whitening_all = arrays["whitening_all"].astype(np.float32)
        self._mean = arrays["mean"].astype(np.float32)

    @classmethod
    def from_saved(
        cls, record: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]], *, where: object = "the bundle"
    ) -> Detector:
        """The detector in a bundle; arrays it does not know are left alone.

        Raises BundleError where something is missing, has another shape or type, is not finite or larger than
        believable.
        """
        try:
            read = DetectorRecord.model_validate(record)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise BundleError(
                f"the detector in {where} is malformed at {place or 'its top'}: {first['msg']}. {_AGAIN}"
            ) from error
        if read.score not in SCORES:
            raise BundleError(f"the detector in {where} goes by an unknown score {read.score!r}. {_AGAIN}")
        _check_arrays(read, arrays, where)
        return cls(read, arrays)

    def score(
        self, features: NDArray[np.floating[Any]], logits: NDArray[np.floating[Any]], name: str | None = None
    ) -> Floats:
        """One score of N images, float32 (N,), from features (N, D) and logits (N, K); ``name`` one of SCORES.

        Always finite: an image whose features or logits are not gets the largest number there is, and so is out of
        distribution. Raises DataError for other shapes, UsageError for an unknown score.
        """
        name = name or self.default
        if name not in SCORES:
            raise UsageError(f"no score is called {name!r}; {suggestion(name, SCORES)}")
        features, logits = np.asarray(features, np.float32), np.asarray(logits, np.float32)
        wanted = (self.record.width, self.record.classes)
        if features.ndim != 2 or logits.ndim != 2 or (features.shape[1], logits.shape[1]) != wanted:
            raise DataError(
                f"this detector takes features (N, {wanted[0]}) and logits (N, {wanted[1]}), "
                f"found {features.shape} and {logits.shape}"
            )
        if len(features) != len(logits):
            raise DataError(f"features and logits must be equally many, found {len(features)} and {len(logits)}")
        result = np.full(len(features), _WORST, dtype=np.float32)
        sound = np.flatnonzero(np.isfinite(features).all(axis=1) & np.isfinite(logits).all(axis=1))
        for start in range(0, len(sound), _BLOCK):
            rows = sound[start : start + _BLOCK]
            with np.errstate(over="ignore", invalid="ignore"):  # squares of absurd features: caught below
                result[rows] = self._score(features[rows], logits[rows], name)
        return np.nan_to_num(result, nan=_WORST, posinf=_WORST, neginf=-_WORST)

    def scores(self, features: NDArray[np.floating[Any]], logits: NDArray[np.floating[Any]]) -> dict[str, Floats]:
        """Every one of SCORES, as ``score`` gives it."""
        return {name: self.score(features, logits, name) for name in SCORES}

    def in_distribution(self, scores: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """Whether images are like the training cells: bool (N,) of the scores (N,) of the default score."""
        return np.asarray(np.asarray(scores) <= np.float32(self.cut))

    def project(self, features: NDArray[np.floating[Any]]) -> Floats:
        """Features (N, D) in the directions of the bank: float32 (N, P), comparable with ``bank_vectors``."""
        return _projected(np.asarray(features, np.float32), self._centre, self._basis)

    def _score(self, features: Floats, logits: Floats, name: str) -> Floats:
        if name in _OF_LOGITS:
            return _OF_LOGITS[name](logits)
        vectors = self.project(features)
        outside = _lengths_outside(features, vectors, self._centre, self.record.scale)
        if name == "vim":
            return np.asarray(self.record.alpha * outside + _energy(logits), dtype=np.float32)
        if name == "knn":
            return self._to_neighbour(vectors, outside)
        if name == "relative_mahalanobis":
            white = (vectors - self._mean) @ self._whitening_all
            return np.asarray(self._to_class(vectors) - np.square(white).sum(axis=1))
        return self._to_class(vectors) + self._share_outside(outside)

    def _share_outside(self, outside: Floats) -> Floats:
        """Squared lengths outside (N,), 1 at their mean square over the calibration part."""
        variance = self.record.residual_variance
        share = np.square(outside) * (len(self._basis) / variance) if variance > 0 else np.zeros_like(outside)
        return np.asarray(share, dtype=np.float32)

    def _to_class(self, vectors: Floats) -> Floats:
        white, means = vectors @ self._whitening, self._means @ self._whitening
        each = np.stack([np.square(white - mean).sum(axis=1) for mean in means])
        return np.asarray(each.min(axis=0))

    def _to_neighbour(self, vectors: Floats, outside: Floats) -> Floats:
        lengths = np.sqrt(np.square(vectors).sum(axis=1) + np.square(outside))
        cosines = (vectors / np.maximum(lengths, 1e-12)[:, None]) @ self._bank.T
        place = cosines.shape[1] - self.record.neighbours
        nearest = np.partition(cosines, place, axis=1)[:, place]
        return np.asarray(np.sqrt(np.maximum(0.0, 2 - 2 * nearest)))


_AGAIN = "Copy the bundle again, or fit it again with hemascope calibrate."


def _energy(logits: Floats) -> Floats:
    return np.asarray(-logsumexp(logits, axis=1), dtype=np.float32)


def _max_logit(logits: Floats) -> Floats:
    return np.asarray(-logits.max(axis=1))


def _msp(logits: Floats) -> Floats:
    return np.asarray(-np.expm1(logits.max(axis=1) - logsumexp(logits, axis=1)), dtype=np.float32)


_OF_LOGITS: Final = {"energy": _energy, "max_logit": _max_logit, "msp": _msp}


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _projected(features: Floats, centre: Floats, basis: NDArray[np.floating[Any]]) -> Floats:
    return np.asarray((features - centre) @ basis.astype(np.float32).T)


def _lengths_outside(features: Floats, vectors: Floats, centre: Floats, scale: float) -> Floats:
    """Length of what the directions leave out (N,), in units of ``scale``."""
    whole = np.square((features - centre) / np.float32(scale)).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(0.0, whole - np.square(vectors).sum(axis=1))))


def _origin(
    features: Floats, weight: NDArray[np.floating[Any]] | None, bias: NDArray[np.floating[Any]] | None
) -> Floats:
    if weight is None or bias is None:
        return np.asarray(features.mean(axis=0, dtype=np.float64).astype(np.float32))
    if weight.shape != (len(bias), features.shape[1]):
        raise DataError(
            f"a head must have weights (K, {features.shape[1]}) and biases (K,), found {weight.shape} and {bias.shape}"
        )
    return np.asarray(-(np.linalg.pinv(weight.astype(np.float64)) @ bias).astype(np.float32))


def _directions(centred: Floats, components: int) -> tuple[NDArray[np.floating[Any]], float]:
    """The principal directions of (N, D), as rows, divided by a scale; and the scale.

    float16 where that holds them well. The scale is 1 unless the features are so long or short that the vectors of
    the bank would not be held well in it.
    """
    length = float(np.sqrt(np.square(centred, dtype=np.float64).sum(axis=1).mean()))
    low, high = _ROUNDED_WELL
    scale = 1.0 if low <= length <= high or length == 0 else length
    if len(centred) >= centred.shape[1]:
        values, vectors = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
        basis, strength = vectors.T[::-1], values[::-1]
    else:
        _, singular, basis = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
        strength = np.square(singular)
    held = max(1, int((strength > strength[0] * 1e-10).sum()))
    basis = basis[: min(components, held)] / scale
    basis = basis * np.sign(basis[np.arange(len(basis)), np.abs(basis).argmax(axis=1)])[:, None]
    return basis.astype(np.float16 if scale == 1.0 else np.float32), scale


def _gaussians(vectors: Floats, labels: NDArray[np.integer[Any]]) -> dict[str, NDArray[np.generic]]:
    """Class means, and the whitening of the covariance within classes and of all (Ledoit and Wolf 2004)."""
    present = np.unique(labels[labels >= 0])
    means = np.stack([vectors[labels == k].mean(axis=0, dtype=np.float64) for k in present])
    known = np.flatnonzero(labels >= 0)
    within = vectors[known] - means[np.searchsorted(present, labels[known])]
    mean = vectors.mean(axis=0, dtype=np.float64)
    return {
        "class_means": means.astype(np.float32),
        "whitening": _whitening(within),
        "mean": mean.astype(np.float32),
        "whitening_all": _whitening(vectors - mean),
    }


def _whitening(centred: NDArray[np.floating[Any]]) -> Floats:
    """(P, P) that makes the covariance of (N, P) the identity: x @ whitening."""
    covariance, _ = ledoit_wolf(centred.astype(np.float64), assume_centered=True)
    size = len(covariance)
    floor = 1e-6 * max(float(np.trace(covariance)) / size, 1e-12)
    factor = np.linalg.cholesky(covariance + floor * np.eye(size))
    return np.asarray(solve_triangular(factor, np.eye(size), lower=True).T.astype(np.float32))


def _drawn_evenly(labels: NDArray[np.integer[Any]], most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """At most ``most`` places in ``labels`` (N,), rising: all, or as many of each class as go, small classes whole."""
    if len(labels) <= most:
        return np.arange(len(labels))
    turns = np.empty(len(labels), dtype=np.int64)
    for rows in _by_class(labels):
        turns[rows] = rng.permutation(len(rows))
    # By turn: first one of each class, then a second of each, until there are enough.
    return np.sort(np.lexsort((rng.permutation(len(labels)), turns))[:most])


def _by_class(labels: NDArray[np.integer[Any]]) -> Iterator[NDArray[np.intp]]:
    for k in np.unique(labels):
        yield np.flatnonzero(labels == k)


def _rank(count: int, false_alarm: float) -> int:
    """Place of the cut among ``count`` sorted scores: a new cell lies above it with at most that probability.

    As in split conformal prediction (Vovk et al. 2005); where the scores are too few for that, the largest.
    """
    return min(count, int(np.ceil((count + 1) * (1 - false_alarm)))) - 1


def _matrix(name: str, values: NDArray[np.floating[Any]]) -> Floats:
    values = np.asarray(values, dtype=np.float32)
    if values.ndim != 2 or not values.shape[1]:
        raise DataError(f"{name} must have two dimensions, found shape {values.shape}")
    if not np.isfinite(values).all():
        raise DataError(f"{name} must be finite, found NaN or infinity: leave out unreadable images first")
    return values


def _check_settings(score: str, false_alarm: float, components: int, bank: int, neighbours: int) -> None:
    if score not in SCORES:
        raise UsageError(f"no score is called {score!r}; {suggestion(score, SCORES)}")
    if not 0 < false_alarm < 1:
        raise UsageError(f"false_alarm must lie between 0 and 1, found {false_alarm}")
    for name, value, most in (("components", components, LARGEST_WIDTH), ("bank", bank, LARGEST_BANK)):
        if not 1 <= value <= most:
            raise UsageError(f"{name} must lie in 1 to {most}, found {value}")
    if neighbours < 1:
        raise UsageError(f"neighbours must be at least 1, found {neighbours}")


def _check_arrays(record: DetectorRecord, arrays: Mapping[str, NDArray[np.generic]], where: object) -> None:
    """Raise BundleError unless every array is there, of its shape and finite."""
    missing = [name for name in _NAMES if name not in arrays]
    if missing:
        raise BundleError(f"the detector in {where} lacks {missing[0]}. {_AGAIN}")
    basis, bank, means = arrays["basis"], arrays["bank_vectors"], arrays["class_means"]
    directions = basis.shape[0] if basis.ndim == 2 else 0
    cells = bank.shape[0] if bank.ndim == 2 else 0
    classes = means.shape[0] if means.ndim == 2 else 0
    shapes = {
        "basis": (directions, record.width),
        "centre": (record.width,),
        "bank_vectors": (cells, directions),
        "bank_labels": (cells,),
        "class_means": (classes, directions),
        "mean": (directions,),
        "whitening": (directions, directions),
        "whitening_all": (directions, directions),
    }
    if not 1 <= directions <= record.width or not record.neighbours <= cells <= LARGEST_BANK or not classes:
        raise BundleError(f"the detector in {where} has arrays of sizes that cannot be. {_AGAIN}")
    for name, shape in shapes.items():
        found = arrays[name]
        wanted = np.integer if name == "bank_labels" else np.floating
        if found.shape != shape or not np.issubdtype(found.dtype, wanted):
            raise BundleError(
                f"{name} of the detector in {where} must have shape {shape}, found {found.dtype} {found.shape}. "
                f"{_AGAIN}"
            )
        if not np.isfinite(found.astype(np.float32)).all():
            raise BundleError(f"{name} of the detector in {where} holds values that are not finite. {_AGAIN}")


_NAMES: Final = (
    "basis", "centre", "bank_vectors", "bank_labels", "class_means", "mean", "whitening", "whitening_all",
)  # fmt: skip
