"""Attributes from features: linear, numpy only, and able to say when words and label contradict each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from hemascope.errors import BundleError, DataError
from hemascope.morphology.attributes import ATTRIBUTES, DESCRIBED, describe, words_for
from hemascope.results import SavedRecord

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

PREFIX = "words_"
"""Before the name of each array."""

_USUAL = 0.5
"""A value more frequent than this in a class says nothing against it."""

_ADVICE = "Copy the bundle again, or fit it again with hemascope calibrate."


def _slices() -> dict[str, slice]:
    ends = np.cumsum([len(attribute.values) for attribute in ATTRIBUTES.values()]).tolist()
    return {
        name: slice(end - len(each.values), end) for (name, each), end in zip(ATTRIBUTES.items(), ends, strict=True)
    }


COLUMNS = _slices()
"""Where the values of each attribute lie among the V values of all."""

VALUES = sum(len(attribute.values) for attribute in ATTRIBUTES.values())
"""V: values of all attributes together."""


class FittedAttribute(SavedRecord):
    """How one attribute was fitted.

    values       in the order of their columns
    inverse_l2   scikit-learn's C, on principal components of mean variance 1
    temperature  logits were divided by it, so that probabilities hold on cells the network has not learnt from
    prior_power  decisions are made on probabilities divided by prior ** this (Menon et al. 2021): rare values are not
                 swallowed by common ones
    """

    values: tuple[str, ...]
    inverse_l2: float = Field(gt=0)
    temperature: float = Field(gt=0)
    prior_power: float = Field(ge=0)


class WordsRecord(SavedRecord):
    """What a bundle says of its words; the arrays beside it are listed at ``AttributeHead``.

    dimensions    D
    attributes    by name, in the order of their columns
    classes       C classes words and labels can contradict each other in, in lower case
    cut           a cell whose words are by more than this less likely than is usual for its label is marked; natural
                  logarithm
    false_alarms  share of right labels that the cut was to mark
    fitted_on, chosen_on, cut_on   cells the weights, the choices and the cut come from
    """

    version: Literal[1] = 1
    dimensions: int = Field(ge=1)
    attributes: dict[str, FittedAttribute]
    classes: tuple[str, ...] = Field(min_length=1)
    cut: float
    false_alarms: float = Field(gt=0, lt=1)
    fitted_on: int = Field(ge=1)
    chosen_on: int = Field(ge=1)
    cut_on: int = Field(ge=1)


class AttributeHead:
    """Eleven attributes of N cells from features (N, D), the ones the classifier's head is given.

    record     checked
    mean, scale   float32 (D,): features are standardised with them
    weight, bias  (V, D) and (V,): logits of all values, see ``COLUMNS``; a softmax for each attribute
    offset     (V,): taken from the logarithms of the probabilities before a decision
    frequency  (C, V): how often a value is seen in a class, each attribute summing to 1
    typical    (C,): what minus the logarithm of the words' likelihood is under a right label, the median

    The likelihood of a cell's words under a class takes attributes as independent, and each as unsure as it is:
    the product over the attributes of sum_v p(v | cell) frequency(v | class). They are not independent, so the figure
    is a score and no probability; the cut for it was measured.
    """

    def __init__(self, record: WordsRecord, arrays: Mapping[str, Floats]) -> None:
        self.record = record
        self.mean, self.scale = arrays["mean"], arrays["scale"]
        self.weight, self.bias, self.offset = arrays["weight"], arrays["bias"], arrays["offset"]
        self.frequency, self.typical = arrays["frequency"], arrays["typical"]

    @classmethod
    def from_saved(cls, record: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> AttributeHead:
        """The head that ``fit_attributes`` made. ``arrays`` may hold others, without the prefix.

        Raises BundleError where the record is malformed, or an array is missing, of another shape or not finite.
        """
        try:
            checked = WordsRecord.model_validate(record)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "its top"
            raise BundleError(
                f"what the bundle says of morphology is malformed at {place}: {first['msg']}. {_ADVICE}"
            ) from None
        _check_record(checked)
        d, c = checked.dimensions, len(checked.classes)
        shapes = {
            "mean": (d,),
            "scale": (d,),
            "weight": (VALUES, d),
            "bias": (VALUES,),
            "offset": (VALUES,),
            "frequency": (c, VALUES),
            "typical": (c,),
        }
        found = {name: _checked_array(name, shape, arrays) for name, shape in shapes.items()}
        if not (found["scale"] > 0).all():
            raise BundleError(f"the array {PREFIX}scale of the bundle holds a scale that is not above 0. {_ADVICE}")
        sums = [found["frequency"][:, columns].sum(axis=1) for columns in COLUMNS.values()]
        if (found["frequency"] <= 0).any() or not np.allclose(sums, 1, atol=0.01):
            raise BundleError(f"the array {PREFIX}frequency of the bundle holds no frequencies. {_ADVICE}")
        return cls(checked, found)

    def predict(self, features: Floats) -> dict[str, Floats]:
        """By attribute, the probability of each of its values: float32 (N, its values). Raises DataError."""
        logs = self._log_probs(features)
        return {name: np.exp(logs[:, columns]) for name, columns in COLUMNS.items()}

    def decide(self, features: Floats) -> Ints:
        """The number of the value each attribute is said to have: int64 (N, 11), attributes as in ``ATTRIBUTES``."""
        return _decided(self._log_probs(features) - self.offset)

    def decision_probs(self, features: Floats) -> dict[str, Floats]:
        """As ``predict``, with the prior taken out as decisions are made: its largest is what ``decide`` says."""
        logs = self._log_probs(features) - self.offset
        return {name: np.exp(_log_softmax(logs[:, columns])) for name, columns in COLUMNS.items()}

    def describe(self, features: Floats, class_names: Sequence[str], predicted: Ints) -> list[str]:
        """N descriptions: "bilobed nucleus, dense chromatin, round red granules, ...".

        class_names  of the labels
        predicted    int64 (N,): the label of each cell, an index into them; -1 for none

        "" for cells whose class is not described by WBCAtt. Where words and label contradict each other the
        description ends in the word that does so most: "; unlike a neutrophil: red granules".
        """
        rows = self._rows(features, class_names, predicted)
        logs = self._log_probs(features)
        decided = _decided(logs - self.offset)
        marked = self._excess(logs, rows) > self.record.cut
        said = []
        for place, row in enumerate(rows.tolist()):
            if row < 0:
                said.append("")
                continue
            values = {
                name: attribute.values[value]
                for (name, attribute), value in zip(ATTRIBUTES.items(), decided[place].tolist(), strict=True)
            }
            words = describe(values)
            if marked[place]:
                name = self.record.classes[row]
                article = "an" if name[0] in "aeiou" else "a"
                words += f"; unlike {article} {name}: {self._against(logs[place], decided[place], row)}"
            said.append(words)
        return said

    def disagrees(self, features: Floats, class_names: Sequence[str], predicted: Ints) -> NDArray[np.bool_]:
        """bool (N,): whether words and label contradict each other; never for classes WBCAtt does not describe.

        Arguments as for ``describe``. Raises DataError for shapes that do not fit or features that are not finite.
        """
        rows = self._rows(features, class_names, predicted)
        return np.asarray(self._excess(self._log_probs(features), rows) > self.record.cut)

    def contradiction(self, features: Floats, class_names: Sequence[str], predicted: Ints) -> Floats:
        """float32 (N,): what ``disagrees`` cuts; minus infinity for cells that are not described."""
        return self._excess(self._log_probs(features), self._rows(features, class_names, predicted))

    def _log_probs(self, features: Floats) -> Floats:
        if features.ndim != 2 or features.shape[1] != self.record.dimensions:
            raise DataError(f"features must have shape (N, {self.record.dimensions}), found {features.shape}")
        if not np.isfinite(features).all():
            raise DataError("features must be finite, found NaN or infinity: leave out unreadable images first")
        standard = (features.astype(np.float32, copy=False) - self.mean) / self.scale
        logits = np.asarray(standard @ self.weight.T + self.bias, dtype=np.float32)
        parts = [_log_softmax(logits[:, columns]) for columns in COLUMNS.values()]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def _rows(self, features: Floats, class_names: Sequence[str], predicted: Ints) -> Ints:
        """int64 (N,): each label's place in ``record.classes``, -1 for labels without words."""
        if predicted.shape != (len(features),):
            raise DataError(f"there must be one label for each of {len(features)} cells, found {predicted.shape}")
        if len(predicted) and (predicted.min() < -1 or predicted.max() >= len(class_names)):
            raise DataError(
                f"labels must lie in -1 to {len(class_names) - 1}, found {predicted.min()} to {predicted.max()}"
            )
        known = {name: row for row, name in enumerate(self.record.classes)}
        # The last entry is reached by the index -1.
        table = np.array([*(known.get(name.strip().lower(), -1) for name in class_names), -1], dtype=np.int64)
        return table[predicted]

    def _excess(self, logs: Floats, rows: Ints) -> Floats:
        """By how much the words are less likely than usual under the label at ``rows``: float32 (N,)."""
        if (rows < 0).all():
            return np.full(len(rows), -np.inf, dtype=np.float32)
        surprise = surprises(np.exp(logs), self.frequency) - self.typical
        return np.where(rows < 0, -np.inf, surprise[np.arange(len(rows)), rows]).astype(np.float32)

    def _against(self, logs: Floats, decided: Ints, row: int) -> str:
        """The word that speaks most against a label, probable in the cell and seldom in the class.

        One of those the cell is described with, unless they are all usual for the class: then the doubt about one of
        them made the contradiction, and the word behind that doubt is given.
        """
        weight = np.exp(logs) * -np.log(self.frequency[row])
        said = decided + np.array([columns.start for columns in COLUMNS.values()])
        place = int(said[weight[said].argmax()])
        if self.frequency[row, place] > _USUAL:
            place = int(weight.argmax())
        name, columns = next((name, columns) for name, columns in COLUMNS.items() if place < columns.stop)
        return words_for(name, ATTRIBUTES[name].values[place - columns.start])


