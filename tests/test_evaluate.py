"""Evaluations and predictions on disk, tables for people, galleries of mistakes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hemascope.errors import DataError, OutputError, RunError, UsageError
from hemascope.evaluation import (
    build_evaluation,
    evaluate_split,
    load_evaluation,
    load_predictions,
    save_evaluation,
    save_gallery,
    save_predictions,
    write_table,
)
from hemascope.results import Mistake, Predictions

NAMES = ("basophil", "band, young", '50 % "ig"')


def some(n: int = 12, seed: int = 0, *, labelled: bool = True, broken: tuple[int, ...] = ()) -> Predictions:
    """Predictions about n cells of three classes; the rows in ``broken`` could not be read."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3)).astype(np.float32) * 2
    probs = np.exp(logits)
    probs /= probs.sum(1, keepdims=True)
    rows = list(broken)
    logits[rows] = probs[rows] = np.nan
    return Predictions(
        ids=[f"cells/{i}.png" for i in range(n)],
        class_names=NAMES,
        logits=logits,
        probs=probs,
        labels=rng.integers(0, 3, n) if labelled else None,
        errors=["truncated file" if i in broken else "" for i in range(n)] if broken else (),
    )


def test_a_split_is_scored_on_what_can_be_scored() -> None:
    """Unreadable and unlabelled rows change no number and are counted in left_out over all splits."""
    predictions = some(40, broken=(3, 7))
    assert predictions.labels is not None
    predictions.labels[5] = -1
    keep = [i for i in range(40) if i not in (3, 5, 7)]
    clean = Predictions(
        [predictions.ids[i] for i in keep],
        NAMES,
        predictions.logits[keep],
        predictions.probs[keep],
        predictions.labels[keep],
    )
    evaluation = build_evaluation({"test": predictions, "train": clean}, resamples=100, seed=3)
    assert evaluation.left_out == 3
    assert evaluation.splits["test"].metrics == evaluate_split("test", clean, resamples=100, seed=3).metrics
    split = evaluation.splits["test"]
    assert split.n == 37 == sum(map(sum, split.confusion))
    assert [one.support for one in split.per_class] == np.bincount(clean.labels, minlength=3).tolist()  # type: ignore[arg-type]
    right = (clean.predicted == clean.labels).mean()
    assert split.metrics["accuracy"].value == pytest.approx(right)


def test_nothing_to_score_is_said() -> None:
    """No labels, no splits or differing classes raise DataError; a split with nothing left has n = 0 and no values."""
    with pytest.raises(DataError, match="no true labels"):
        evaluate_split("test", some(labelled=False))
    with pytest.raises(DataError, match="no split"):
        build_evaluation({})
    other = Predictions(["a"], ("x", "y"), np.zeros((1, 2), np.float32), np.full((1, 2), 0.5, np.float32))
    with pytest.raises(DataError, match="disagree about the classes"):
        build_evaluation({"train": some(), "test": other})
    empty = evaluate_split("test", some(2, broken=(0, 1)), resamples=100)
    assert empty.n == 0 and empty.metrics["accuracy"].value is None


def test_evaluation_round_trip(tmp_path: Path) -> None:
    """What is saved is what is read, down to the last digit."""
    evaluation = build_evaluation({"test": some(30)}, resamples=100, data_source="folder", data_fingerprint="ab")
    save_evaluation(tmp_path / "run" / "evaluation.json", evaluation)
    assert load_evaluation(tmp_path / "run" / "evaluation.json") == evaluation


def damaged(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | changes))


