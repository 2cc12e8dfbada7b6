"""What confusions cost: the table of its own, a laboratory's, and the mean cost of a model's mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hemascope.errors import ConfigError, DataError
from hemascope.trust_results import CostResult
from hemascope.uncertainty.costs import default_costs, measure_cost, read_costs, subtype_factors

PBC = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")
AT = {name: place for place, name in enumerate(PBC)}


def cost(true: str, named: str) -> float:
    """By the default table."""
    return float(default_costs(PBC)[AT[true], AT[named]])


def test_the_default_table_puts_findings_first() -> None:
    """A missed immature granulocyte is dearest, a missed erythroblast next, a needless review cheapest."""
    table = default_costs(PBC)
    assert table.shape == (8, 8)
    assert not np.diagonal(table).any()
    assert (table[~np.eye(8, dtype=bool)] > 0).all()
    assert table.max() == 1
    assert cost("ig", "neutrophil") == 1
    assert cost("ig", "neutrophil") > cost("erythroblast", "lymphocyte") > cost("lymphocyte", "platelet")
    assert cost("lymphocyte", "platelet") > cost("lymphocyte", "monocyte") > cost("neutrophil", "ig")
    assert cost("ig", "erythroblast") < cost("ig", "monocyte")


def test_the_default_table_follows_names() -> None:
    """Classes in another order and case have the same costs; a class nobody knows costs 1 both ways."""
    table = default_costs(("Neutrophil", "blast", "IG"))
    assert table.tolist() == [[0, 1, cost("neutrophil", "ig")], [1, 0, 1], [1, 1, 0]]


def test_cost_by_hand() -> None:
    """Two neutrophils named ig and one ig named neutrophil, of 10 cells, cost (2 * 0.2 + 1) / 10."""
    labels = np.array([AT["neutrophil"]] * 8 + [AT["ig"]] * 2)
    predicted = labels.copy()
    predicted[:2], predicted[8] = AT["ig"], AT["neutrophil"]
    found = measure_cost(labels, predicted, default_costs(PBC), PBC, resamples=200)
    assert found.expected_cost.value == pytest.approx(0.14)
    assert found.accuracy.value == pytest.approx(0.7)
    assert found.dearest == [("ig", "neutrophil", 1, 1.0), ("neutrophil", "ig", 2, pytest.approx(0.4))]
    assert found.expected_cost.low is not None
    assert found.expected_cost.high is not None
    assert found.expected_cost.low < 0.14 < found.expected_cost.high
    assert CostResult.model_validate_json(found.model_dump_json()) == found


def test_the_interval_is_that_of_a_mean() -> None:
    """With 4,000 cells the interval is the normal one of the mean cost."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    predicted = np.where(rng.random(4000) < 0.1, 1 - labels, labels)
    table = np.array([[0, 1.0], [0.2, 0]])
    costs = table[labels, predicted]
    found = measure_cost(labels, predicted, table, ("a", "b"), resamples=2000).expected_cost
    half = 1.96 * costs.std() / 4000**0.5
    assert found.low == pytest.approx(costs.mean() - half, rel=0.03)
    assert found.high == pytest.approx(costs.mean() + half, rel=0.03)


def test_no_mistake_is_not_certain() -> None:
    """20 right answers cost nothing, but up to the exact binomial limit cannot be ruled out."""
    labels = np.zeros(20, dtype=np.int64)
    found = measure_cost(labels, labels, np.array([[0, 1.0], [1, 0]]), ("a", "b"), resamples=20)
    assert found.expected_cost.value == 0
    assert found.expected_cost.high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert found.accuracy.low == pytest.approx(0.025 ** (1 / 20))
    assert found.dearest == []


def test_a_metamyelocyte_taken_for_a_band_cell_is_cheap() -> None:
    """It costs a quarter of what a promyelocyte does; a right answer and an unknown subtype keep their price."""
    labels = np.array([AT["ig"]] * 4 + [AT["neutrophil"]])
    predicted = np.array([AT["neutrophil"], AT["neutrophil"], AT["ig"], AT["neutrophil"], AT["ig"]])
    factors = subtype_factors(["MMY", "PMY", "MMY", "", "BNE"], labels, predicted, PBC)
    assert factors.tolist() == [0.25, 1, 1, 1, 0.5]
    found = measure_cost(labels, predicted, default_costs(PBC), PBC, factors=factors, resamples=10)
    assert found.expected_cost.value == pytest.approx((0.25 + 1 + 0 + 1 + 0.5 * 0.2) / 5)
    assert found.dearest[0] == ("ig", "neutrophil", 3, 2.25)


def test_measuring_refuses_what_does_not_fit() -> None:
    """No cells, a table of another size, a cost above 1, a right answer that costs and short factors are refused."""
    two, zero = ("a", "b"), np.zeros(1, dtype=np.int64)
    good = np.array([[0, 1.0], [1, 0]])
    with pytest.raises(DataError, match="no cells"):
        measure_cost(zero[:0], zero[:0], good, two)
    for table in (np.zeros((3, 3)), 2 * good, np.ones((2, 2)), np.array([[0, np.nan], [1, 0]])):
        with pytest.raises(DataError, match="from 0 to 1"):
            measure_cost(zero, zero, table, two)
    with pytest.raises(DataError, match="factors"):
        measure_cost(zero, zero, good, two, factors=np.ones(2))
    with pytest.raises(DataError, match="labels must lie in"):
        measure_cost(zero - 1, zero, good, two)
    with pytest.raises(DataError, match="equally many"):
        subtype_factors([""], zero[:0], zero[:0], two)


def test_a_table_from_a_file(tmp_path: Path) -> None:
    """Named costs are taken, all others are the file's default, and right answers cost nothing."""
    path = tmp_path / "costs.toml"
    path.write_text('default = 0.5\n[costs.ig]\nneutrophil = 1\n[costs."red cell"]\nig = 0.1\n', encoding="utf-8")
    found = read_costs(path, ("ig", "neutrophil", "red cell"))
    assert found.tolist() == [[0, 1, 0.5], [0.5, 0, 0.5], [0.1, 0.5, 0]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[costs.igg]\nneutrophil = 1", "no class 'igg'; did you mean 'ig'"),
        ("[costs.ig]\nneutrophile = 1", "did you mean 'neutrophil'"),
        ("[costs.ig]\nneutrophil = 2", "'costs.ig.neutrophil' must be a number from 0 to 1, found 2"),
        ("[costs.ig]\nneutrophil = true", "must be a number from 0 to 1, found True"),
        ("[costs.ig]\nneutrophil = nan", "must be a number from 0 to 1, found nan"),
        ('[costs.ig]\nneutrophil = "dear"', "found 'dear'"),
        ("[costs.ig]\nig = 0.5", "is a right answer, which costs 0"),
        ("[costs]\nig = 0.5", "'costs.ig' must be a table"),
        ("[cost.ig]\nneutrophil = 1", "no such key 'cost'; did you mean 'costs'"),
        ("default = -1\n[costs.ig]\nneutrophil = 1", "'default' must be a number from 0 to 1"),
        ("default = 0.5", "names no cost"),
        ("costs = 3", "names no cost"),
        ("[costs", "not valid TOML"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    """Each thing that can be wrong in a table of costs is named, with the file."""
    path = tmp_path / "costs.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_costs(path, ("ig", "neutrophil"))
    assert said in str(caught.value)
    assert "costs.toml" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It is named, with the reason."""
    with pytest.raises(ConfigError, match="cannot read the table of costs"):
        read_costs(tmp_path / "no.toml", ("a", "b"))
