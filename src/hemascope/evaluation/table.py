"""Predictions as a table for people and spreadsheets, written as they come: CSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hemascope.atomic import atomic_path
from hemascope.errors import DataError, OutputError, UsageError
from hemascope.results import Predictions

FORMATS = ("csv", "parquet", "jsonl")
STREAM = "-"

_ROW_GROUP = 65_536
_Write = Callable[[Predictions], None]


def as_utf8(text: str) -> str:
    """``text`` with what cannot be UTF-8 escaped: a file name of undecodable bytes holds lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def table_columns(class_names: tuple[str, ...]) -> list[str]:
    """The columns, in order: path, label, probability, one p_<class> a class, error."""
    return ["path", "label", "probability", *(f"p_{as_utf8(name)}" for name in class_names), "error"]


def table_format(target: str | Path, format: str | None = None) -> str:
    """csv, parquet or jsonl: ``format`` where given, else by the target's ending; CSV for "-".

    Raises UsageError, naming the three, for anything else, and for Parquet to a stream. Ask before long work.
    """
    choices = ".csv, .parquet or .jsonl"
    if format is not None:
        if format.lower() not in FORMATS:
            raise UsageError(f"unknown table format {format!r}: choose one of {', '.join(FORMATS)}")
        chosen = format.lower()
    elif str(target) == STREAM:
        chosen = "csv"
    else:
        chosen = Path(target).suffix.lower().removeprefix(".")
        if chosen not in FORMATS:
            raise UsageError(f"cannot tell the table format of {target}: its name must end in {choices}")
    if chosen == "parquet" and str(target) == STREAM:
        raise UsageError("Parquet cannot be written to a stream: name a .parquet file, or choose csv or jsonl")
    return chosen


def write_table(
    target: str | Path, batches: Iterable[Predictions], format: str | None = None, *, stream: TextIO | None = None
) -> int:
    """Write ``batches`` of predictions as one table and return the number of rows.

    ``target`` is a path ending in .csv, .parquet or .jsonl, or "-" for ``stream`` (CSV unless ``format`` says jsonl).
    Columns: path, label, probability, one p_<class> a class, error. In the row of an image that could not be read,
    error has the reason and label and numbers are empty (null in Parquet and JSON); elsewhere error is "". True
    labels are not in this table.

    Batches are written as they come and never kept, apart from Parquet's row groups of 65,536 rows. A file
    appears when all is written: whatever ends the work early leaves nothing behind, and an older file as it was.
    Text holds six significant digits, Parquet float32.

    Paths are written as given, also those that begin with =, +, - or @: the table is made to be joined with other
    tables by path, and a changed path would match nothing. In a spreadsheet, import such a column as text. The csv
    module quotes commas, quotes and line breaks; bytes that are not UTF-8 appear as backslash escapes.

    Raises UsageError for an unknown format, OutputError where writing fails, DataError where there is no batch,
    batches disagree about the classes, or a probability of an image that was read is NaN. BrokenPipeError of a
    stream passes through: it is not a failure.
    """
    chosen = table_format(target, format)
    if str(target) == STREAM:
        if stream is None:
            raise UsageError('a table for "-" needs a stream to go to')
        return _write_batches(batches, _stream_writer(stream, chosen))
    path = Path(target)
    if path.is_dir():  # Said now, not when the rename fails after hours of prediction.
        raise OutputError(f"cannot write {path}: it is a folder. Name a file in it.")
    with atomic_path(path) as temporary:
        if chosen == "parquet":
            with _parquet_writer(temporary) as write:
                return _write_batches(batches, write)
        with temporary.open("w", encoding="utf-8", newline="") as file:
            return _write_batches(batches, _text_writer(file.write, chosen))


def _write_batches(batches: Iterable[Predictions], write: _Write) -> int:
    rows = 0
    class_names = None
    for batch in batches:
        if class_names is not None and batch.class_names != class_names:
            raise DataError("the batches of predictions disagree about the classes")
        class_names = batch.class_names
        if not np.isfinite(batch.probs[batch.readable]).all():
            raise DataError("the model gave a probability that is no number for an image that could be read")
        write(batch)
        rows += len(batch)
    if class_names is None:
        raise DataError("there are no predictions to write")
    return rows


