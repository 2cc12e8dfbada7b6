"""Subtypes that a model does not name, read from file names: how well each stage of ripening is recognised.

In the PBC set (Acevedo et al. 2020) the class ``ig`` holds promyelocytes, myelocytes and metamyelocytes, and the class
``neutrophil`` holds band and segmented cells. The file's name says which: ``ig/PMY_996725.jpg``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemascope.errors import DataError
from hemascope.trust_results import SubtypeResult
from hemascope.uncertainty.binomial import proportion


@dataclass(frozen=True)
class Subtype:
    """A file name's prefix, what it means, and the class that holds it."""

    prefix: str
    title: str
    class_name: str


SUBTYPES: tuple[Subtype, ...] = (
    Subtype("PMY", "promyelocyte", "ig"),
    Subtype("MY", "myelocyte", "ig"),
    Subtype("MMY", "metamyelocyte", "ig"),
    Subtype("IG", "immature granulocyte, stage not given", "ig"),
    Subtype("BNE", "band neutrophil", "neutrophil"),
    Subtype("SNE", "segmented neutrophil", "neutrophil"),
    Subtype("NEUTROPHIL", "neutrophil, stage not given", "neutrophil"),
    Subtype("BA", "basophil", "basophil"),
    Subtype("EO", "eosinophil", "eosinophil"),
    Subtype("ERB", "erythroblast", "erythroblast"),
    Subtype("LY", "lymphocyte", "lymphocyte"),
    Subtype("MO", "monocyte", "monocyte"),
    Subtype("PLATELET", "platelet", "platelet"),
)
"""In the order of ripening. The last six are classes of their own, with nothing below them."""

_OF_PREFIX = {one.prefix: one for one in SUBTYPES}
_NAME = re.compile(r"([A-Za-z]+)[_-]\d+(?:\.\w+)*$")


def subtypes_of(ids: Sequence[str]) -> list[str]:
    """The prefix in each cell's id, one of SUBTYPES, "" where its file name has none: ``ig/MMY_8.jpg`` is ``MMY``."""
    found = (_NAME.fullmatch(re.split(r"[/\\]", name)[-1]) for name in ids)
    prefixes = (match.group(1).upper() if match else "" for match in found)
    return [prefix if prefix in _OF_PREFIX else "" for prefix in prefixes]


def measure_subtypes(
    ids: Sequence[str],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    class_names: Sequence[str],
) -> tuple[SubtypeResult, ...]:
    """How often the class of N cells is right, by subtype, with exact 95 % intervals; empty where no name tells.

    labels, predicted  (N,), indices into class_names; -1: not labelled, not read; such cells are left out

    Only classes that hold several subtypes are taken apart. A cell whose label is not its subtype's class does not
    count: label and file name disagree, and nothing says which is right. Raises DataError for lengths that differ.
    """
    if not len(ids) == len(labels) == len(predicted):
        raise DataError(
            f"ids, labels and predictions must be equally many, found {len(ids)}, {len(labels)} and {len(predicted)}"
        )
    subtypes = np.array(subtypes_of(ids), dtype=object)
    index = {name.strip().lower(): place for place, name in enumerate(class_names)}
    held = [one.class_name for one in SUBTYPES]
    results = []
    for one in SUBTYPES:
        true = index.get(one.class_name)
        if true is None or held.count(one.class_name) == 1:
            continue
        said = predicted[(subtypes == one.prefix) & (labels == true) & (predicted >= 0)]
        if not len(said):
            continue
        counts = np.bincount(said, minlength=len(class_names))
        order = [int(place) for place in np.argsort(-counts, kind="stable") if counts[place] and place != true]
        results.append(
            SubtypeResult(
                subtype=one.prefix,
                title=one.title,
                class_name=class_names[true],
                n=len(said),
                recall=proportion(int(counts[true]), len(said)),
                mistaken_for={class_names[place]: int(counts[place]) for place in order},
            )
        )
    return tuple(results)
