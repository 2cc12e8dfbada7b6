"""Which cells are described, and which of them may be fitted on: no cell of a model's test part ever is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from hemascope.cells import CellDataset
from hemascope.errors import DataError
from hemascope.morphology.attributes import ATTRIBUTES, DESCRIBED
from hemascope.morphology.read_wbcatt import Annotation

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class DescribedCells:
    """M cells of a set that WBCAtt describes.

    rows        int64 (M,): their places in the set, rising
    values      int64 (M, 11): the number of each attribute's value, attributes and values as in ``ATTRIBUTES``
    labels      int64 (M,): their classes in the set
    authors     M of "train", "val", "test": WBCAtt's own split
    part        M parts of the model's split
    missing     annotations whose image is not in the set
    disagreeing cells left out because the set gives them another class than WBCAtt
    """

    rows: NDArray[np.int64]
    values: NDArray[np.int64]
    labels: NDArray[np.int64]
    authors: NDArray[np.str_]
    part: NDArray[np.str_]
    missing: int
    disagreeing: int

    @property
    def fit(self) -> Mask:
        """bool (M,): WBCAtt's train and val in the model's training part."""
        return np.asarray((self.authors != "test") & (self.part == "train"))

    @property
    def choose(self) -> Mask:
        """bool (M,): WBCAtt's train and val in the model's validation and calibration parts: new to the network."""
        return np.asarray((self.authors != "test") & self.cut)

    @property
    def cut(self) -> Mask:
        """bool (M,): the model's validation and calibration parts, whatever WBCAtt's: only their labels are used."""
        return np.isin(self.part, ("validation", "calibration"))

    @property
    def published_test(self) -> Mask:
        """bool (M,): WBCAtt's test part. The network may have learnt from these cells with their classes."""
        return np.asarray(self.authors == "test")

    @property
    def clean_test(self) -> Mask:
        """bool (M,): the model's test part, whatever WBCAtt's: neither the network nor the words learnt from them."""
        return np.asarray(self.part == "test")


def collect(cells: CellDataset, parts: NDArray[np.str_], annotations: Mapping[str, Annotation]) -> DescribedCells:
    """The cells whose file is described, by the name at the end of their id.

    parts        N parts of the model's split (``Splits.assignment``)
    annotations  as ``read_wbcatt`` reads them

    Raises DataError where the parts are not as many as the cells, two cells have the name of one described file, or
    no cell is described.
    """
    if parts.shape != (len(cells),):
        raise DataError(f"there must be a part for each of {len(cells):,} cells, found {parts.shape}")
    codes = {name: {value: k for k, value in enumerate(each.values)} for name, each in ATTRIBUTES.items()}
    seen: set[str] = set()
    rows: list[int] = []
    values: list[list[int]] = []
    authors: list[str] = []
    disagreeing = 0
    for row, (name, label) in enumerate(zip(cells.ids, cells.labels.tolist(), strict=True)):
        image = PurePosixPath(name).name
        annotation = annotations.get(image)
        if annotation is None:
            continue
        if image in seen:
            raise DataError(f"two cells have the file name {image}: there is no telling which one is described")
        seen.add(image)
        own = cells.class_names[label].strip().lower() if label >= 0 else ""
        if own not in DESCRIBED or own != annotation.label.strip().lower():
            disagreeing += 1
            continue
        rows.append(row)
        values.append([codes[attribute][annotation.values[attribute]] for attribute in ATTRIBUTES])
        authors.append(annotation.part)
    if not rows:
        raise DataError(
            "none of the cells is described by WBCAtt: it describes cells of PBC, and they are found by file name"
        )
    found = np.array(rows, dtype=np.int64)
    return DescribedCells(
        found,
        np.array(values, dtype=np.int64),
        cells.labels[found],
        np.array(authors),
        parts[found],
        len(annotations) - len(seen),
        disagreeing,
    )
