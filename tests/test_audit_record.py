"""An audit on disk: the same again when read, and one sentence for whatever is damaged."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audit_setup import cells, report, saved_audit

from hemascope.audit_record import SHOWN, SIDE, SavedAudit, load_audit, rows_shown, save_audit
from hemascope.audit_record.save import plain_json
from hemascope.cells import UNLABELLED
from hemascope.errors import DataError, RunError
from hemascope.findings import AuditReport


@pytest.fixture(scope="module")
def made() -> Any:
    return cells()


@pytest.fixture
def folder(tmp_path: Path, made: Any) -> Path:
    return saved_audit(tmp_path, made, report(made))


def same(left: Any, right: Any) -> None:
    """Fails where two values differ; arrays by type and content, NaN equal to NaN, sequences by content."""
    if hasattr(left, "__dataclass_fields__"):
        assert type(left) is type(right)
        for one in fields(left):
            same(getattr(left, one.name), getattr(right, one.name))
    elif isinstance(left, np.ndarray):
        assert left.dtype.kind == right.dtype.kind
        np.testing.assert_array_equal(left, right)
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            same(one, other)
    else:
        assert left == right


def test_saved_and_loaded_reports_are_equal(folder: Path, made: Any) -> None:
    """What is read is what was written: ids of any text, scores with NaN, findings, map, split, statistics."""
    given = report(made)
    results = [replace(one, summary=plain_json(one.summary)) for one in given.results]
    same(load_audit(folder).report, replace(given, results=results))


def test_a_report_without_split_map_or_labels_comes_back(tmp_path: Path, made: Any) -> None:
    """What an audit does not know stays unknown."""
    given = replace(report(made), split=None, map=None, labels=np.full(len(made), UNLABELLED), results=[])
    save_audit(tmp_path, given)
    same(load_audit(tmp_path), SavedAudit(given, {}))
    assert not (tmp_path / "map.parquet").exists()


def test_no_images_at_all_can_be_saved(tmp_path: Path, made: Any) -> None:
    """An empty audit is an audit."""
    empty = made.subset(np.array([], dtype=np.intp))
    given = AuditReport([], empty.ids, empty.content_hash, empty.labels, empty.class_names, "f", "s", "e")
    save_audit(tmp_path, given)
    assert len(load_audit(tmp_path).report) == 0


def test_pictures_are_small_and_of_the_rows_shown(folder: Path, made: Any) -> None:
    """Each row the page shows has one WebP of at most 96 pixels a side."""
    import io

    from PIL import Image

    pictures = load_audit(folder).pictures
    assert sorted(pictures) == rows_shown(report(made)).tolist()
    with Image.open(io.BytesIO(pictures[0])) as opened:
        assert opened.format == "WEBP"
        assert max(opened.size) <= SIDE


def test_large_pictures_are_made_small(tmp_path: Path, made: Any) -> None:
    """A picture of 300 × 200 pixels is kept with its proportions."""
    import io

    from PIL import Image

    save_audit(tmp_path, report(made), {0: np.zeros((200, 300, 3), dtype=np.uint8)})
    with Image.open(io.BytesIO(load_audit(tmp_path).pictures[0])) as opened:
        assert opened.size == (96, 64)


def test_only_the_worst_findings_are_shown(made: Any) -> None:
    """Of a check with many findings, pictures are kept of the first SHOWN and of what they were compared with."""
    given = replace(report(made), map=None)
    shown = set(rows_shown(given).tolist())
    assert {10, 11, 12, 13, 20, 21} <= shown
    assert 30 not in shown
    many = [replace(given.results[0].findings[0], id=f"{k}") for k in range(SHOWN + 40)]
    numbered = replace(
        given, ids=[str(k) for k in range(len(made))], results=[replace(given.results[0], findings=many)]
    )
    assert len(rows_shown(numbered)) == min(SHOWN, len(made))


def test_json_has_no_nan(folder: Path) -> None:
    """Every number of audit.json is one that JSON has."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    read = json.loads((folder / "audit.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert any(check["summary"].get("undefined", 0) is None for check in read["checks"])


def test_values_that_are_no_json_are_refused() -> None:
    """An object in a summary is an error of the check that made it, said at once."""
    with pytest.raises(DataError, match="plain values only, found object"):
        plain_json({"when": object()})


