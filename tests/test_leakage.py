"""Leakage between the parts of a split: exact copies, edited copies, groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from hemascope.audit.leakage import check_leakage
from hemascope.audit.material import Material
from hemascope.audit.measure import measure_prepared
from hemascope.cells import CellDataset
from hemascope.embeddings import Embeddings
from hemascope.errors import SplitError

NONE = np.zeros(0, dtype=np.int64)


def material(
    hashes: Sequence[str], split: Sequence[str] | None, groups: Sequence[str] | None = None, labels: int = 0
) -> Material:
    count = len(hashes)
    cells = CellDataset(
        images=np.zeros((count, 8, 8, 3), np.uint8),
        labels=np.full(count, labels, dtype=np.int64),
        class_names=("ig",),
        ids=[f"{i}.png" for i in range(count)],
        content_hash=list(hashes),
        split=None if split is None else np.array(split),
        groups=None if groups is None else np.array(groups),
    )
    return Material(cells, measure_prepared(cells), Embeddings(np.zeros((count, 1), np.float16), (), "none"))


def found(result: object) -> dict[str, tuple[float, str, str]]:
    return {one.id: (one.score, one.suggestion, one.related) for one in result.findings}  # type: ignore[attr-defined]


def test_exact_copies_are_dropped_where_they_are_worth_less():
    """Of copies in several parts the one in test stays; those in validation, calibration and train are findings."""
    parts = ["train", "calibration", "validation", "test", "train", "train"]
    result = check_leakage(material(["a", "a", "a", "a", "b", "c"], parts), NONE, NONE)
    assert found(result) == {f"{i}.png": (0.0, "drop", "3.png") for i in range(3)}
    assert result.summary["from_to"] == {"train → test": 1, "calibration → test": 1, "validation → test": 1}
    assert result.summary["exact"] == 3 and result.cut == 0.5
    assert result.scores is not None and result.scores[3:].tolist() == [1, 1, 1]


def test_copies_in_one_part_do_not_leak():
    """Copies that share a part, and copies nobody uses, are no leak."""
    result = check_leakage(material(["a", "a", "b", "b"], ["train", "train", "unused", "test"]), NONE, NONE)
    assert result.passed and result.scores is not None
    assert np.isnan(result.scores).tolist() == [False, False, True, False]


def test_edited_copies_leak_through_exact_ones():
    """A near duplicate of a copy of a test image leaks too, whichever copy the pair names and either way round."""
    hashes, parts = ["a", "b", "b", "c"], ["train", "train", "test", "test"]
    for left, right in ((0, 1), (1, 0)):
        result = check_leakage(material(hashes, parts), np.array([left]), np.array([right]))
        assert found(result) == {"1.png": (0.0, "drop", "2.png"), "0.png": (0.25, "drop", "2.png")}
        assert (result.summary["exact"], result.summary["near"]) == (1, 1)


def test_of_several_neighbours_the_most_precious_part_counts():
    """An image with edited copies in validation and in test is compared with the one in test."""
    parts = ["train", "validation", "test", "calibration"]
    result = check_leakage(material(["a", "b", "c", "d"], parts), np.array([0, 0, 0]), np.array([3, 1, 2]))
    assert found(result) == {"0.png": (0.25, "drop", "2.png")}


def test_groups_across_parts_are_for_review():
    """Images of a patient who is also in test are to be reviewed, and a copy among them is still named a copy."""
    hashes, parts = ["a", "b", "c", "d", "c"], ["train", "train", "test", "test", "train"]
    result = check_leakage(material(hashes, parts, ["p1", "p1", "p1", "", ""]), NONE, NONE)
    assert found(result) == {
        "4.png": (0.0, "drop", "2.png"),
        "0.png": (0.5, "review", "2.png"),
        "1.png": (0.5, "review", "2.png"),
    }
    assert result.summary["images_in_shared_groups"] == 2 and result.summary["groups_known"]


def test_a_split_that_is_given_replaces_the_source_s():
    """A run's split is judged instead of the source's own; without either the check is not applicable, not passed."""
    cells = material(["a", "a"], None, labels=-1)
    missing = check_leakage(cells, NONE, NONE)
    assert not missing.passed and "no split" in missing.not_applicable
    given = check_leakage(cells, NONE, NONE, split=["train", "test"])
    assert list(found(given)) == ["0.png"] and given.findings[0].label == ""
    assert "one part" in check_leakage(cells, NONE, NONE, split=["test", "test"]).not_applicable


def test_a_split_that_does_not_fit_is_refused():
    """A split of another length or with an unknown part is an error that says so."""
    cells = material(["a", "b"], None)
    with pytest.raises(SplitError, match="each of 2 images, found 1"):
        check_leakage(cells, NONE, NONE, split=["train"])
    with pytest.raises(SplitError, match="'holdout'"):
        check_leakage(cells, NONE, NONE, split=["train", "holdout"])


def test_against_a_plain_search():
    """On random copies, pairs, groups and parts, the findings are those of a loop over all pairs of images."""
    rng = np.random.default_rng(3)
    order = ["test", "validation", "calibration", "train"]
    for _ in range(30):
        n = int(rng.integers(4, 25))
        hashes = [str(one) for one in rng.integers(0, n, n)]
        groups = [str(one) if one else "" for one in rng.integers(0, n, n)]
        parts = [[*order, "unused"][one] for one in rng.integers(0, 5, n)]
        left, right = rng.integers(0, n, (2, 3))
        if len(set(parts) - {"unused"}) < 2:
            continue
        near = {(hashes[a], hashes[b]) for a, b in zip(left, right, strict=True)}
        near |= {(b, a) for a, b in near}
        expected = {}
        for i in range(n):
            for j in range(n):
                if "unused" in (parts[i], parts[j]) or order.index(parts[j]) >= order.index(parts[i]):
                    continue
                same = groups[i] == groups[j] != ""
                score = 0.0 if hashes[i] == hashes[j] else 0.25 if (hashes[i], hashes[j]) in near else 0.5
                if score < 0.5 or same:
                    expected[f"{i}.png"] = min(score, expected.get(f"{i}.png", 1.0))
        result = check_leakage(material(hashes, parts, groups), left, right)
        assert {one.id: one.score for one in result.findings} == expected
