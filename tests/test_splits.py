"""Splits: shares, clusters, leaks, reuse."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hemascope.cells import UNLABELLED, CellDataset
from hemascope.config import DataConfig
from hemascope.data import load_splits, make_splits, save_splits
from hemascope.errors import OutputError, SplitError

CONFIG = DataConfig()


def make_cells(labels: object, hashes: object = None, groups: object = None, split: object = None) -> CellDataset:
    labels = np.asarray(labels, dtype=np.int64)
    count = len(labels)
    classes = int(max(labels.max(initial=0), 1)) + 1
    return CellDataset(
        images=np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint8), (count, 8, 8, 3)),
        labels=labels,
        class_names=tuple(f"class{i}" for i in range(classes)),
        ids=[f"cell{i}" for i in range(count)],
        content_hash=[str(h) for h in (range(count) if hashes is None else hashes)],
        groups=None if groups is None else np.asarray(groups, dtype=np.str_),
        split=None if split is None else np.asarray(split, dtype=np.str_),
    )


def parts_of(values: object, assignment: np.ndarray) -> dict[object, set[str]]:
    found: dict[object, set[str]] = {}
    for value, part in zip(values, assignment.tolist(), strict=True):
        found.setdefault(value, set()).add(part)
    return found


def test_shares_are_met_in_each_class() -> None:
    """Without groups every class is shared out to within one image of what was asked."""
    labels = np.repeat([0, 1, 2], [1000, 200, 40])
    splits = make_splits(make_cells(labels), CONFIG, seed=3)
    for label, count in enumerate((1000, 200, 40)):
        inside = splits.assignment[labels == label]
        for part, share in (("validation", 0.10), ("calibration", 0.05), ("test", 0.15), ("train", 0.70)):
            assert abs((inside == part).sum() - share * count) <= 1
    assert (
        splits.notes == () and splits.indices("test").tolist() == np.flatnonzero(splits.assignment == "test").tolist()
    )


def test_seed_decides() -> None:
    """The same seed gives the same split, another seed another."""
    cells = make_cells(np.arange(200) % 2)
    first, same, other = (make_splits(cells, CONFIG, seed).assignment for seed in (1, 1, 2))
    assert (first == same).all() and (first != other).any()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_clusters_never_straddle(data: st.DataObject) -> None:
    """Whatever the labels, copies and groups: what hangs together stays together, and every class is in each part."""
    count = data.draw(st.integers(3, 120))
    numbers = lambda top: data.draw(st.lists(st.integers(0, top), min_size=count, max_size=count))  # noqa: E731
    labels, hashes, groups = np.array(numbers(2)) - 0, numbers(count), [str(g or "") for g in numbers(count // 2)]
    labels = np.array([h % 3 for h in hashes]) if data.draw(st.booleans()) else labels
    cells = make_cells(labels, hashes, groups)
    try:
        splits = make_splits(cells, CONFIG, seed=0)
    except SplitError:
        return
    used = splits.assignment != "unused"
    for values in (np.array(hashes), np.array(groups)):
        keep = used & (values != "") if values.dtype.kind == "U" else used
        assert all(len(parts) == 1 for parts in parts_of(values[keep].tolist(), splits.assignment[keep]).values())
    for label in set(labels.tolist()):
        assert {"train", "validation", "test"} <= set(splits.assignment[labels == label].tolist())


def test_groups_and_copies_hang_together_transitively() -> None:
    """Copies that join two patients put both patients into one part."""
    labels = np.tile([0, 1], 100)
    groups = np.repeat([f"p{i}" for i in range(20)], 10)
    hashes = list(range(200))
    hashes[10] = hashes[0]  # p0 and p1 share an image
    hashes[30] = hashes[10]  # and p3
    splits = make_splits(make_cells(labels, hashes, groups), CONFIG, seed=0)
    joined = np.isin(groups, ["p0", "p1", "p3"])
    assert len(set(splits.assignment[joined].tolist())) == 1
    assert all(len(parts) == 1 for parts in parts_of(groups.tolist(), splits.assignment).values())


def test_group_shares_within_one_group() -> None:
    """With patients of several classes, each part's share is met within the size of one patient."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 3000)
    labels = rng.integers(0, 4, 3000)
    splits = make_splits(make_cells(labels, groups=groups.astype(str)), CONFIG, seed=0)
    largest = np.bincount(groups).max()
    for part, share in (("validation", 0.10), ("calibration", 0.05), ("test", 0.15), ("train", 0.70)):
        assert abs((splits.assignment == part).sum() - share * 3000) <= largest