def _stream_writer(stream: TextIO, format: str) -> _Write:
    encoding = stream.encoding if isinstance(getattr(stream, "encoding", None), str) else "utf-8"

    def write_text(text: str) -> None:
        # A terminal that cannot show a name gets its escapes rather than an error in the middle of the table.
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    inner = _text_writer(write_text, format)

    def write(batch: Predictions) -> None:
        try:
            inner(batch)
            stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write the table to the stream: {error.strerror or error}.") from error

    return write


def _text_writer(write_text: Callable[[str], Any], format: str) -> _Write:
    header_due = format == "csv"

    def write(batch: Predictions) -> None:
        nonlocal header_due
        buffer = io.StringIO()
        if format == "csv":
            writer = csv.writer(buffer, lineterminator="\n")
            if header_due:
                writer.writerow(table_columns(batch.class_names))
                header_due = False
            for name, label, probability, probs, error in _rows(batch):
                numbers = [f"{value:.6g}" for value in probs] if probs else [""] * len(batch.class_names)
                writer.writerow([name, label, "" if probability is None else f"{probability:.6g}", *numbers, error])
        else:
            line = _json_template(table_columns(batch.class_names))
            for name, label, probability, probs, error in _rows(batch):
                numbers = ["null"] * (1 + len(batch.class_names))
                if probability is not None:
                    numbers = [f"{value:.6g}" for value in (probability, *probs)]
                buffer.write(line % (_json(name), _json(label or None), *numbers, _json(error)))
        write_text(buffer.getvalue())

    return write


def _json(value: str | None) -> str:
    return json.dumps(value, ensure_ascii=False)


def _json_template(columns: list[str]) -> str:
    """One line with a %s for each value: the keys are the same in millions of rows, so they are encoded once."""
    return "{" + ", ".join(f"{_json(name).replace('%', '%%')}: %s" for name in columns) + "}\n"


def _rows(batch: Predictions) -> Iterator[tuple[str, str, float | None, list[float], str]]:
    """path, label, probability, all probabilities (none where unreadable), error."""
    names = [as_utf8(name) for name in batch.class_names]
    best = batch.predicted
    errors = batch.errors or [""] * len(batch)
    for name, k, probs, error in zip(batch.ids, best.tolist(), batch.probs.tolist(), errors, strict=True):
        if k < 0:
            yield as_utf8(name), "", None, [], as_utf8(error)
        else:
            yield as_utf8(name), names[k], probs[k], probs, ""


@contextmanager
def _parquet_writer(path: Path) -> Iterator[_Write]:
    """Collects rows into row groups, because one group for each small batch makes a file slow to read."""
    writer: pq.ParquetWriter | None = None
    waiting: list[pa.Table] = []

    def flush() -> None:
        nonlocal writer
        if not waiting:
            return
        table = pa.concat_tables(waiting).combine_chunks()
        if writer is None:
            writer = pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
        waiting.clear()

    def write(batch: Predictions) -> None:
        waiting.append(_arrow(batch))
        if sum(table.num_rows for table in waiting) >= _ROW_GROUP:
            flush()

    try:
        yield write
        flush()
    finally:
        if writer is not None:
            writer.close()


def _arrow(batch: Predictions) -> pa.Table:
    names = [as_utf8(name) for name in batch.class_names]
    best = batch.predicted
    unread = best < 0
    top = batch.probs[np.arange(len(batch)), np.maximum(best, 0)]
    columns = [
        pa.array([as_utf8(name) for name in batch.ids], pa.string()),
        pa.array([None if k < 0 else names[k] for k in best.tolist()], pa.string()),
        pa.array(top, pa.float32(), mask=unread),
        *(pa.array(np.ascontiguousarray(batch.probs[:, k]), pa.float32(), mask=unread) for k in range(len(names))),
        pa.array([as_utf8(error) for error in batch.errors] or [""] * len(batch), pa.string()),
    ]
    return pa.table(columns, names=table_columns(batch.class_names))