@pytest.mark.parametrize(
    ("row", "image", "message"),
    [
        (-1, np.zeros((4, 4, 3), np.uint8), "must be of a row from 0"),
        (10**6, np.zeros((4, 4, 3), np.uint8), "must be of a row from 0"),
        (0, np.zeros((4, 4), np.uint8), "must be uint8"),
        (0, np.zeros((4, 4, 3), np.float32), "must be uint8"),
    ],
)
def test_pictures_that_cannot_be_are_refused(tmp_path: Path, made: Any, row: int, image: Any, message: str) -> None:
    """A picture of no image, or no picture, is refused, and no finished audit is left."""
    with pytest.raises(DataError, match=message):
        save_audit(tmp_path, report(made), [(row, image)])
    assert not (tmp_path / "audit.json").exists()


def edited(folder: Path, change: Any) -> None:
    path = folder / "audit.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(version=99),
        lambda v: v.update(images=3),
        lambda v: v.update(surprise=1),
        lambda v: v.update(images="many"),
        lambda v: v.pop("checks"),
        lambda v: v.update(class_names=[]),
        lambda v: v["checks"].append(v["checks"][0]),
        lambda v: v["checks"][0].update(check="no_such"),
        lambda v: v["checks"][0]["findings"][0].update(score=1.5),
        lambda v: v["checks"][0]["findings"][0].update(suggestion="burn"),
        lambda v: v["checks"][0]["findings"][0].update(suggestion="relabel"),
        lambda v: v["map"].update(silhouette=7),
    ],
)
def test_an_audit_json_that_cannot_be_true_is_one_sentence(folder: Path, change: Any) -> None:
    """A record that was edited beyond what an audit says is refused with what to do."""
    edited(folder, change)
    with pytest.raises(RunError, match=r"Run hemascope audit again\.") as caught:
        load_audit(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["audit.json", "scores.parquet", "map.parquet", "pictures.parquet"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise"])
def test_damaged_files_are_one_sentence(folder: Path, name: str, damage: str) -> None:
    """A file that is missing, empty, cut short or something else gives one sentence that names it."""
    path = folder / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "noise": b"\x00\xff" * 500}[damage])
    with pytest.raises(RunError, match=name) as caught:
        load_audit(folder)
    assert "\n" not in str(caught.value)


def rewritten(path: Path, **columns: Any) -> None:
    table = pq.read_table(path)
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(
            place, name, pa.array(values(table.column(name).to_pylist()), table.schema[place].type)
        )
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("scores.parquet", {"blurred": lambda v: [2.0, *v[1:]]}),
        ("scores.parquet", {"blurred": lambda v: [None, *v[1:]]}),
        ("scores.parquet", {"label": lambda v: ["nobody", *v[1:]]}),
        ("scores.parquet", {"id": lambda v: [None, *v[1:]]}),
        ("map.parquet", {"row": lambda v: [10**9, *v[1:]]}),
        ("map.parquet", {"x": lambda v: [float("nan"), *v[1:]]}),
        ("pictures.parquet", {"row": lambda v: [-1, *v[1:]]}),
        ("pictures.parquet", {"webp": lambda v: [b"GIF89a", *v[1:]]}),
        ("pictures.parquet", {"webp": lambda v: [b"RIFF0000WEBP" + b"0" * 10**6, *v[1:]]}),
    ],
)
def test_tables_that_cannot_be_true_are_refused(folder: Path, name: str, columns: dict[str, Any]) -> None:
    """Values out of range, empty cells and pictures that are none are refused."""
    rewritten(folder / name, **columns)
    with pytest.raises(RunError, match=r"is damaged: .*Run hemascope audit again"):
        load_audit(folder)


def test_a_small_file_that_claims_many_rows_is_not_unpacked(folder: Path) -> None:
    """A few kilobytes that announce millions of points are refused before they are read."""
    rows = np.zeros(3_000_000, dtype=np.int64)
    table = pa.table({"row": rows, "x": rows.astype(np.float32), "y": rows.astype(np.float32)})
    pq.write_table(table, folder / "map.parquet", compression="zstd")
    with pytest.raises(RunError, match="more than can be true"):
        load_audit(folder)
