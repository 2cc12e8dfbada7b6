"""How unlike the training cells an image is, told by what a network sees in it and by what it answers.

``fit_detector`` keeps little: directions in which the features of the training cells lie, the cells in these
directions (the bank), and normal laws. ``Detector`` is what is kept, ready to judge.

A network trained to look past damage looks past overlays and other stains too: the features its head is given hardly
show them. Its early stages do. Their means and deviations over the picture (``early``) are what the default score goes
by where it is given them; benchmarks/out_of_distribution.py has the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from hemascope.errors import DataError, UsageError
from hemascope.names import suggestion
from hemascope.uncertainty.detector_record import (
    LARGEST_BANK,
    LARGEST_WIDTH,
    SCORES,
    DetectorRecord,
    read_detector,
)
from hemascope.uncertainty.feature_space import (
    Directions,
    Floats,
    NormalLaws,
    Numbers,
    drawn_evenly,
    fit_normal_laws,
    principal_directions,
)

DEFAULT: Final = "early"
DEFAULT_WITHOUT_EARLY: Final = "residual"

FALSE_ALARM: Final = 0.01
COMPONENTS: Final = 48
EARLY_COMPONENTS: Final = 192
BANK: Final = 10_000
NEIGHBOURS: Final = 10
FIT_ROWS: Final = 20_000
"""Directions and laws are estimated from at most so many cells, drawn evenly over the classes."""

_BLOCK = 1024
_WORST = float(np.finfo(np.float32).max)
_HALF = float(np.finfo(np.float16).max)


def fit_detector(
    features: Numbers,
    labels: NDArray[np.integer[Any]],
    *,
    calibration_features: Numbers,
    calibration_logits: Numbers,
    early: Numbers | None = None,
    calibration_early: Numbers | None = None,
    head_weight: Numbers | None = None,
    head_bias: Numbers | None = None,
    score: str | None = None,
    false_alarm: float = FALSE_ALARM,
    components: int = COMPONENTS,
    bank: int = BANK,
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    """What a ``Detector`` is made of: a record ready for JSON, and arrays.

    features              (N, D) of training cells, as the head is given them
    labels                (N,) their classes; those below 0 have none
    calibration_features  (C, D) of cells the network has not learnt from: they set the cut, and what is far
    calibration_logits    (C, K) of the same cells; later logits must be made alike (here and there no temperature)
    early                 (N, E) of the training cells: means and deviations over the picture of the first three
                          stages' maps, as ``models.features.StageFeatures`` has them; with calibration_early (C, E), or
                          neither
    head_weight           (K, D) of a head of one linear layer, with head_bias (K,): features are measured from the
                          point without evidence (Wang et al. 2022), otherwise from 0
    score                 what ``in_distribution`` goes by; None: DEFAULT, without early features the next best
    false_alarm           share of good cells that may be called out of distribution
    components            directions kept of the features, fewer where there are fewer cells or dimensions
    bank                  training cells kept to look for neighbours in: all where they are no more, else drawn evenly
                          over the classes

    The arrays, for P directions and M cells in the bank: ``basis`` float16 (P, D) and ``centre`` (D,), so that
    ``(x - centre) @ basis.T`` is what ``bank_vectors`` float16 (M, P) hold; ``bank_labels`` int16 (M,);
    ``bank_rows`` int32 (M,), which of the N they are; ``class_means`` (classes, P), ``whitening`` (P, P); and
    ``early_centre``, ``early_spread``, ``early_basis``, ``early_means``, ``early_whitening``. For 9,568 cells, D 1,280
    and E 160 they are 1.3 MB.

    Raises DataError for shapes that do not go together, too few cells, or values that are not finite or too large,
    UsageError for an unknown score or a setting out of range.
    """
    score = score or (DEFAULT_WITHOUT_EARLY if early is None else DEFAULT)
    _check_settings(score, early is not None, false_alarm, components, bank, neighbours)
    features, labels = _matrix("features", features), np.asarray(labels)
    inside, logits = _matrix("calibration features", calibration_features), _matrix("logits", calibration_logits)
    _check_cells(features, labels, inside, logits)
    rng = np.random.default_rng([seed, 83])
    rows = drawn_evenly(labels, FIT_ROWS, rng)

    centre = _origin(features.shape[1], head_weight, head_bias)
    basis = principal_directions(features[rows] - centre, components)
    directions = Directions.restored(centre, basis)
    vectors, outside = directions.project(inside)
    units = _unit(*directions.project(features[rows]))[0]
    laws = fit_normal_laws(units, labels[rows], _unit(vectors, outside)[1], directions.outside_dimensions)
    kept = drawn_evenly(labels, bank, rng)
    length = float(outside.mean())
    arrays: dict[str, NDArray[np.generic]] = {
        "basis": basis,
        "centre": centre,
        "bank_vectors": directions.project(features[kept])[0].astype(np.float16),
        "bank_labels": labels[kept].astype(np.int16),
        "bank_rows": kept.astype(np.int32),
        "class_means": laws.means,
        "whitening": laws.whitening,
    }
    record = DetectorRecord(
        score=score,
        cut=0.0,
        false_alarm=false_alarm,
        fitted_on=len(inside),
        width=features.shape[1],
        classes=logits.shape[1],
        neighbours=min(neighbours, len(kept)),
        alpha=max(0.0, float(logits.max(axis=1).mean())) / length if length > 0 else 0.0,
        outside_variance=laws.outside_variance,
    )
    if early is not None or calibration_early is not None:
        early, inside_early = _early_matrices(early, calibration_early, len(features), len(inside))
        early_arrays, variance = _fit_early(early[rows], labels[rows], inside_early)
        arrays |= early_arrays
        record = record.model_copy(update={"early_width": early.shape[1], "early_outside_variance": variance})
        calibration_early = inside_early
    found = np.sort(Detector(record, arrays).score(inside, logits, early=calibration_early))
    cut = float(found[_rank(len(found), false_alarm)])
    return record.model_copy(update={"cut": cut}).model_dump(mode="json"), arrays


class Detector:
    """Tells images that are no training cells, by what ``fit_detector`` found.

    default    the score ``in_distribution`` goes by
    cut        above it an image is out of distribution
    available  the scores that were fitted
    """

    def __init__(self, record: DetectorRecord, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        self.record = record
        self.cut = record.cut
        self.default = record.score
        self.available = tuple(name for name in SCORES if name != "early" or record.early_width)

        def floats(name: str) -> Floats:
            return np.asarray(arrays[name], dtype=np.float32)

        self._directions = Directions.restored(floats("centre"), floats("basis"))
        self._laws = NormalLaws(floats("class_means"), floats("whitening"), record.outside_variance)
        bank = floats("bank_vectors")
        self._bank = _unit(bank, np.zeros(len(bank), dtype=np.float32))[0]
        if record.early_width:
            self._early = Directions.restored(floats("early_centre"), floats("early_basis"), floats("early_spread"))
            self._early_laws = NormalLaws(
                floats("early_means"), floats("early_whitening"), record.early_outside_variance
            )

    @classmethod
    def from_saved(
        cls, record: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]], *, where: object = "the bundle"
    ) -> Detector:
        """The detector in a bundle; arrays it does not know are left alone.

        Raises BundleError where something is missing, has another shape or type, is not finite or is larger than
        believable.
        """
        return cls(read_detector(record, arrays, where), arrays)

    def score(
        self, features: Numbers, logits: Numbers, name: str | None = None, *, early: Numbers | None = None
    ) -> Floats:
        """One score of N images, float32 (N,), from features (N, D), logits (N, K) and early features (N, E).

        name   one of ``available``; None: the default
        early  only needed for the score of this name

        Always finite: an image whose features or logits are not gets the largest number there is, and so is out of
        distribution. Raises DataError for other shapes, UsageError for a score that is not there.
        """
        name = name or self.default
        if name not in self.available:
            raise UsageError(f"this detector has no score {name!r}; {suggestion(name, self.available)}")
        features, logits = np.asarray(features, np.float32), np.asarray(logits, np.float32)
        given = {"features": (features, self.record.width), "logits": (logits, self.record.classes)}
        if name == "early":
            early = np.zeros((0, 0)) if early is None else np.asarray(early, np.float32)
            given = {"early features": (early, self.record.early_width)}
        for what, (values, width) in given.items():
            if values.ndim != 2 or values.shape != (len(features), width):
                raise DataError(f"this detector takes {what} of shape ({len(features)}, {width}), found {values.shape}")
        columns = [values for values, _ in given.values()]
        result = np.full(len(features), _WORST, dtype=np.float32)
        sound = np.flatnonzero(np.all([np.isfinite(values).all(axis=1) for values in columns], axis=0))
        for start in range(0, len(sound), _BLOCK):
            rows = sound[start : start + _BLOCK]
            with np.errstate(over="ignore", invalid="ignore"):  # squares of absurd features; made finite below
                result[rows] = self._score(name, *(values[rows] for values in columns))
        return np.nan_to_num(result, nan=_WORST, posinf=_WORST, neginf=-_WORST)

    def scores(self, features: Numbers, logits: Numbers, *, early: Numbers | None = None) -> dict[str, Floats]:
        """Every score that can be had, as ``score`` gives it: all of ``available``, less ``early`` without them."""
        names = [name for name in self.available if name != "early" or early is not None]
        return {name: self.score(features, logits, name, early=early) for name in names}

    def in_distribution(self, scores: Numbers) -> NDArray[np.bool_]:
        """Whether images are like the training cells: bool (N,) of the scores (N,) of the default score."""
        return np.asarray(np.asarray(scores) <= np.float32(self.cut))

    def project(self, features: Numbers) -> Floats:
        """Features (N, D) in the directions of the bank: float32 (N, P), comparable with ``bank_vectors``."""
        return self._directions.project(features)[0]

    def _score(self, name: str, *columns: Floats) -> Floats:
        if name == "early":
            return self._early_laws.distances(*self._early.project(columns[0]))
        features, logits = columns
        if name in _OF_LOGITS:
            return _OF_LOGITS[name](logits)
        vectors, outside = self._directions.project(features)
        if name == "vim":
            return np.asarray(self.record.alpha * outside + _energy(logits), dtype=np.float32)
        units, share = _unit(vectors, outside)
        if name == "residual":
            return share
        return self._laws.distances(units, share) if name == "mahalanobis" else self._to_neighbour(units)

    def _to_neighbour(self, units: Floats) -> Floats:
        cosines = units @ self._bank.T
        place = cosines.shape[1] - self.record.neighbours
        nearest = np.partition(cosines, place, axis=1)[:, place]
        return np.asarray(np.sqrt(np.maximum(0.0, 2 - 2 * nearest)), dtype=np.float32)


def _energy(logits: Floats) -> Floats:
    return np.asarray(-logsumexp(logits, axis=1), dtype=np.float32)


def _max_logit(logits: Floats) -> Floats:
    return np.asarray(-logits.max(axis=1))


def _msp(logits: Floats) -> Floats:
    # From what the other classes have: one minus a probability near one would hold nothing but rounding.
    others = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    others[np.arange(len(others)), logits.argmax(axis=1)] = 0.0
    total = others.sum(axis=1)
    return np.asarray(total / (1 + total), dtype=np.float32)


_OF_LOGITS: Final = {"energy": _energy, "max_logit": _max_logit, "msp": _msp}


def _unit(vectors: Floats, outside: Floats) -> tuple[Floats, Floats]:
    """The same of features of length 1."""
    lengths = np.maximum(np.sqrt(np.square(vectors).sum(axis=1) + np.square(outside)), 1e-12)
    return np.asarray(vectors / lengths[:, None]), np.asarray(outside / lengths)


def _origin(width: int, weight: Numbers | None, bias: Numbers | None) -> Floats:
    if weight is None or bias is None:
        return np.zeros(width, dtype=np.float32)
    if weight.shape != (len(bias), width):
        raise DataError(f"a head must have weights (K, {width}) and biases (K,), found {weight.shape} and {bias.shape}")
    return np.asarray(-(np.linalg.pinv(weight.astype(np.float64)) @ bias).astype(np.float32))


def _fit_early(
    early: Floats, labels: NDArray[np.integer[Any]], inside: Floats
) -> tuple[dict[str, NDArray[np.generic]], float]:
    """The arrays of the score ``early``, and its ``outside_variance``."""
    centre = early.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = early.std(axis=0, dtype=np.float64).astype(np.float32)
    # A column that never varies says nothing: in units of the others it must not become everything.
    spread = np.maximum(spread, max(1e-3 * float(np.median(spread)), 1e-6))
    basis = principal_directions((early - centre) / spread, EARLY_COMPONENTS)
    directions = Directions.restored(centre, basis, spread)
    vectors, _ = directions.project(early)
    laws = fit_normal_laws(vectors, labels, directions.project(inside)[1], directions.outside_dimensions)
    arrays: dict[str, NDArray[np.generic]] = {
        "early_centre": centre,
        "early_spread": spread,
        "early_basis": basis,
        "early_means": laws.means,
        "early_whitening": laws.whitening,
    }
    return arrays, laws.outside_variance


def _rank(count: int, false_alarm: float) -> int:
    """Place of the cut among ``count`` sorted scores: a new cell lies above it with at most that probability.

    As in split conformal prediction (Vovk et al. 2005); where the scores are too few for that, the largest.
    """
    return max(1, min(count, int(np.ceil((count + 1) * (1 - false_alarm))))) - 1


def _matrix(name: str, values: Numbers) -> Floats:
    values = np.asarray(values, dtype=np.float32)
    if values.ndim != 2 or not values.shape[1]:
        raise DataError(f"{name} must have two dimensions, found shape {values.shape}")
    if not np.isfinite(values).all():
        raise DataError(f"{name} must be finite, found NaN or infinity: leave out unreadable images first")
    if len(values) and np.square(values, dtype=np.float64).sum(axis=1).max() > (_HALF / 2) ** 2:
        raise DataError(f"{name} must be shorter than {_HALF / 2:.0f}, which float16 holds: scale them down first")
    return values


def _early_matrices(
    early: Numbers | None, inside: Numbers | None, cells: int, calibration_cells: int
) -> tuple[Floats, Floats]:
    if early is None or inside is None:
        raise DataError("early features must be given of the training and of the calibration cells, or of neither")
    early, inside = _matrix("early features", early), _matrix("early features", inside)
    if early.shape[1] != inside.shape[1] or (len(early), len(inside)) != (cells, calibration_cells):
        raise DataError(
            f"early features must have shapes ({cells}, E) and ({calibration_cells}, E), "
            f"found {early.shape} and {inside.shape}"
        )
    return early, inside


def _check_cells(features: Floats, labels: NDArray[np.integer[Any]], inside: Floats, logits: Floats) -> None:
    if labels.shape != (len(features),) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels must be {len(features)} whole numbers, found {labels.dtype} {labels.shape}")
    if labels.size and not -1 <= labels.min() <= labels.max() <= np.iinfo(np.int16).max:
        raise DataError(f"labels must lie in -1 to {np.iinfo(np.int16).max}, found {labels.min()} to {labels.max()}")
    if inside.shape[1] != features.shape[1] or len(logits) != len(inside):
        raise DataError(
            f"calibration features and logits must have shapes (C, {features.shape[1]}) and (C, K), "
            f"found {inside.shape} and {logits.shape}"
        )
    known = int((labels >= 0).sum())
    if not len(inside) or known < 2:
        raise DataError(
            f"a detector needs at least 2 labelled training cells and 1 calibration cell; found {known} and "
            f"{len(inside)}"
        )


def _check_settings(
    score: str, with_early: bool, false_alarm: float, components: int, bank: int, neighbours: int
) -> None:
    if score not in SCORES:
        raise UsageError(f"no score is called {score!r}; {suggestion(score, SCORES)}")
    if score == "early" and not with_early:
        raise UsageError("the score 'early' needs early features; give them or choose another score")
    if not 0 < false_alarm < 1:
        raise UsageError(f"false_alarm must lie between 0 and 1, found {false_alarm}")
    for name, value, most in (("components", components, LARGEST_WIDTH), ("bank", bank, LARGEST_BANK)):
        if not 1 <= value <= most:
            raise UsageError(f"{name} must lie in 1 to {most}, found {value}")
    if neighbours < 1:
        raise UsageError(f"neighbours must be at least 1, found {neighbours}")
