"""What a confusion costs: a table of 0 to 1, and what the mistakes of a model cost by it on average.

A file of one's own, for ``hemascope trust --costs FILE``:

default = 1.0             # what a confusion costs that is not named below
[costs.ig]                # the true class
neutrophil = 1.0          # the class it is named
erythroblast = 0.4
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hemascope.bootstrap import Floats, Ints, estimate, resample_counts
from hemascope.errors import ConfigError, DataError
from hemascope.metrics import confusion_matrix
from hemascope.names import suggestion
from hemascope.results import Estimate
from hemascope.toml_text import read_toml
from hemascope.trust_results import CostResult

MAX_BYTES = 100_000
UNKNOWN_COST = 1.0
"""Of a confusion with a class that no table knows: as dear as any."""

DEAREST = 10
"""Kinds of confusion that are listed."""

_REVIEW = 0.2
"""A normal cell named an immature or nucleated red one: a person looks at the smear for nothing."""

_COUNT = 0.3
"""One normal white cell named another: the differential count is off by one cell, and no finding is lost or made."""

_CLASSES = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")

# From the class's true name to what it is named; "*" is every other name. The scale is ours and an opinion. Its order
# follows what makes a laboratory look at a smear (Barnes et al. 2005, Laboratory Hematology 11, 83-90): immature
# granulocytes and nucleated red cells are findings at any number, whereas the count of normal cells is not.
_KNOWN: Mapping[str, Mapping[str, float]] = {
    # Missed, a left shift or a leukaemia stays unseen. Named an erythroblast it is still a finding, so somebody looks.
    "ig": {"*": 1.0, "erythroblast": 0.4},
    # Missed, marrow stress stays unseen, and the count of white cells is too high. Named ig, somebody looks.
    "erythroblast": {"*": 0.8, "ig": 0.4},
    # Rare, and many of them are a sign of chronic myeloid leukaemia: one lost weighs more than its share of the count.
    "basophil": {"*": 0.5, "ig": _REVIEW, "erythroblast": _REVIEW, "platelet": 0.6},
    # Many of them mean allergy, worms or a drug's effect; nothing else in the smear would show it.
    "eosinophil": {"*": 0.4, "ig": _REVIEW, "erythroblast": _REVIEW, "platelet": 0.6},
    # Made a rare cell they feign a finding of their own: dearer than among the three common ones.
    "lymphocyte": {
        "*": _COUNT, "ig": _REVIEW, "erythroblast": _REVIEW, "basophil": 0.4, "eosinophil": 0.4, "platelet": 0.6
    },
    "monocyte": {
        "*": _COUNT, "ig": _REVIEW, "erythroblast": _REVIEW, "basophil": 0.4, "eosinophil": 0.4, "platelet": 0.6
    },
    "neutrophil": {
        "*": _COUNT, "ig": _REVIEW, "erythroblast": _REVIEW, "basophil": 0.4, "eosinophil": 0.4, "platelet": 0.6
    },
    # No white cell at all: it is counted as one, which a count of a hundred cells notices. A false finding is reviewed.
    "platelet": {"*": 0.5, "ig": _REVIEW, "erythroblast": _REVIEW},
}  # fmt: skip

SUBTYPE_FACTORS: Mapping[tuple[str, str], float] = {
    # The next step of one and the same ripening: people disagree on this border, and treat the two alike.
    ("MMY", "neutrophil"): 0.25,
    # The same border from the other side. (A band cell among the immature ones may start a needless review.)
    ("BNE", "ig"): 0.5,
}
"""What a confusion costs of its class's price if the cell is of this subtype (see ``data.subtypes``); others 1.

