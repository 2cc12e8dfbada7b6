"""Predictions as a table for people and spreadsheets, written as they come: CSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
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


TRUST_COLUMNS = ("prediction_set", "in_distribution", "ood_score", "doubt", "review_reason", "morphology")
"""What stands behind the probability where the model was calibrated; see ``results.Trust``."""


def table_columns(class_names: tuple[str, ...], *, trust: bool = False) -> list[str]:
    """The columns, in order: path, label, probability, TRUST_COLUMNS if asked, one p_<class> a class, error."""
    first = ["path", "label", "probability", *(TRUST_COLUMNS if trust else ())]
    return [*first, *(f"p_{as_utf8(name)}" for name in class_names), "error"]


def similar_csv(rows: Iterable[tuple[str, str, int, str, str, float]]) -> str:
    """(path, label, rank, id, its label, distance) of each neighbour as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "label", "rank", "similar_to", "its_label", "distance"])
    for path, label, rank, name, its_label, distance in rows:
        writer.writerow([as_utf8(path), as_utf8(label), rank, as_utf8(name), as_utf8(its_label), f"{distance:.6g}"])
    return buffer.getvalue()


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
    Columns: ``table_columns``. A prediction set is its classes, most probable first, separated by semicolons. In the
    row of an image that could not be read, error has the reason and all but path is empty (null in Parquet and JSON);
    elsewhere error is "". True labels are not in this table.

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
    kind: tuple[tuple[str, ...], bool] | None = None
    for batch in batches:
        if kind not in (None, (batch.class_names, batch.trust is not None)):
            raise DataError("the batches of predictions disagree about the classes, or about what they say")
        kind = batch.class_names, batch.trust is not None
        if not np.isfinite(batch.probs[batch.readable]).all():
            raise DataError("the model gave a probability that is no number for an image that could be read")
        write(batch)
        rows += len(batch)
    if kind is None:
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
        columns = table_columns(batch.class_names, trust=batch.trust is not None)
        if format == "csv":
            writer = csv.writer(buffer, lineterminator="\n")
            if header_due:
                writer.writerow(columns)
                header_due = False
            for row in _rows(batch):
                writer.writerow([_csv(value) for value in row])
        else:
            line = _json_template(columns)
            for row in _rows(batch):
                buffer.write(line % tuple(_json(value) for value in row))
        write_text(buffer.getvalue())

    return write


_Value = str | float | bool | None


def _csv(value: _Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:.6g}"


def _json(value: _Value) -> str:
    return f"{value:.6g}" if type(value) is float else json.dumps(value, ensure_ascii=False)


def _json_template(columns: list[str]) -> str:
    """One line with a %s for each value: the keys are the same in millions of rows, so they are encoded once."""
    return "{" + ", ".join(f"{_json(name).replace('%', '%%')}: %s" for name in columns) + "}\n"


def _rows(batch: Predictions) -> Iterator[list[_Value]]:
    """The values of each row in the order of ``table_columns``, None for what an unreadable image does not have."""
    names = [as_utf8(name) for name in batch.class_names]
    errors = batch.errors or [""] * len(batch)
    trusted = _trust_columns(batch)
    empty: list[_Value] = [None] * len(names)
    for place, (k, probs) in enumerate(zip(batch.predicted.tolist(), batch.probs.tolist(), strict=True)):
        extra = [column[place] for column in trusted]
        if k < 0:
            yield [as_utf8(batch.ids[place]), None, None, *extra, *empty, as_utf8(errors[place])]
        else:
            yield [as_utf8(batch.ids[place]), names[k], probs[k], *extra, *probs, ""]


def _trust_columns(batch: Predictions) -> list[list[_Value]]:
    """TRUST_COLUMNS of a batch, None in the rows of unreadable images; no columns where the model says nothing."""
    trust = batch.trust
    if trust is None:
        return []
    readable = batch.readable
    columns: list[Sequence[_Value]] = [
        prediction_set_names(batch),
        trust.in_distribution.tolist(),
        trust.ood_score.tolist(),
        trust.doubt.tolist(),
        trust.review_reason,
        trust.morphology,
    ]
    return [[value if ok else None for value, ok in zip(column, readable, strict=True)] for column in columns]


def prediction_set_names(batch: Predictions) -> list[str]:
    """The classes of each prediction set, most probable first, separated by semicolons; "" for an unreadable image."""
    if batch.trust is None:
        return [""] * len(batch)
    names = [as_utf8(name) for name in batch.class_names]
    order = np.argsort(-batch.probs, axis=1, kind="stable")
    return [
        ";".join(names[k] for k in ranked if chosen[k])
        for ranked, chosen in zip(order.tolist(), batch.trust.prediction_sets.tolist(), strict=True)
    ]


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
        *(
            pa.array(column, kind)
            for column, kind in zip(_trust_columns(batch), _TRUST_TYPES, strict=batch.trust is not None)
        ),
        *(pa.array(np.ascontiguousarray(batch.probs[:, k]), pa.float32(), mask=unread) for k in range(len(names))),
        pa.array([as_utf8(error) for error in batch.errors] or [""] * len(batch), pa.string()),
    ]
    return pa.table(columns, names=table_columns(batch.class_names, trust=batch.trust is not None))


_TRUST_TYPES = (pa.string(), pa.bool_(), pa.float32(), pa.float32(), pa.string(), pa.string())
