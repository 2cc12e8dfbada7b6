"""Subtypes from file names: promyelocytes, myelocytes, metamyelocytes, band and segmented neutrophils."""

from __future__ import annotations

import numpy as np
import pytest

from hemascope.data.subtypes import SUBTYPES, measure_subtypes, subtypes_of
from hemascope.errors import DataError

NAMES = ("Neutrophil", "ig", "monocyte")


def test_prefixes_are_read_from_file_names() -> None:
    """Folders and endings do not matter; what is no known prefix with a number is no subtype."""
    ids = ["ig/PMY_996725.jpg", "MMY_8.png", r"a\BNE_100878.tif", "deep/er/sne-7.jpeg", "my_12", "NEUTROPHIL_3.jpg"]
    assert subtypes_of(ids) == ["PMY", "MMY", "BNE", "SNE", "MY", "NEUTROPHIL"]
    none = ["cells.npz#12", "PMY.jpg", "XYZ_1.jpg", "PMY/1.jpg", "image_PMY_1.jpg", "", "my_cell_1.jpg", "PMY_x.jpg"]
    assert subtypes_of(none) == [""] * len(none)


def test_recall_by_subtype() -> None:
    """Two of three metamyelocytes are found, one is taken for a neutrophil; the interval is the exact one."""
    ids = ["MMY_1.jpg", "MMY_2.jpg", "MMY_3.jpg", "PMY_1.jpg", "BNE_1.jpg", "MO_1.jpg", "cell.jpg"]
    labels, predicted = np.array([1, 1, 1, 1, 0, 2, 0]), np.array([1, 0, 1, 2, 0, 2, 0])
    found = measure_subtypes(ids, labels, predicted, NAMES)
    assert [one.subtype for one in found] == ["PMY", "MMY", "BNE"]
    promyelocyte, metamyelocyte, band = found
    assert (metamyelocyte.n, metamyelocyte.mistaken_for, metamyelocyte.class_name) == (3, {"Neutrophil": 1}, "ig")
    assert metamyelocyte.recall.value == pytest.approx(2 / 3)
    assert metamyelocyte.recall.low == pytest.approx(0.0943, abs=1e-4)  # Clopper and Pearson, 2 of 3
    assert metamyelocyte.recall.high == pytest.approx(0.9916, abs=1e-4)
    assert (promyelocyte.recall.value, promyelocyte.mistaken_for) == (0.0, {"monocyte": 1})
    assert (band.class_name, band.recall.value, band.mistaken_for) == ("Neutrophil", 1.0, {})


def test_mistakes_are_listed_most_frequent_first() -> None:
    """Of equally frequent ones in the order of the classes."""
    ids = [f"MY_{k}.jpg" for k in range(5)]
    found = measure_subtypes(ids, np.ones(5, dtype=np.int64), np.array([2, 2, 0, 1, 2]), NAMES)
    assert list(found[0].mistaken_for.items()) == [("monocyte", 3), ("Neutrophil", 1)]


def test_cells_whose_label_contradicts_the_name_do_not_count() -> None:
    """Nor do those without a label, or without a prediction."""
    ids = ["BNE_1.jpg", "BNE_2.jpg", "BNE_3.jpg", "BNE_4.jpg"]
    found = measure_subtypes(ids, np.array([0, 1, -1, 0]), np.array([0, 1, 0, -1]), NAMES)
    assert [(one.subtype, one.n) for one in found] == [("BNE", 1)]


def test_nothing_to_tell() -> None:
    """Other names, other classes and no cells give nothing."""
    none = np.zeros(0, dtype=np.int64)
    assert measure_subtypes([], none, none, NAMES) == ()
    assert measure_subtypes(["a#1"], np.array([0]), np.array([0]), NAMES) == ()
    assert measure_subtypes(["PMY_1.jpg"], np.array([0]), np.array([0]), ("cat", "dog")) == ()


def test_every_prefix_is_its_own() -> None:
    """No prefix stands twice, so none can hide another."""
    prefixes = [one.prefix for one in SUBTYPES]
    assert len(set(prefixes)) == len(prefixes)


def test_lengths_must_agree() -> None:
    """Ids without labels are refused."""
    with pytest.raises(DataError, match="equally many"):
        measure_subtypes(["a"], np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), NAMES)
