"""Pictures that are no training cells: seeded, of every size, and what they claim to be."""

from __future__ import annotations

import numpy as np
import pytest

from hemascope import render_cells
from hemascope.data.foreign import FOREIGN, make_foreign
from hemascope.errors import DataError, UsageError

SIDE = 48


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    return render_cells(2, size=SIDE, seed=4).images


@pytest.mark.parametrize("name", FOREIGN)
def test_every_kind_is_seeded(name: str, cells: np.ndarray) -> None:
    """The same seed makes the same pictures, a larger set starts with the smaller, and another seed makes others."""
    made = make_foreign(name, 4, size=SIDE, seed=1, cells=cells)
    assert made.shape == (4, SIDE, SIDE, 3)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made[:2], make_foreign(name, 2, size=SIDE, seed=1, cells=cells))
    assert not np.array_equal(made, make_foreign(name, 4, size=SIDE, seed=2, cells=cells))
    assert len({picture.tobytes() for picture in made}) == 4
    known = {cell.tobytes() for cell in cells}
    assert not any(picture.tobytes() in known for picture in made)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("side", [16, 33])
def test_small_and_odd_sizes(name: str, side: int) -> None:
    """Every kind can be made at the smallest size and at an odd one."""
    cells = render_cells(1, size=side, seed=4).images
    assert make_foreign(name, 2, size=side, cells=cells).shape == (2, side, side, 3)


def test_cells_are_not_written_to(cells: np.ndarray) -> None:
    """What is made of cells leaves them as they were."""
    before = cells.copy()
    for name in FOREIGN:
        make_foreign(name, 3, size=SIDE, seed=0, cells=cells)
    np.testing.assert_array_equal(cells, before)


def test_kinds_that_need_no_cells_do_not_see_them(cells: np.ndarray) -> None:
    """Only kinds that say so depend on the cells."""
    for name, kind in FOREIGN.items():
        if not kind.needs_cells:
            with_cells = make_foreign(name, 2, size=SIDE, cells=cells)
            np.testing.assert_array_equal(with_cells, make_foreign(name, 2, size=SIDE))
        else:
            with pytest.raises(DataError, match=f"{name} is made of cells, uint8"):
                make_foreign(name, 2, size=SIDE)


def test_an_empty_field_is_lighter_than_its_cells(cells: np.ndarray) -> None:
    """Without the cell, the middle of the picture has the light of the smear."""
    made = make_foreign("empty_field", 8, size=SIDE, cells=cells)
    middle = slice(SIDE // 3, 2 * SIDE // 3)
    assert made[:, middle, middle].mean() > cells[:, middle, middle].mean() + 20


def test_turned_hue_keeps_the_light(cells: np.ndarray) -> None:
    """Only the hue is another: value and saturation are those of the cell."""
    made = make_foreign("turned_hue", 1, size=SIDE, cells=cells[:1])[0]
    np.testing.assert_allclose(made.max(axis=2), cells[0].max(axis=2), atol=2)
    np.testing.assert_allclose(made.min(axis=2), cells[0].min(axis=2), atol=4)
    assert np.abs(made.astype(int) - cells[0]).mean() > 5


def test_overlays_leave_some_of_the_cell(cells: np.ndarray) -> None:
    """Under text and graphics, part of the picture is the cell's own."""
    for name in ("text_over", "graphics_over"):
        made = make_foreign(name, 6, size=SIDE, cells=cells[:1])
        own = (made == cells[0]).all(axis=3).mean(axis=(1, 2))
        assert own.min() < 0.99
        assert own.max() > 0.1, name


def test_bad_calls_are_sentences(cells: np.ndarray) -> None:
    """An unknown kind, a count or size out of range and cells of another size are refused."""
    with pytest.raises(UsageError, match="no set of foreign pictures is called 'stripe'"):
        make_foreign("stripe", 1)
    with pytest.raises(UsageError, match="found -1 and 48"):
        make_foreign("plain", -1, size=SIDE)
    with pytest.raises(UsageError, match="size lie in 16 to 1024"):
        make_foreign("plain", 1, size=8)
    with pytest.raises(DataError, match=r"found uint8 \(16, 48, 48, 3\)"):
        make_foreign("several", 1, size=32, cells=cells)
    assert make_foreign("plain", 0, size=SIDE).shape == (0, SIDE, SIDE, 3)