def test_small_classes() -> None:
    """Three images of a class are enough for train, validation and test; two or two that are copies are not."""
    labels = np.array([0] * 50 + [1] * 3)
    splits = make_splits(make_cells(labels), CONFIG, seed=0)
    assert sorted(splits.assignment[50:].tolist()) == ["test", "train", "validation"]
    with pytest.raises(SplitError, match=r"class 'class1' \(2 images\) can be in"):
        make_splits(make_cells(labels[:-1]), CONFIG, seed=0)
    with pytest.raises(SplitError, match=r"class 'class1' \(3 images\).*duplicates and groups"):
        make_splits(make_cells(labels, hashes=[*range(50), 50, 50, 51]), CONFIG, seed=0)
    with pytest.raises(SplitError, match="one class, 'class0'"):
        make_splits(make_cells(labels[:50]), CONFIG, seed=0)
    with pytest.raises(SplitError, match="no image has a label"):
        make_splits(make_cells([-1] * 9), CONFIG, seed=0)
    with pytest.raises(SplitError, match="no image to split"):
        make_splits(make_cells([]), CONFIG, seed=0)
    with pytest.raises(SplitError, match=r"'class1' \(0 images\)"):
        make_splits(make_cells(labels[:50].tolist() + [2] * 9), CONFIG, seed=0)


def test_unlabelled_and_conflicting_are_unused() -> None:
    """Unlabelled images and copies with different labels are unused, each with a note that counts them."""
    labels = np.tile([0, 1], 30)
    labels[7] = -1
    hashes = list(range(60))
    hashes[11] = hashes[10]  # labels 1 and 0
    hashes[7] = hashes[20]  # unlabelled and 0: no conflict
    splits = make_splits(make_cells(labels, hashes), CONFIG, seed=0)
    assert np.flatnonzero(splits.assignment == "unused").tolist() == [7, 10, 11]
    assert splits.notes[0].startswith("1 unlabelled") and splits.notes[1].startswith("2 exact duplicates")


def test_own_split_is_kept_and_completed() -> None:
    """The source's own parts stay; calibration is half of its validation."""
    labels = np.tile([0, 1], 100)
    split = np.repeat(["train", "validation", "test"], [120, 40, 40])
    splits = make_splits(make_cells(labels, split=split), CONFIG, seed=0)
    for part in ("train", "test"):
        assert (splits.assignment[split == part] == part).all()
    inside = splits.assignment[split == "validation"]
    assert (inside == "validation").sum() == (inside == "calibration").sum() == 20
    assert any("no calibration part: 20 images" in note for note in splits.notes)


def test_own_split_without_validation_or_test() -> None:
    """Missing parts are taken from train, and that is said."""
    labels = np.tile([0, 1], 200)
    split = np.repeat(["train", "test"], [300, 100])
    splits = make_splits(make_cells(labels, split=split), CONFIG, seed=0)
    counts = dict(zip(*np.unique(splits.assignment, return_counts=True), strict=True))
    assert counts["test"] == 100 and 28 <= counts["validation"] <= 32 and 14 <= counts["calibration"] <= 16
    only_train = make_splits(make_cells(labels, split=["train"] * 400), CONFIG, seed=0)
    assert set(only_train.assignment.tolist()) == {"train", "validation", "calibration", "test"}
    with pytest.raises(SplitError, match="no training part"):
        make_splits(make_cells(labels, split=["test"] * 400), CONFIG, seed=0)
    with pytest.raises(SplitError, match=r"'class1'.*in test: its source's own split gives it none"):
        make_splits(make_cells(labels, split=np.where((labels == 1) & (split == "test"), "unused", split)), CONFIG, 0)


def test_own_split_leaks_are_mended() -> None:
    """Copies of test images elsewhere are unused; the test part stays as published, conflicts included."""
    labels = np.tile([0, 1], 100)
    split = np.repeat(["train", "validation", "calibration", "test"], [100, 30, 30, 40])
    hashes = list(range(200))
    hashes[0] = hashes[160] = 1000  # train and test, one label
    hashes[1] = hashes[101] = 1001  # train and validation
    hashes[2] = hashes[161] = 1002  # train and test, different labels
    splits = make_splits(make_cells(labels, hashes, split=split), CONFIG, seed=0)
    assert np.flatnonzero(splits.assignment == "unused").tolist() == [0, 1, 2]
    assert (splits.assignment[160:] == "test").all() and splits.assignment[101] == "validation"
    assert any("2 images" in note and "(1 of images in test)" in note for note in splits.notes)


