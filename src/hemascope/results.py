"""What is measured and predicted: frozen, torch-free, and as JSON on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from hemascope.errors import DataError

REVIEW_REASONS = ("out_of_distribution", "set_larger_than_one", "views_disagree", "low_confidence", "words_disagree")
"""Why a person should look at a cell; of several the first in this order is given."""


@dataclass(frozen=True)
class Trust:
    """How far each of N predictions is to be believed. In rows of unreadable images: empty sets, NaN, False, "".

    prediction_sets  bool (N, K): the classes that cannot be ruled out, at the bundle's own level
    ood_score        float32 (N,): higher is less like the training cells
    in_distribution  bool (N,): whether the score is below the bundle's cut
    view_agreement   float32 (N,): share of the views that name the predicted class, 1 with one view
    doubt            float32 (N,): what a review queue is sorted by, highest first
    review_reason    N of REVIEW_REASONS, "" where no person needs to look
    morphology       N descriptions in words, "" where there is none
    """

    prediction_sets: NDArray[np.bool_]
    ood_score: NDArray[np.float32]
    in_distribution: NDArray[np.bool_]
    view_agreement: NDArray[np.float32]
    doubt: NDArray[np.float32]
    review_reason: Sequence[str]
    morphology: Sequence[str]

    def rows(self, places: NDArray[np.integer]) -> Trust:
        """Those of some images: int (n,)."""
        return Trust(
            self.prediction_sets[places],
            self.ood_score[places],
            self.in_distribution[places],
            self.view_agreement[places],
            self.doubt[places],
            [self.review_reason[place] for place in places],
            [self.morphology[place] for place in places],
        )

    def spread_out(self, readable: NDArray[np.bool_]) -> Trust:
        """These rows where ``readable``, bool (N,), is true, and rows of unreadable images among them."""
        if readable.all():
            return self
        rows = np.flatnonzero(readable)

        def floats(values: NDArray[np.float32]) -> NDArray[np.float32]:
            whole = np.full(len(readable), np.nan, dtype=np.float32)
            whole[rows] = values
            return whole

        def texts(values: Sequence[str]) -> list[str]:
            whole = [""] * len(readable)
            for row, value in zip(rows, values, strict=True):
                whole[row] = value
            return whole

        sets = np.zeros((len(readable), self.prediction_sets.shape[1]), dtype=bool)
        sets[rows] = self.prediction_sets
        inside = np.zeros(len(readable), dtype=bool)
        inside[rows] = self.in_distribution
        return Trust(
            sets,
            floats(self.ood_score),
            inside,
            floats(self.view_agreement),
            floats(self.doubt),
            texts(self.review_reason),
            texts(self.morphology),
        )

    @staticmethod
    def joined(parts: Iterable[Trust | None]) -> Trust | None:
        """Batches as one; None where there are none, or one of them has nothing to say."""
        found = list(parts)
        known = [part for part in found if part is not None]
        if not found or len(known) < len(found):
            return None
        return Trust(
            np.concatenate([part.prediction_sets for part in known]),
            np.concatenate([part.ood_score for part in known]),
            np.concatenate([part.in_distribution for part in known]),
            np.concatenate([part.view_agreement for part in known]),
            np.concatenate([part.doubt for part in known]),
            [reason for part in known for reason in part.review_reason],
            [words for part in known for words in part.morphology],
        )


@dataclass(frozen=True)
class Predictions:
    """What a model said about N images, K classes.

    ids          N names, as given
    class_names  K names
    logits       float32 (N, K), NaN in the rows of images that could not be read
    probs        float32 (N, K), rows sum to 1, NaN where unreadable
    labels       int64 (N,) true labels, -1 unknown, or None
    errors       N reasons why an image could not be read, "" where it could
    trust        what the model's calibration adds, or None where it has none
    features     float32 (N, D): what the head was given, mean over the views, or None where nobody asked
    stages       float32 (N, E): what the stages of the network saw of the image as it is; with the features alone
    view_agreement  float32 (N,), as in Trust; with the features alone
    """

    ids: Sequence[str]
    class_names: tuple[str, ...]
    logits: NDArray[np.float32]
    probs: NDArray[np.float32]
    labels: NDArray[np.int64] | None = None
    errors: Sequence[str] = ()
    trust: Trust | None = None
    features: NDArray[np.float32] | None = None
    stages: NDArray[np.float32] | None = None
    view_agreement: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.ids), len(self.class_names))
        for name, value in (("logits", self.logits), ("probs", self.probs)):
            if value.shape != shape:
                raise DataError(f"{name} must have shape {shape}, found {value.shape}")
        for name, rows in (("labels", self.labels), ("errors", self.errors)):
            if rows is not None and len(rows) not in ((0, len(self.ids)) if name == "errors" else (len(self.ids),)):
                raise DataError(f"{name} must have {len(self.ids)} entries, found {len(rows)}")

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, places: NDArray[np.integer]) -> Predictions:
        """Those of some images: int (n,)."""

        def taken(values: NDArray[Any] | None) -> Any:
            return None if values is None else values[places]

        return Predictions(
            ids=[self.ids[place] for place in places],
            class_names=self.class_names,
            logits=self.logits[places],
            probs=self.probs[places],
            labels=taken(self.labels),
            errors=[self.errors[place] for place in places] if self.errors else (),
            trust=None if self.trust is None else self.trust.rows(places),
            features=taken(self.features),
            stages=taken(self.stages),
            view_agreement=taken(self.view_agreement),
        )

    @property
    def readable(self) -> NDArray[np.bool_]:
        """bool (N,): which images were read."""
        if not self.errors:
            return np.ones(len(self.ids), dtype=bool)
        return np.array([not error for error in self.errors], dtype=bool)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """int64 (N,): the most probable class, -1 where the image could not be read."""
        best = np.full(len(self.ids), -1, dtype=np.int64)
        readable = self.readable
        if readable.any():
            best[readable] = self.probs[readable].argmax(axis=1)
        return best


class SavedRecord(BaseModel):
    """Frozen, and strict about unknown keys: a file of another version is refused, not misread."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(SavedRecord):
    """A measured value with its 95 % interval and the number of images behind it.

    ``value`` is None where it is not defined (say, the precision of a class that was never predicted),
    ``low`` and ``high`` where no interval could be made.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int


class ClassEvaluation(SavedRecord):
    """One class against the rest."""

    name: str
    support: int
    precision: Estimate
    recall: Estimate
    f1: Estimate
    auroc: Estimate


class SplitEvaluation(SavedRecord):
    """All metrics of one split. ``confusion`` is (K, K): rows true, columns predicted.

    ``metrics`` holds accuracy, balanced_accuracy, macro_precision, macro_recall, macro_f1, macro_auroc and
    log_loss, each an Estimate.
    """

    split: str
    n: int
    metrics: dict[str, Estimate]
    per_class: list[ClassEvaluation]
    confusion: list[list[int]]


class Mistake(SavedRecord):
    """One image for a gallery. ``picture`` is the name of a PNG beside the file that holds this list."""

    id: str
    picture: str
    true_label: str
    predicted_label: str
    probability: float
    true_probability: float


class Evaluation(SavedRecord):
    """What ``evaluation.json`` holds. Pure JSON; the report is made of nothing else but the run's records.

    ``worst_mistakes``: the true class got the least probability. ``certain_mistakes``: the wrong class got the
    most. Both of the split named ``mistakes_of``. ``left_out`` counts images that could not be scored.
    """

    version: int = 1
    class_names: list[str]
    splits: dict[str, SplitEvaluation]
    mistakes_of: str = ""
    worst_mistakes: list[Mistake] = []
    certain_mistakes: list[Mistake] = []
    left_out: int = 0
    bootstrap_resamples: int
    seed: int
    data_source: str = ""
    data_fingerprint: str = ""


class Comparison(SavedRecord):
    """Two runs on the same cells, paired. ``difference`` is second minus first for each metric.

    McNemar counts the cells only one of the two got right; ``p_value`` is the exact two-sided binomial one.
    """

    first: str
    second: str
    n: int
    first_metrics: dict[str, Estimate]
    second_metrics: dict[str, Estimate]
    difference: dict[str, Estimate]
    only_first_correct: int
    only_second_correct: int
    both_correct: int
    neither_correct: int
    p_value: float


def json_ready(values: Mapping[str, float]) -> dict[str, float | None]:
    """The same numbers with NaN as None, because NaN is not JSON."""
    return {name: None if np.isnan(value) else float(value) for name, value in values.items()}
