"""Cleaning by a ledger: what is applied, that it can be undone, that twice is once, and what can be wrong."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hemascope.audit.clean_plan import plan_cleaning
from hemascope.audit.cleaned_store import RECORD, REMOVED, open_original, read_record
from hemascope.audit.cleaning import clean, undo
from hemascope.cells import CellDataset, Unreadable
from hemascope.cli import main
from hemascope.config import Preparation, Resize
from hemascope.data import load, open_store, write_store
from hemascope.data.store import StoreRow
from hemascope.errors import DataError, LedgerError, OutputError, StoreError, UsageError
from hemascope.ledger import Ledger, LedgerRow, read_ledger, write_ledger
from hemascope.manifest import describe_data

SMALL = Preparation(resizes=(Resize(size=8),))
CLASSES = ("basophil", "monocyte", "platelet")
N = 9


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def content(seed: int) -> str:
    return f"{seed:032x}"


def make_store(path: Path, contents: list[int] | None = None, *, split: bool = False, prefix: str = "") -> CellDataset:
    """Cells i of label i mod 3; two cells of equal numbers in ``contents`` have equal pixels. One was unreadable."""
    numbers = list(range(N)) if contents is None else contents
    rows: list[StoreRow | Unreadable] = [
        StoreRow(f"{prefix}{i}", i % 3, image(k), content(k), 20 + i, 30, *(("test", f"p{i}") if split else ()))
        for i, k in enumerate(numbers)
    ]
    rows.append(Unreadable("broken", "cannot be decoded"))
    return write_store(path, rows, class_names=CLASSES, preparation=SMALL, source="here", notes={"x": 2})


def row(i: int, decision: str = "drop", k: int | None = None, **changes: object) -> LedgerRow:
    blank = LedgerRow(str(i), content(i if k is None else k), "off_topic", 0.1, "drop", decision=decision)
    return replace(blank, label=CLASSES[i % 3], **changes)


def copy_of(i: int, other: int, k: int, **changes: object) -> LedgerRow:
    """The finding that cell i is a copy of cell ``other``, both with the pixels k, accepted."""
    found = row(i, "accept", k, check="exact_duplicate", related=str(other), related_hash=content(k))
    return replace(found, **changes)


def save(folder: Path, *rows: LedgerRow) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return write_ledger(folder, Ledger(rows))


def same(first: CellDataset, second: CellDataset) -> bool:
    """Equal in everything that is stored, pixels included."""

    def facts(cells: CellDataset) -> list[object]:
        return [
            cells.fingerprint(),
            cells.class_names,
            cells.source,
            dict(cells.notes),
            cells.unreadable,
            cells.preparation,
            cells.cleaning,
            *(
                None if value is None else value.tolist()
                for value in (cells.split, cells.groups, cells.original_size, cells.images)
            ),
        ]

    return facts(first) == facts(second)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- properties --------------------------------------------------------------------------------------------------

DECISIONS = st.lists(
    st.sampled_from(["", "fine", "accept", "drop", "relabel to monocyte", "relabel to platelet"]),
    min_size=N,
    max_size=N,
).filter(lambda decisions: any(decision not in ("accept", "drop") for decision in decisions))


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DECISIONS, DECISIONS, st.booleans())
def test_twice_is_once_and_undo_restores(tmp_path: Path, first: list[str], second: list[str], split: bool) -> None:
    """Applying twice changes no byte; another ledger on the cleaned store is as on the data; undo gives all back."""
    shutil.rmtree(tmp_path, ignore_errors=True)
    data, store = tmp_path / "data.store", tmp_path / "clean.store"
    cells = make_store(data, split=split)
    ledger = save(tmp_path / "a", *(row(i, decision) for i, decision in enumerate(first)))
    cleaned = clean(data, ledger, store)
    dropped = {i for i, decision in enumerate(first) if decision in ("accept", "drop")}
    assert cleaned.written and list(cleaned.cells.ids) == [str(i) for i in range(N) if i not in dropped]
    for place, name in enumerate(cleaned.cells.ids):
        decision, label = first[int(name)], CLASSES[cleaned.cells.labels[place]]
        assert label == (decision.removeprefix("relabel to ") if "relabel" in decision else CLASSES[int(name) % 3])
        assert (cleaned.cells.images[place] == image(int(name))).all()
    assert (
        cleaned.cells.cleaning
        == cleaned.ledger.fingerprint()
        == load(store, preparation=SMALL, max_unreadable=1).cleaning
    )
    assert list(open_store(store / REMOVED).ids) == [str(i) for i in sorted(dropped)]

    before = snapshot(store)
    assert not clean(data, ledger, store).written and not clean(store, ledger, store).written
    assert snapshot(store) == before

    other = save(tmp_path / "b", *(row(i, decision) for i, decision in enumerate(second)))
    clean(store, other, store)
    assert same(open_store(store), clean(data, other, tmp_path / "fresh.store").cells)
    path, restored = undo(store)
    assert path == store and same(restored, cells) and same(open_store(store), cells)
    with pytest.raises(StoreError, match="no cleaning to undo"):
        undo(store)
    assert read_ledger(store / "ledger.csv").rows == read_ledger(other).rows
    assert clean(data, other, store).written  # the restored store may be cleaned again


# --- what is applied ---------------------------------------------------------------------------------------------


def plan(tmp_path: Path, contents: list[int] | None, *rows: LedgerRow, prefix: str = "") -> tuple[list[int], list[str]]:
    """What would be removed, and what is warned of."""
    cells = make_store(tmp_path / "s", contents, prefix=prefix)
    found = plan_cleaning(cells, Ledger(rows))
    return np.flatnonzero(found.removed).tolist(), list(found.warnings)


def test_dropping_wins_over_relabelling(tmp_path: Path) -> None:
    """An image both dropped and relabelled is dropped, and two relabels of it are then no contradiction."""
    removed, warnings = plan(
        tmp_path, None, row(1, "relabel to monocyte"), row(1), row(1, "relabel to platelet", check="blurred")
    )
    assert removed == [1] and not warnings


def test_two_labels_for_one_image(tmp_path: Path) -> None:
    """Two different relabels are refused with both rows of the ledger; the same one twice is fine."""
    data = tmp_path / "d"
    make_store(data)
    rows = (row(0, ""), row(1, "relabel to platelet"), row(1, "relabel to basophil", check="blurred"))
    with pytest.raises(LedgerError, match=r"row 3 of the ledger and row 4 .* give 1 two labels, platelet and basophil"):
        clean(data, save(tmp_path / "a", *rows), tmp_path / "o")
    assert not (tmp_path / "o").exists()
    agreed = clean(data, save(tmp_path / "a", rows[1], replace(rows[1], check="blurred")), tmp_path / "o")
    assert agreed.plan.relabelled_by == {"off_topic": 1} and agreed.cells.labels[1] == 2


def test_of_copies_one_stays(tmp_path: Path) -> None:
    """Equal pixels: ids tell copies apart, the cluster's kept one stays, and renamed copies still leave one."""
    contents = [0, 1, 1, 1, 4, 5]
    ledger = (copy_of(2, 1, 1), copy_of(3, 1, 1))
    assert plan(tmp_path, contents, *ledger) == ([2, 3], [])
    assert plan(tmp_path, contents, *ledger, prefix="renamed/") == ([2, 3], [])
    assert plan(tmp_path, contents, copy_of(1, 3, 1), copy_of(2, 3, 1)) == ([1, 2], [])
    removed, warnings = plan(tmp_path, [0, 7, 1, 3, 4, 5], *ledger)  # the last copy under a copy's name
    assert removed == [] and "copies of images that are not there" in warnings[-1]
    removed, _ = plan(tmp_path, [0, 1, 6, 3, 4, 5], *ledger)  # the kept one alone
    assert removed == []