def test_own_split_with_straddling_groups_is_said() -> None:
    """A patient in two parts of the source's own split is counted in a note."""
    labels, split = np.tile([0, 1], 50), np.repeat(["train", "validation", "test"], [60, 20, 20])
    groups = [f"p{i}" for i in range(100)]
    groups[99] = "p0"
    splits = make_splits(make_cells(labels, groups=groups, split=split), CONFIG, seed=0)
    assert any(note.startswith("1 groups lie in more than one part") for note in splits.notes)


def test_saved_splits_come_back(tmp_path: Path) -> None:
    """A saved split is readable JSON by id and loads equal, in whatever order its ids stand."""
    cells = make_cells(np.tile([0, 1, -1], 30))
    splits = make_splits(cells, CONFIG, seed=0)
    save_splits(tmp_path / "s.json", splits, cells)
    saved = json.loads((tmp_path / "s.json").read_text())
    assert saved["assignment"]["cell2"] == "unused" and saved["counts"]["unused"] == 30
    saved["assignment"] = dict(reversed(saved["assignment"].items()))
    (tmp_path / "s.json").write_text(json.dumps(saved))
    again = load_splits(tmp_path / "s.json", cells)
    assert (again.assignment == splits.assignment).all()
    assert (again.fingerprint, again.notes) == (splits.fingerprint, splits.notes)


def test_splits_of_other_cells_are_refused(tmp_path: Path) -> None:
    """Other ids, labels or pixels, a damaged file, an unknown part: one sentence each."""
    labels = np.tile([0, 1], 30)
    cells = make_cells(labels)
    splits = make_splits(cells, CONFIG, seed=0)
    path = tmp_path / "s.json"
    save_splits(path, splits, cells)
    whole = json.loads(path.read_text())
    for other in (make_cells(1 - labels), make_cells(labels, hashes=range(5, 65))):
        with pytest.raises(SplitError, match="labels or pixels have changed"):
            load_splits(path, other)
        with pytest.raises(SplitError, match="made for other cells"):
            save_splits(path, splits, other)
    with pytest.raises(SplitError, match=r"lists 60 images, here are 58"):
        load_splits(path, make_cells(labels[:58]))
    with pytest.raises(SplitError, match="'cell60' is not in it"):
        load_splits(path, make_cells(np.tile([0, 1], 31)))
    for content, message in (
        ("{", "not a split file"),
        ("[]", "not a split file"),
        ("[" * 100_000, "not a split file"),
        (json.dumps({"version": 1}), "damaged"),
        (json.dumps(whole | {"assignment": whole["assignment"] | {"cell0": "dev"}}), "part 'dev'"),
        (json.dumps(whole | {"assignment": whole["assignment"] | {"cell0": [1]}}), "part"),
    ):
        path.write_text(content)
        with pytest.raises(SplitError, match=message):
            load_splits(path, cells)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SplitError, match="not a split file"):
        load_splits(path, cells)
    with pytest.raises(SplitError, match="cannot read"):
        load_splits(tmp_path / "no.json", cells)
    with pytest.raises(OutputError, match="cannot write"):
        save_splits(path / "below.json", splits, cells)


def test_large_sets_take_seconds() -> None:
    """200,000 cells with copies and patients are split in a few seconds: nothing in it is quadratic."""
    rng = np.random.default_rng(0)
    count = 200_000
    hashes = rng.integers(0, count * 20, count)
    groups = np.where(rng.random(count) < 0.5, "", rng.integers(0, 5000, count).astype(str))
    cells = make_cells(hashes % 8, hashes, groups)
    begun = time.perf_counter()
    splits = make_splits(cells, CONFIG, seed=0)
    assert time.perf_counter() - begun < 10
    assert abs((splits.assignment == "test").mean() - 0.15) < 0.01


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_an_edited_split_without_a_part_is_refused(tmp_path: Path, part: str) -> None:
    """A hand-edited file that leaves a part empty, or uses a cell without a label, is one sentence."""
    labels = np.array([0, 1] * 30 + [UNLABELLED])
    cells = make_cells(labels)
    path = tmp_path / "s.json"
    save_splits(path, make_splits(cells, CONFIG, seed=0), cells)
    whole = json.loads(path.read_text())
    emptied = {name: "unused" if given == part else given for name, given in whole["assignment"].items()}
    path.write_text(json.dumps(whole | {"assignment": emptied}))
    with pytest.raises(SplitError, match=f"can be in {part}"):
        load_splits(path, cells)
    path.write_text(json.dumps(whole | {"assignment": whole["assignment"] | {"cell60": part}}))
    with pytest.raises(SplitError, match="without a label"):
        load_splits(path, cells)