def test_damaged_evaluations_are_refused_in_a_sentence(tmp_path: Path) -> None:
    """Missing, cut short, of another version, of wrong shape, nested without end, or leading elsewhere: RunError."""
    path = tmp_path / "evaluation.json"
    with pytest.raises(RunError, match="does not exist"):
        load_evaluation(path)
    evaluation = build_evaluation({"test": some(30)}, resamples=100)
    save_evaluation(path, evaluation)
    whole = path.read_text()
    damaged(path, version=99)
    with pytest.raises(RunError, match="version 99, this hemascope reads version 1"):
        load_evaluation(path)
    for text in (whole[: len(whole) // 2], "", "[" * 100_000, whole.replace('"seed": 0', '"seed": NaN'), "\x00\xff"):
        path.write_text(text)
        with pytest.raises(RunError, match="is not JSON"):
            load_evaluation(path)
    for text in ("[]", "null", "3", "{}"):
        path.write_text(text)
        with pytest.raises(RunError, match="damaged"):
            load_evaluation(path)
    path.write_text(whole)
    damaged(path, class_names=["one"])
    with pytest.raises(RunError, match="not those of the run"):
        load_evaluation(path)
    mistake = Mistake(id="a", picture="", true_label="x", predicted_label="y", probability=1, true_probability=0)
    for picture in ("../../secret.png", "/etc/secret.png", "C:\\secret.png", "a\\..\\..\\b.png", ""):
        path.write_text(whole)
        damaged(path, worst_mistakes=[mistake.model_dump() | {"picture": picture}])
        with pytest.raises(RunError, match="does not lie beside"):
            load_evaluation(path)
    with pytest.raises(RunError, match="cannot be read"):
        load_evaluation(tmp_path)


@pytest.mark.parametrize("labelled", [True, False])
def test_predictions_round_trip_without_loss(tmp_path: Path, labelled: bool) -> None:
    """Ids, errors, labels, class names with commas and quotes, and float32 bits come back as they were."""
    predictions = some(9, labelled=labelled, broken=(2,))
    if predictions.labels is not None:
        predictions.labels[4] = -1
    path = tmp_path / "predictions" / "test.parquet"
    save_predictions(path, predictions)
    again = load_predictions(path)
    assert list(again.ids) == list(predictions.ids) and again.class_names == NAMES
    assert list(again.errors) == list(predictions.errors)
    assert again.logits.tobytes() == predictions.logits.tobytes()
    assert again.probs.tobytes() == predictions.probs.tobytes()
    if labelled:
        np.testing.assert_array_equal(again.labels, predictions.labels)  # type: ignore[arg-type]
    else:
        assert again.labels is None
    assert pq.read_schema(path).names[:4] == ["id", "label_true", "error", "logit_basophil"]


def test_names_that_are_not_utf8_can_be_saved(tmp_path: Path) -> None:
    """A path of undecodable bytes becomes a backslash escape in every file instead of an error."""
    one = some(1)
    strange = Predictions(["odd\udcff.png"], NAMES, one.logits, one.probs, one.labels)
    save_predictions(tmp_path / "a.parquet", strange)
    assert load_predictions(tmp_path / "a.parquet").ids[0] == "odd\\udcff.png"
    for ending in ("csv", "jsonl", "parquet"):
        write_table(tmp_path / f"t.{ending}", [strange])
        assert b"odd\\" in (tmp_path / f"t.{ending}").read_bytes()


def test_damaged_predictions_are_refused_in_a_sentence(tmp_path: Path) -> None:
    """Missing, cut short, another Parquet file, another version or wrong columns: RunError, never a traceback."""
    path = tmp_path / "test.parquet"
    with pytest.raises(RunError, match="does not exist"):
        load_predictions(path)
    save_predictions(path, some(50))
    whole, table = path.read_bytes(), pq.read_table(path)
    for content in (whole[:-20], whole[:100], b"", b"not parquet"):
        path.write_bytes(content)
        with pytest.raises(RunError, match="damaged"):
            load_predictions(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(RunError, match="not a file of saved predictions"):
        load_predictions(path)
    about = json.loads(table.schema.metadata[b"hemascope"])
    for change, sentence in (
        ({"version": 2}, "version 2, this hemascope reads version 1"),
        ({"class_names": ["x"]}, "not a file of saved"),
        ({"class_names": None}, "not a file of saved"),
    ):
        changed = table.replace_schema_metadata({b"hemascope": json.dumps(about | change).encode()})
        pq.write_table(changed, path)
        with pytest.raises(RunError, match=sentence):
            load_predictions(path)
    wrong_type = table.set_column(3, table.column_names[3], pa.array(["x"] * 50))
    pq.write_table(wrong_type, path)
    with pytest.raises(RunError, match="damaged"):
        load_predictions(path)
    with pytest.raises(RunError):
        load_predictions(tmp_path)


COLUMNS = ["path", "label", "probability", "p_basophil", "p_band, young", 'p_50 % "ig"', "error"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "CSV"])
def test_a_table_says_what_was_predicted(tmp_path: Path, ending: str) -> None:
    """All formats hold the same columns and rows over several batches; an unreadable image is a row with its error."""
    batches = [some(5, 0), some(4, 1, broken=(2,))]
    path = tmp_path / f"out.{ending}"
    assert write_table(path, iter(batches)) == 9
    rows: list[dict[str, Any]]
    if ending == "parquet":
        rows = pq.read_table(path).to_pylist()
    elif ending == "jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        rows = list(csv.DictReader(path.open(newline="")))
    assert len(rows) == 9 and all(list(row) == COLUMNS for row in rows)
    for i, row in enumerate(rows[:5]):
        best = batches[0].probs[i].argmax()
        assert (row["path"], row["label"], row["error"]) == (batches[0].ids[i], NAMES[best], "")
        assert float(row["probability"]) == pytest.approx(batches[0].probs[i].max(), rel=1e-5)
        assert float(row["p_band, young"]) == pytest.approx(batches[0].probs[i, 1], rel=1e-5)
    broken = rows[7]
    assert broken["error"] == "truncated file"
    assert not any(broken[name] for name in COLUMNS[1:-1])


def test_csv_quotes_and_keeps_names(tmp_path: Path) -> None:
    """Commas, quotes and line breaks survive; a name like a formula stays as given; numbers have six digits."""
    names = ["a,b.png", 'quo"te.png', "line\nbreak.png", "=1+2.png"]
    probs = np.array([[1 / 3, 2 / 3, 0], [1, 0, 0], [1e-7, 1, 0], [0.5, 0.25, 0.25]], dtype=np.float32)
    write_table(tmp_path / "t.csv", [Predictions(names, NAMES, probs, probs)])
    rows = list(csv.DictReader((tmp_path / "t.csv").open(newline="")))
    assert [row["path"] for row in rows] == names
    assert rows[0]["probability"] == "0.666667" and rows[2]["p_basophil"] == "1e-07" and rows[1]["probability"] == "1"


def test_a_table_to_a_stream() -> None:
    """ "-" writes CSV to the stream as batches come, JSON lines if asked, and escapes what it cannot encode."""
    stream = io.StringIO()

    def batches() -> Iterator[Predictions]:
        yield some(3)
        assert len(stream.getvalue().splitlines()) == 4  # the header and the first batch are out already
        yield some(2)

    assert write_table("-", batches(), stream=stream) == 5
    assert len(stream.getvalue().splitlines()) == 6
    lines = io.StringIO()
    write_table("-", [some(2)], "jsonl", stream=lines)
    assert json.loads(lines.getvalue().splitlines()[0])["path"] == "cells/0.png"
    raw = io.BytesIO()
    one = some(1)
    terminal = io.TextIOWrapper(raw, encoding="ascii")
    write_table("-", [Predictions(["é.png"], NAMES, one.logits, one.probs)], stream=terminal)
    assert b"\\xe9.png" in raw.getvalue()


class Full(io.StringIO):
    """A stream whose other end fails."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


def test_a_stream_that_fails() -> None:
    """A full disk is an OutputError; a reader that went away passes as BrokenPipeError for the command line."""
    with pytest.raises(OutputError, match="No space left"):
        write_table("-", [some()], stream=Full(OSError(28, "No space left on device")))
    with pytest.raises(BrokenPipeError):
        write_table("-", [some()], stream=Full(BrokenPipeError()))


def test_an_unknown_table_is_refused_before_any_work(tmp_path: Path) -> None:
    """Unknown ending or format, Parquet to a stream, no stream or a folder: refused before the first batch is asked."""

    def never() -> Iterator[Predictions]:
        raise AssertionError("work was started")
        yield

    for target, format, sentence in (
        (tmp_path / "out.xlsx", None, r"\.csv, \.parquet or \.jsonl"),
        (tmp_path / "out", None, r"\.csv, \.parquet or \.jsonl"),
        (tmp_path / "out.csv", "excel", "csv, parquet, jsonl"),
        ("-", "parquet", "stream"),
        ("-", None, "needs a stream"),
    ):
        with pytest.raises(UsageError, match=sentence):
            write_table(target, never(), format)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_table(tmp_path / "folder.csv", never())
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_table(tmp_path / "file" / "out.csv", never())


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_an_interrupted_table_leaves_the_old_one(tmp_path: Path, ending: str) -> None:
    """A crash half-way, batches that disagree or no batch at all leave the earlier file and no debris."""
    path = tmp_path / f"out.{ending}"
    path.write_text("before")

    def crash() -> Iterator[Predictions]:
        yield some()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_table(path, crash())
    other = Predictions(["a"], ("x", "y"), np.zeros((1, 2), np.float32), np.full((1, 2), 0.5, np.float32))
    with pytest.raises(DataError, match="disagree"):
        write_table(path, [some(), other])
    with pytest.raises(DataError, match="no predictions"):
        write_table(path, [])
    unsure = some(3)
    unsure.probs[1] = np.nan
    with pytest.raises(DataError, match="no number"):
        write_table(path, [unsure])
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_batches_are_not_kept(tmp_path: Path) -> None:
    """While a long table is written, no more than two batches are alive at once (CSV), whatever its length."""
    import gc
    import weakref

    seen: list[weakref.ref[Predictions]] = []

    def batches() -> Iterator[Predictions]:
        for i in range(20):
            batch = some(10, i)
            seen.append(weakref.ref(batch))
            yield batch
            del batch
            gc.collect()
            assert sum(one() is not None for one in seen) <= 2

    gc.collect()
    gc.freeze()  # what other tests left is not looked through twenty times
    try:
        write_table(tmp_path / "t.csv", batches())
    finally:
        gc.unfreeze()
    assert len(seen) == 20


def test_parquet_tables_have_large_row_groups(tmp_path: Path) -> None:
    """Many small batches become row groups of at least 65,536 rows, not one each."""
    batch = some(4096)
    assert write_table(tmp_path / "t.parquet", (batch for _ in range(20))) == 81_920
    file = pq.ParquetFile(tmp_path / "t.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [65_536, 16_384]


def gallery_case() -> tuple[Predictions, np.ndarray]:
    """Five cells: rows 1, 2 and 4 are mistakes, row 3 could not be read. Each image has one colour, its row."""
    probs = np.array(
        [[0.9, 0.1, 0.0], [0.5, 0.3, 0.2], [0.0, 0.55, 0.45], [np.nan] * 3, [0.0, 0.05, 0.95]], dtype=np.float32
    )
    labels = np.array([0, 1, 0, 0, 1])
    ids = ["a", "../../b\n.png", "c", "d", "e"]
    images = np.stack([np.full((16, 16, 3), 40 * row, dtype=np.uint8) for row in range(5)])
    return Predictions(ids, NAMES, probs, probs, labels, ["", "", "", "gone", ""]), images


def test_a_gallery_orders_mistakes_both_ways(tmp_path: Path) -> None:
    """Worst is by the true class's probability, certain by the wrong one's, and each picture shows its own cell."""
    predictions, images = gallery_case()
    worst, certain = save_gallery(tmp_path, predictions, images, count=24)
    assert [mistake.id for mistake in worst] == ["c", "e", "../../b\n.png"]
    assert [mistake.id for mistake in certain] == ["e", "c", "../../b\n.png"]
    assert certain[0].true_label == "band, young" and certain[0].predicted_label == NAMES[2]
    assert certain[0].probability == pytest.approx(0.95) and certain[0].true_probability == pytest.approx(0.05)
    with Image.open(tmp_path / certain[0].picture) as picture:
        assert picture.format == "PNG" and picture.size == (16, 16) and picture.getpixel((3, 3)) == (160, 160, 160)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        f"{kind}-{rank:03d}.png" for kind in ("certain", "worst") for rank in (1, 2, 3)
    ]


def test_a_shorter_gallery_replaces_a_longer_one(tmp_path: Path) -> None:
    """Surplus pictures of an earlier gallery go, other files stay; count 0 gives two empty lists."""
    predictions, images = gallery_case()
    save_gallery(tmp_path, predictions, images, count=3)
    (tmp_path / "evaluation.json").write_text("{}")
    save_gallery(tmp_path, predictions, images, count=1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["certain-001.png", "evaluation.json", "worst-001.png"]
    assert save_gallery(tmp_path, predictions, images, count=0) == ([], [])
    assert [file.name for file in tmp_path.iterdir()] == ["evaluation.json"]


def test_gallery_pictures_are_small_and_checked(tmp_path: Path) -> None:
    """A large image shrinks to 128 pixels; images that do not match the rows or are not RGB raise DataError."""
    predictions, images = gallery_case()
    large = np.repeat(np.repeat(images, 20, axis=1), 20, axis=2)
    worst, _ = save_gallery(tmp_path, predictions, large, count=1)
    with Image.open(tmp_path / worst[0].picture) as picture:
        assert picture.size == (128, 128)
    with pytest.raises(DataError, match="one image for each of 5"):
        save_gallery(tmp_path, predictions, images[:4], count=1)
    with pytest.raises(DataError, match="uint8"):
        save_gallery(tmp_path, predictions, images.astype(np.float32), count=1)  # type: ignore[arg-type]