def test_a_renamed_copy_is_told_by_its_label(tmp_path: Path) -> None:
    """Of renamed copies with different labels, the one with the label of the finding goes."""
    contents = [0, 1, 1, 1, 4, 5]  # labels of the copies: monocyte, platelet, basophil
    ledger = copy_of(2, 9, 1, check="conflicting_label")
    assert plan(tmp_path, contents, replace(ledger, label="basophil"), prefix="r/")[0] == [3]
    assert plan(tmp_path, contents, replace(ledger, label="platelet"), prefix="r/")[0] == [2]


def test_a_renamed_image_is_found_by_its_pixels(tmp_path: Path) -> None:
    """A file may have got another name, and several findings may know it by several names."""
    assert plan(tmp_path, None, row(3), prefix="new/") == ([3], [])
    rows = (row(3, "fine"), row(3, check="blurred", id="older name"))
    assert plan(tmp_path, None, *rows) == ([3], [])


def test_what_is_said(tmp_path: Path) -> None:
    """A cluster of which nothing stays, an emptied class and absent pictures are each said."""
    removed, warnings = plan(tmp_path, [0, 1, 1, 3, 4, 5], copy_of(2, 1, 1), row(1))
    assert removed == [1, 2]
    assert "1 images go as copies of images that go too" in warnings[0] and "2 and 1" in warnings[0]
    _, warnings = plan(tmp_path, None, *(row(i) for i in (0, 3, 6)))
    assert warnings == ["the class basophil loses all its 3 images"]
    _, warnings = plan(tmp_path, None, row(0), row(1), row(5, k=99), row(3, "", k=98))
    assert warnings[0].startswith("1 decided findings are about pictures that are not among these")
    unreadable = LedgerRow("broken", "", "unreadable", 0.0, "drop", decision="accept")
    assert plan(tmp_path, None, row(0), unreadable) == ([0], [])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row(0), row(1, k=91), row(2, "", k=92)], "2 of its 3 findings"),
        ([row(i) for i in range(N)], "drops every image"),
        ([row(0, "relabel to monocyt")], "row 2 of the ledger: .* no class 'monocyt'; did you mean 'monocyte'"),
    ],
)
def test_ledgers_that_cannot_be_applied(tmp_path: Path, rows: list[LedgerRow], said: str) -> None:
    """Other cells, nothing left and an unknown class are refused, and neither store nor ledger is written."""
    make_store(tmp_path / "d")
    ledger = save(tmp_path / "a", *rows, row(8, ""))
    if "every" in said:
        ledger = save(tmp_path / "a", *rows)
    if "2 of its 3" in said:
        ledger = save(tmp_path / "a", *rows)
    before = snapshot(tmp_path / "a")
    with pytest.raises(LedgerError, match=said):
        clean(tmp_path / "d", ledger, tmp_path / "o", accept="all", by="ada")
    assert snapshot(tmp_path / "a") == before and not (tmp_path / "o").exists()


