"""The review queue: doubts, the risk-coverage curve, and what looking at a share of the cells catches."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hemascope.errors import DataError
from hemascope.trust_results import SelectiveResult
from hemascope.uncertainty.selective import CURVE_POINTS, doubt_of, measure_selective, risk_coverage


def measured(doubt: list[float], wrong: list[bool], **options: object) -> SelectiveResult:
    """With few resamples."""
    given = {"condition": "clean", "title": "as they are", "resamples": 50, **options}
    return measure_selective(np.array(doubt), np.array(wrong), **given)  # type: ignore[arg-type]


def by_hand(doubt: list[float], wrong: list[bool]) -> np.ndarray:
    """Risks after 1, 2, … cells, mean over every order of cells of equal doubt."""
    orders = [
        order
        for order in permutations(range(len(doubt)))
        if all(doubt[first] <= doubt[second] for first, second in pairwise(order))
    ]
    risks = [np.cumsum(np.array(wrong)[list(order)]) / np.arange(1, len(doubt) + 1) for order in orders]
    return np.asarray(np.mean(risks, axis=0))


def test_the_curve_by_hand() -> None:
    """Four cells, the third least doubtful wrong: risks 0, 0, 1/3, 1/4."""
    coverage, risk = risk_coverage(np.array([0.1, 0.4, 0.2, 0.3]), np.array([False, False, False, True]))
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk == pytest.approx([0, 0, 1 / 3, 1 / 4])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_ties_are_the_mean_of_all_orders(cells: list[tuple[int, bool]]) -> None:
    """Curve and area are those of every possible order of equal doubts, averaged."""
    doubt, wrong = [float(one) for one, _ in cells], [two for _, two in cells]
    expected = by_hand(doubt, wrong)
    assert risk_coverage(np.array(doubt), np.array(wrong))[1] == pytest.approx(expected)
    found = measured(doubt, wrong, resamples=5)
    assert found.aurc.value == pytest.approx(expected.mean())


def test_the_order_of_the_cells_does_not_matter() -> None:
    """Shuffling cells, ties among them, changes no figure at all."""
    rng = np.random.default_rng(1)
    doubt, wrong = rng.integers(0, 9, 300) / 8, rng.random(300) < 0.1
    order = rng.permutation(300)
    one = measured(doubt.tolist(), wrong.tolist())
    other = measured(doubt[order].tolist(), wrong[order].tolist())
    assert one == other


def test_the_resampled_area_is_that_of_the_resampled_cells() -> None:
    """The closed form used for resamples equals the plain mean of the curve where cells occur several times."""
    from hemascope.uncertainty.selective import _area, _harmonic

    rng = np.random.default_rng(2)
    times = rng.integers(0, 4, 30)
    doubt, wrong = np.repeat(np.arange(30.0), times), np.repeat(rng.random(30) < 0.3, times)
    cells, errors = times.astype(np.float64), np.bincount(doubt[wrong].astype(int), minlength=30).astype(np.float64)
    found = _area(cells[None], errors[None], _harmonic(len(doubt)))[0]
    assert found == pytest.approx(risk_coverage(doubt, wrong)[1].mean(), rel=1e-12)


def test_the_best_order_has_no_excess() -> None:
    """With all errors last the excess area is 0; in the reverse order area and excess are larger."""
    wrong = [False] * 90 + [True] * 10
    best, worst = measured(list(range(100)), wrong), measured(list(range(100, 0, -1)), wrong)
    assert best.excess_aurc.value == pytest.approx(0, abs=1e-12)
    assert best.aurc.value == pytest.approx(sum(j / (90 + j) for j in range(1, 11)) / 100)
    assert worst.excess_aurc.value is not None
    assert worst.excess_aurc.value > 0.2


def test_rows_count_what_a_person_would_see() -> None:
    """Of 100 cells the 2 most doubtful hold 1 of 4 errors, the 20 most doubtful all; 3 of 98 are then left."""
    wrong = np.zeros(100, dtype=bool)
    wrong[[99, 95, 90, 85]] = True
    found = measured(list(range(100)), wrong.tolist(), shares=(0.02, 0.2, 1.0))
    two, twenty, all_of_them = found.rows
    assert (two.reviewed, two.errors_caught, two.caught.value, two.caught.n) == (2, 1, 0.25, 4)
    assert two.remaining_error.value == pytest.approx(3 / 98)
    assert (twenty.reviewed, twenty.errors_caught, twenty.remaining_error.value) == (20, 4, 0.0)
    assert twenty.remaining_error.high is not None
    assert twenty.remaining_error.high > 0
    assert all_of_them.remaining_error.value is None


def test_nobody_looks_at_more_than_was_said() -> None:
    """2 % of 2,050 cells is 41 and of 2,051 cells is 41 too; half a cell is none."""
    for n, expected in ((2050, 41), (2051, 41), (25, 0)):
        found = measured(list(range(n)), [False] * n, shares=(0.02,), resamples=2)
        assert found.rows[0].reviewed == expected


def test_no_errors_and_nothing_but_errors() -> None:
    """Without errors the area is 0 and nothing can be caught; with nothing but errors it is 1, without excess."""
    none, all_of_them = measured([0.1, 0.2, 0.3], [False] * 3), measured([0.1, 0.2, 0.3], [True] * 3)
    assert none.aurc.value == 0.0
    assert {row.caught.value for row in none.rows} == {None}
    assert all_of_them.aurc.value == 1.0
    assert all_of_them.excess_aurc.value == pytest.approx(0)


def test_intervals_hold_the_value_and_shrink() -> None:
    """The interval holds the value, and with sixteen times the cells it is about a quarter as wide."""
    rng = np.random.default_rng(3)
    widths = []
    for n in (500, 8000):
        doubt = rng.random(n)
        found = measured(doubt.tolist(), (rng.random(n) < doubt / 4).tolist(), resamples=300).aurc
        assert found.low is not None
        assert found.high is not None
        assert found.value is not None
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.35)


def test_the_curve_is_thinned_with_its_ends() -> None:
    """Of 3,000 cells at most 200 points are kept, among them the least doubtful cell and all of them."""
    curve = measured(list(range(3000)), [False] * 2999 + [True]).curve
    assert len(curve) <= CURVE_POINTS
    assert curve[0] == (1 / 3000, 0.0)
    assert curve[-1] == (1.0, 1 / 3000)
    assert [one for one, _ in curve] == sorted({one for one, _ in curve})


def test_the_record_survives_json() -> None:
    """What is written to trust.json is read back the same."""
    found = measured([0.3, 0.1, 0.2], [True, False, False])
    assert SelectiveResult.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("doubt", "wrong", "said"),
    [
        ([], [], "no cells"),
        ([0.1, float("nan")], [True, False], "finite"),
        ([0.1, 0.2], [True], "equally many"),
    ],
)
def test_bad_input_is_refused(doubt: list[float], wrong: list[bool], said: str) -> None:
    """No cells, NaN and lengths that differ are a sentence each."""
    with pytest.raises(DataError, match=said):
        risk_coverage(np.array(doubt), np.array(wrong, dtype=bool))


def test_a_share_is_from_0_to_1() -> None:
    """Two per cent written as 2 is refused."""
    with pytest.raises(DataError, match="from 0 to 1, found 2"):
        measured([0.1], [True], shares=(2,))


def test_doubt_is_how_close_the_second_class_is() -> None:
    """1 less the lead of the first class over the second; certain cells are still in order in float32."""
    probs = [[0.9, 0.1, 0], [0.6, 0.4, 0], [0.6, 0.2, 0.2], [1, 1e-9, 0], [1, 1e-12, 0], [0.5, 0.5, 0]]
    found = doubt_of(np.array(probs, dtype=np.float32))
    assert found.dtype == np.float32
    assert found == pytest.approx([0.2, 0.8, 0.6, 2e-9, 2e-12, 1.0], rel=1e-6)


def test_doubt_of_nothing_and_of_nonsense() -> None:
    """No cells have no doubt; NaN and shapes that do not fit are refused."""
    assert doubt_of(np.zeros((0, 8), np.float32)).shape == (0,)
    with pytest.raises(DataError, match="finite"):
        doubt_of(np.full((1, 2), np.nan, np.float32))
    with pytest.raises(DataError, match=r"\(N, K\)"):
        doubt_of(np.ones(2, np.float32))