def surprises(probs: Floats, frequency: Floats) -> Floats:
    """Minus the logarithm of the likelihood of words (N, V) under each of C classes (C, V): float32 (N, C)."""
    total = np.zeros((len(probs), len(frequency)), dtype=np.float32)
    for columns in COLUMNS.values():
        # Probabilities and frequencies that were rounded may leave a sum just above 1.
        total -= np.log(np.clip(probs[:, columns] @ frequency[:, columns].T, 1e-12, 1))
    return total


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), dtype=np.float32)


def _decided(logs: Floats) -> Ints:
    best = [logs[:, columns].argmax(axis=1) for columns in COLUMNS.values()]
    return np.stack(best, axis=1).astype(np.int64)


def _check_record(record: WordsRecord) -> None:
    own = {name: attribute.values for name, attribute in ATTRIBUTES.items()}
    if {name: fitted.values for name, fitted in record.attributes.items()} != own or list(record.attributes) != [*own]:
        raise BundleError(f"the bundle names morphological attributes or values this version does not know. {_ADVICE}")
    unknown = next((name for name in record.classes if name not in DESCRIBED), None)
    if unknown is not None or len(set(record.classes)) < len(record.classes):
        what = f"the class {unknown!r}" if unknown is not None else "a class twice"
        raise BundleError(f"what the bundle says of morphology names {what}. {_ADVICE}")
    if not np.isfinite(record.cut):
        raise BundleError(f"the cut for contradicting words in the bundle is not finite. {_ADVICE}")


def _checked_array(name: str, shape: tuple[int, ...], arrays: Mapping[str, NDArray[np.generic]]) -> Floats:
    found = arrays.get(PREFIX + name)
    if found is None:
        raise BundleError(f"the bundle lacks the array {PREFIX}{name} that its words need. {_ADVICE}")
    if found.shape != shape or found.dtype.kind != "f":
        raise BundleError(
            f"the array {PREFIX}{name} of the bundle must be floating and of shape {shape}, found {found.dtype} "
            f"{found.shape}. {_ADVICE}"
        )
    with np.errstate(over="ignore"):
        values = found.astype(np.float32)
    if not np.isfinite(values).all():
        raise BundleError(f"the array {PREFIX}{name} of the bundle holds values that are not finite. {_ADVICE}")
    return values