def test_accepting_is_written_to_the_ledger(tmp_path: Path) -> None:
    """``accept`` decides open findings of a check in both files, with by, time and reason, then applies them."""
    make_store(tmp_path / "d")
    path = save(
        tmp_path / "a", row(0, ""), row(1, "fine"), row(2, "", check="blurred"), row(3, "", suggestion="review")
    )
    cleaned = clean(tmp_path / "d", path, tmp_path / "o", accept=["off_topic"], by="ada", reason="overlays")
    assert cleaned.accepted == 1 and list(cleaned.cells.ids) == [str(i) for i in range(1, N)]
    for name in ("ledger.csv", "ledger.json"):
        rows = read_ledger(tmp_path / "a" / name).rows
        assert [one.decision for one in rows] == ["accept", "fine", "", ""]
        assert (rows[0].decided_by, rows[0].reason) == ("ada", "overlays") and rows[0].decided_at[:2] == "20"
    assert read_ledger(tmp_path / "o" / "ledger.json").rows == rows
    with pytest.raises(UsageError, match="did you mean 'off_topic'"):
        clean(tmp_path / "d", path, tmp_path / "o", accept=["offtopic"])


def test_decisions_without_effect_reach_the_store(tmp_path: Path) -> None:
    """A finding marked fine later rewrites the ledger in the store, not the store, so that later audits know."""
    make_store(tmp_path / "d")
    clean(tmp_path / "d", save(tmp_path / "a", row(0), row(1, "")), tmp_path / "o")
    images = (tmp_path / "o" / "images.npy").stat().st_ino
    again = clean(tmp_path / "d", save(tmp_path / "a", row(0), row(1, "fine")), tmp_path / "o")
    assert not again.written and (tmp_path / "o" / "images.npy").stat().st_ino == images
    assert read_ledger(tmp_path / "o" / "ledger.csv").rows[1].decision == "fine"


def test_unreadable_images_dropped_for_good(tmp_path: Path) -> None:
    """An unreadable image that was decided about is not reported by the cleaned store, and is again after undo."""
    cells = make_store(tmp_path / "d")
    bad = LedgerRow("broken", "", "unreadable", 0.0, "drop", decision="accept")
    ledger = save(tmp_path / "a", bad, row(0))
    assert clean(tmp_path / "d", ledger, tmp_path / "o").cells.unreadable == ()
    assert not clean(tmp_path / "o", ledger, tmp_path / "o").written
    assert same(undo(tmp_path / "o")[1], cells)