Metamyelocytes and band neutrophils are told apart by how deep the nucleus is cut, and observers differ on it (Cornbleet
2002, Clinics in Laboratory Medicine 22, 101-136).
"""


def default_costs(class_names: Sequence[str]) -> Floats:
    """float64 (K, K) in 0 to 1, rows true, columns named, 0 on the diagonal.

    For the eight classes of the PBC set (Acevedo et al. 2020), in any order and case; a confusion with any other class
    costs UNKNOWN_COST. It is an opinion on a scale of its own, to be replaced by a laboratory's: see ``read_costs``.
    """
    names = [name.strip().lower() for name in class_names]
    table = np.full((len(names), len(names)), UNKNOWN_COST)
    for row, true in enumerate(names):
        for column, named in enumerate(names):
            if true in _CLASSES and named in _CLASSES:
                table[row, column] = _KNOWN[true].get(named, _KNOWN[true]["*"])
    np.fill_diagonal(table, 0.0)
    return table


def subtype_factors(subtypes: Sequence[str], labels: Ints, predicted: Ints, class_names: Sequence[str]) -> Floats:
    """SUBTYPE_FACTORS of N cells, float64 (N,): 1 where there is nothing to say of a cell.

    subtypes           N names as ``data.subtypes.subtypes_of`` gives them, "" for none
    labels, predicted  (N,), indices into class_names; right answers have a factor of 1, and cost nothing anyway
    """
    if not len(subtypes) == len(labels) == len(predicted):
        raise DataError(
            f"subtypes, labels and predictions must be equally many, found {len(subtypes)}, {len(labels)} and "
            f"{len(predicted)}"
        )
    names = [name.strip().lower() for name in class_names]
    return np.array(
        [
            1.0 if true == named else SUBTYPE_FACTORS.get((subtype, names[named]), 1.0)
            for subtype, true, named in zip(subtypes, labels.tolist(), predicted.tolist(), strict=True)
        ],
        dtype=np.float64,
    )


def read_costs(path: Path, class_names: Sequence[str]) -> Floats:
    """The table in a TOML file (see the top of this file): float64 (K, K), rows true, columns named.

    Raises ConfigError, in a sentence, for a file that cannot be read, an unknown key or class, a cost that is no number
    from 0 to 1, and a right answer that costs.
    """
    values = read_toml(path, "table of costs", MAX_BYTES)
    for key in values:
        if key not in ("default", "costs"):
            raise ConfigError(f"{path}: no such key '{key}'; {suggestion(key, ['default', 'costs'])}")
    rows = values.get("costs")
    if not isinstance(rows, dict) or not rows:
        raise ConfigError(
            f"{path} names no cost: give a table [costs.CLASS] of a true class, with the names it is given."
        )
    default = _cost(values.get("default", UNKNOWN_COST), path, "default")
    table = np.full((len(class_names), len(class_names)), default)
    np.fill_diagonal(table, 0.0)
    for true, row in rows.items():
        if not isinstance(row, dict):
            raise ConfigError(f"{path}: 'costs.{true}' must be a table of names and costs, found {_shown(row)}.")
        for named, value in row.items():
            place = f"costs.{true}.{named}"
            cost = _cost(value, path, place)
            at = _index(true, class_names, path), _index(named, class_names, path)
            if at[0] == at[1] and cost:
                raise ConfigError(f"{path}: '{place}' is a right answer, which costs 0; found {cost:g}.")
            table[at] = cost
    return table


def measure_cost(
    labels: Ints,
    predicted: Ints,
    table: Floats,
    class_names: Sequence[str],
    *,
    factors: Floats | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> CostResult:
    """The mean cost of N cells, 0 to 1, with its 95 % bootstrap interval, and the confusions that cost most in all.

    labels, predicted  (N,) in 0 to K - 1
    table              float64 (K, K), rows true, columns named
    factors            float64 (N,) in 0 to 1 by which each cell's cost is multiplied (see ``subtype_factors``); None: 1

    Where nothing cost anything, the upper end is that of the exact binomial interval, were each mistake to cost 1.
    Raises DataError for shapes that do not fit, labels or costs out of range, and without cells.
    """
    k = len(class_names)
    if table.shape != (k, k) or not ((table >= 0) & (table <= 1)).all() or np.diagonal(table).any():
        raise DataError(f"costs must be ({k}, {k}) numbers from 0 to 1 with 0 on the diagonal, found {table.shape}")
    if not len(labels):
        raise DataError("there are no cells to measure a cost of")
    confusion = confusion_matrix(labels, predicted, k)
    weights = np.ones(len(labels)) if factors is None else factors
    if weights.shape != labels.shape or not ((weights >= 0) & (weights <= 1)).all():
        raise DataError(f"factors must be ({len(labels)},) numbers from 0 to 1, found {weights.shape}")
    costs = table[labels, predicted] * weights
    rng = np.random.default_rng(seed)
    by_pair = np.bincount(labels * k + predicted, weights=costs, minlength=k * k).reshape(k, k)
    dear = sorted(zip(*np.nonzero(by_pair), strict=True), key=lambda at: (-by_pair[at], at))[:DEAREST]
    return CostResult(
        class_names=list(class_names),
        table=table.tolist(),
        expected_cost=_mean(costs, resamples, rng),
        accuracy=_mean((labels == predicted).astype(np.float64), resamples, rng),
        dearest=[(class_names[i], class_names[j], int(confusion[i, j]), float(by_pair[i, j])) for i, j in dear],
    )


def _mean(values: Floats, resamples: int, rng: np.random.Generator) -> Estimate:
    """Of N values of 0 to 1: there are few different ones, so how often each is drawn says all."""
    kinds, counts = np.unique(values, return_counts=True)
    drawn = [part @ kinds / len(values) for part in resample_counts(counts.astype(np.int64), resamples, rng)]
    samples = np.concatenate(drawn) if drawn else np.zeros(0)
    if kinds.size == 1 and kinds[0] in (0.0, 1.0):
        return estimate(float(kinds[0]), samples, len(values), rates=kinds, counts=counts.astype(np.int64))
    return estimate(float(values.mean()), samples, len(values))


def _index(name: str, class_names: Sequence[str], path: Path) -> int:
    if name not in class_names:
        raise ConfigError(f"{path}: the model knows no class '{name}'; {suggestion(name, class_names)}")
    return list(class_names).index(name)


def _cost(value: object, path: Path, place: str) -> float:
    # A bool is an int in Python, but "true" is no cost.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigError(f"{path}: '{place}' must be a number from 0 to 1, found {_shown(value)}.")
    return float(value)


def _shown(value: Any) -> str:
    return f"{str(value)[:60]!r}" if isinstance(value, str) else str(value)[:60]
