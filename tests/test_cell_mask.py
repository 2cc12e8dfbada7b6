"""The nucleus and the cell found by stain, on drawn cells of known truth."""

from __future__ import annotations

import numpy as np
import pytest

from hemascope.data.synthetic import SYNTHETIC_CLASSES, render_cell
from hemascope.errors import DataError
from hemascope.explain.cell_mask import cell_masks

SIDE = 96
GROUND, CYTOPLASM, NUCLEUS = (250, 228, 205), (150, 130, 175), (60, 30, 115)


def _disc(row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[:SIDE, :SIDE]
    return np.hypot(rows - row, columns - column) <= radius


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_nucleus_and_cell_are_found() -> None:
    """A nucleus of two lobes and the cell around it are found, and a cell in the corner is left out."""
    cell = _disc(48, 48, 28)
    nucleus = _disc(42, 40, 10) | _disc(56, 56, 10)
    image = np.full((SIDE, SIDE, 3), GROUND, dtype=np.uint8)
    image[cell | _disc(4, 4, 10)] = CYTOPLASM
    image[nucleus] = NUCLEUS
    found_nucleus, found_cell = cell_masks(image)
    assert _iou(found_nucleus, nucleus) > 0.85
    assert _iou(found_cell, cell) > 0.9
    assert not found_cell[:14, :14].any()


def test_empty_field_has_no_cell() -> None:
    """A field of plain ground, flat or grainy, gives two empty masks."""
    flat = np.full((SIDE, SIDE, 3), GROUND, dtype=np.uint8)
    grain = (flat.astype(int) + np.random.default_rng(0).integers(-4, 4, flat.shape)).astype(np.uint8)
    for image in (flat, grain):
        nucleus, cell = cell_masks(image)
        assert not nucleus.any() and not cell.any()


def test_other_arrays_are_refused() -> None:
    """An array that is no RGB picture of bytes gives one sentence that says what it is."""
    with pytest.raises(DataError, match="float32"):
        cell_masks(np.zeros((SIDE, SIDE, 3), dtype=np.float32))


def test_touching_red_cell_is_cut_off() -> None:
    """A platelet that leans on a pale red cell of eight times its area gets a mask below twice its own."""
    platelet = _disc(48, 48, 6)
    image = np.full((SIDE, SIDE, 3), GROUND, dtype=np.uint8)
    image[_disc(48, 70, 17)] = (190, 160, 165)
    image[platelet] = NUCLEUS
    _, found = cell_masks(image)
    assert (found & platelet).sum() > 0.9 * platelet.sum()
    assert found.sum() < 2 * platelet.sum()
    assert not found[:, 62:].any()


@pytest.mark.parametrize("name", SYNTHETIC_CLASSES)
def test_every_class_is_found_in_the_middle(name: str) -> None:
    """In four drawn smears of each class the cell covers the middle, holds its nucleus and leaves ground around it."""
    for seed in range(4):
        nucleus, cell = cell_masks(render_cell(name, size=SIDE, seed=seed))
        assert cell[36:60, 36:60].any()
        assert not (nucleus & ~cell).any()
        assert 0.005 < nucleus.mean() < 0.3 and cell.mean() < 0.7