def test_from_a_folder_of_files(tmp_path: Path) -> None:
    """From image files: prepared, cleaned, restored to what ``load`` gives; a manifest names the ledger."""
    for i in range(6):
        path = tmp_path / "d" / CLASSES[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image(i)).save(path)
    cells = load(tmp_path / "d", preparation=SMALL)
    found = LedgerRow(cells.ids[1], cells.content_hash[1], "blurred", 0.1, "drop", decision="accept")
    cleaned = clean(tmp_path / "d", save(tmp_path / "a", found), tmp_path / "o", preparation=SMALL)
    assert cleaned.cells.preparation == SMALL.describe() and len(cleaned.cells) == 5
    assert describe_data(cleaned.cells, {})["cleaning"] == cleaned.ledger.fingerprint()
    assert describe_data(cells, {})["cleaning"] == ""
    _, restored = undo(tmp_path / "o", tmp_path / "back")
    assert same(restored, cells) and len(open_store(tmp_path / "o")) == 5
    with pytest.raises(StoreError, match="was packed with"):
        clean(tmp_path / "o", save(tmp_path / "a", found), tmp_path / "p", preparation=Preparation())


# --- places and damage -------------------------------------------------------------------------------------------


def test_only_a_store_of_these_cells_is_replaced(tmp_path: Path) -> None:
    """A folder, a file, and a store of other cells are left as they are."""
    make_store(tmp_path / "d")
    make_store(tmp_path / "other", [20, 21, 22])
    clean(tmp_path / "other", save(tmp_path / "b", row(0, k=20)), tmp_path / "other clean")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    ledger = save(tmp_path / "a", row(0))
    for name, said in (
        ("folder", "no packed store"),
        ("file", "no packed store"),
        ("other", "other cells"),
        ("other clean", "other cells"),
    ):
        with pytest.raises(OutputError, match=said):
            clean(tmp_path / "d", ledger, tmp_path / name)
    assert clean(tmp_path / "d", ledger, tmp_path / "d").written  # in place: the store holds all it held
    assert len(open_original(tmp_path / "d").cells) == N


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r | {"version": 2}, "version 2"),
        (lambda r: r | {"removed": [0, 0]}, "rows that cannot be"),
        (lambda r: r | {"removed": [N]}, "rows that cannot be"),
        (lambda r: r | {"removed": [10**30]}, "damaged|rows that cannot be"),
        (lambda r: r | {"removed": [0, 1]}, "is damaged: 8 cells kept and 1 removed"),
        (lambda r: r | {"removed": [3]}, "not those that were cleaned"),
        (lambda r: r | {"old_labels": [[99, 0]]}, "rows that cannot be"),
        (lambda r: r | {"old_labels": [[1, 7]]}, "labels must lie in"),
        (lambda r: r | {"old_labels": [[1, 10**30]]}, "damaged"),
        (lambda r: r | {"unreadable": [0]}, "lists of unreadable"),
        (lambda r: {"version": 1}, "damaged"),
        (lambda r: None, "cleaned but has no"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, change: object, said: str) -> None:
    """A changed or missing cleaning.json is a StoreError, and the store stays as it was."""
    make_store(tmp_path / "d")
    clean(tmp_path / "d", save(tmp_path / "a", row(0), row(1, "relabel to platelet")), tmp_path / "o")
    file = tmp_path / "o" / RECORD
    changed = change(json.loads(file.read_text()))
    file.unlink() if changed is None else file.write_text(json.dumps(changed))
    before = snapshot(tmp_path / "o")
    with pytest.raises(StoreError, match=said) as caught:
        undo(tmp_path / "o")
    assert "\n" not in str(caught.value)
    assert snapshot(tmp_path / "o") == before and not list(tmp_path.glob(".*"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux swaps two names in one step")
def test_a_folder_is_never_missing_while_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After no step of replacing a store is its place empty, so a kill at any moment leaves the old or the new."""
    make_store(tmp_path / "s")
    ledger = save(tmp_path / "a", row(0))
    there = []
    rename, remove = os.replace, shutil.rmtree

    def watched(source: object, target: object) -> None:
        rename(source, target)
        there.append((tmp_path / "s" / "store.json").exists())

    def removed(*arguments: object, **options: object) -> None:
        there.append((tmp_path / "s" / RECORD).exists())  # nothing old is removed before the new is in its place
        remove(*arguments, **options)

    monkeypatch.setattr("hemascope.atomic.os.replace", watched)
    monkeypatch.setattr("hemascope.atomic.shutil.rmtree", removed)
    clean(tmp_path / "s", ledger, tmp_path / "s")
    assert there and all(there) and list(open_store(tmp_path / "s").ids) == [str(i) for i in range(1, N)]


# --- the verb ----------------------------------------------------------------------------------------------------


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, ["clean", *map(str, words)])


def test_the_verb(tmp_path: Path) -> None:
    """Clean, again, and undo, in words and as JSON."""
    cells = make_store(tmp_path / "d")
    ledger = save(tmp_path / "a", row(0, ""), row(1, "relabel to platelet"), row(2, "", check="blurred"))
    words = (tmp_path / "d", "--ledger", ledger, "-o", tmp_path / "o")
    first = invoke(*words, "--accept", "off_topic", "--by", "ada", "--reason", "overlay")
    assert first.exit_code == 0, first.output
    for part in (
        "Accepted now: 1 findings",
        "8 cells kept, 1 removed, 1 given another label",
        "removed by off_topic: 1",
        "1 findings are undecided",
        "bicubic to 8",
        "--undo",
    ):
        assert part in first.output
    again = invoke(*words)
    assert again.exit_code == 0 and "nothing was written" in again.output
    found = json.loads(invoke(*words, "--json").stdout)
    assert (found["kept"], found["removed"], found["written"]) == (8, 1, False)
    assert found["before"] == cells.fingerprint() and found["ledger"] == open_store(tmp_path / "o").cleaning
    back = invoke(tmp_path / "d", "-o", tmp_path / "o", "--undo", "--json")
    assert json.loads(back.stdout)["fingerprint"] == cells.fingerprint()
    assert "all 9 cells are back" in (invoke(*words) and invoke(tmp_path / "o", "--undo")).output


def test_a_ledger_that_decides_nothing(tmp_path: Path) -> None:
    """Nothing to apply is said, and the store is written all the same and opens."""
    cells = make_store(tmp_path / "d")
    result = invoke(tmp_path / "d", "--ledger", save(tmp_path / "a", row(0, ""), row(1, "fine")), "-o", tmp_path / "o")
    assert result.exit_code == 0 and "decides nothing that changes a cell" in result.output
    assert open_store(tmp_path / "o").fingerprint() == cells.fingerprint()
    assert read_record(tmp_path / "o").removed == []


def test_the_emptied_class_is_warned_of(tmp_path: Path) -> None:
    """Warnings of the plan reach stderr."""
    make_store(tmp_path / "d")
    result = invoke(tmp_path / "d", "--ledger", save(tmp_path / "a", row(0), row(3), row(6)), "-o", tmp_path / "o")
    assert result.exit_code == 0 and "The class basophil loses all its 3 images." in result.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["{d}"], 2, "give the decisions with --ledger"),
        (["{d}", "--ledger", "{a}"], 2, "give the decisions with --ledger"),
        (["{d}", "--ledger", "{a}", "-o", "{o}", "--undo"], 2, "--undo puts everything back"),
        (["{d}", "--ledger", "{a}", "-o", "{o}", "--by", "me"], 2, "give --accept"),
        (["{d}", "--ledger", "{a}", "-o", "{o}", "--accept", "blury"], 2, "did you mean 'blurred'"),
        (["{d}", "--ledger", "{a}x", "-o", "{o}"], 1, "no ledger by its name"),
        (["{d}", "--ledger", "none.csv", "-o", "{o}"], 1, "No such file"),
        (["{d}x", "--ledger", "{a}", "-o", "{o}"], 1, "does not exist"),
        (["{d}", "--ledger", "{a}", "-o", "{o}", "--names", "a,b"], 1, "holds the classes"),
        (["{d}", "--undo"], 1, "no cleaning to undo"),
        (["{d}", "-o", "{o}", "--undo"], 1, "does not exist, so there is no cleaning to undo"),
        (["{a}", "--undo"], 1, "is not a packed store"),
    ],
)
def test_wrong_calls(tmp_path: Path, words: list[str], status: int, said: str) -> None:
    """Each wrong call is one sentence with the right exit status, and nothing is written."""
    make_store(tmp_path / "d")
    ledger = save(tmp_path / "a", row(0))
    before = snapshot(tmp_path)
    result = invoke(*(word.format(d=tmp_path / "d", a=ledger, o=tmp_path / "o") for word in words))
    assert result.exit_code == status and said in result.stderr, result.output
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert snapshot(tmp_path) == before


def test_data_error_is_their_root() -> None:
    """A ledger that does not fit is a kind of data error, so callers may catch that."""
    assert issubclass(LedgerError, DataError)
