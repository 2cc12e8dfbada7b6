"""An AuditReport to a folder."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from hemascope.atomic import atomic_path, write_json
from hemascope.audit_record.layout import MAP_SCHEMA, PICTURE_SCHEMA, SIDE, VERSION, FindingRecord, score_schema
from hemascope.errors import DataError
from hemascope.findings import AuditReport

_QUALITY = 85
_ROW_GROUP = 65_536
_LONE = re.compile(r"[\ud800-\udfff]")


def save_audit(
    folder: Path,
    report: AuditReport,
    pictures: Mapping[int, NDArray[np.uint8]] | Iterable[tuple[int, NDArray[np.uint8]]] = (),
) -> None:
    """Write ``report`` into ``folder``, which is made where it does not exist.

    ``pictures`` are RGB images uint8 (H, W, 3) by row, or (row, image) pairs made as they are asked for, so that
    memory stays small; see ``rows_shown`` for which. Whole or not at all only inside ``atomic_folder``: audit.json is
    written last, so a folder without it is plainly incomplete. Raises DataError for a row or image that cannot be,
    OutputError where a file cannot be written.
    """
    _save_scores(folder / "scores.parquet", report)
    if report.map is not None:
        columns = [report.map.rows, *report.map.position.astype(np.float32).T]
        with atomic_path(folder / "map.parquet") as temporary:
            pq.write_table(pa.table([np.ascontiguousarray(one) for one in columns], schema=MAP_SCHEMA), temporary)
    pairs = pictures.items() if isinstance(pictures, Mapping) else pictures
    _save_pictures(folder / "pictures.parquet", pairs, len(report))
    write_json(folder / "audit.json", _to_json(report))


def _to_json(report: AuditReport) -> Any:
    record = {
        "version": VERSION,
        "images": len(report),
        "source": report.source,
        "fingerprint": report.fingerprint,
        "class_names": list(report.class_names),
        "embedding": report.embedding,
        "split": report.split is not None,
        "facts": dict(report.facts),
        "statistics": dict(report.statistics),
        "map": None
        if report.map is None
        else {name: getattr(report.map, name) for name in ("title", "silhouette", "knn_accuracy")},
        "checks": [
            {
                "check": result.check,
                "scored": result.scores is not None,
                "cut": result.cut,
                "cut_rule": result.cut_rule,
                "not_applicable": result.not_applicable,
                "summary": dict(result.summary),
                "seconds": result.seconds,
                "findings": [
                    {name: getattr(one, name) for name in FindingRecord.model_fields} for one in result.findings
                ],
            }
            for result in report.results
        ],
    }
    return plain_json(record)


def plain_json(value: Any) -> Any:
    """``value`` as JSON has it: numbers of numpy become plain ones, NaN and infinity null, tuples and arrays lists.

    Raises DataError for anything else, such as a date.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _as_utf8(value)
    if isinstance(value, float):
        return float(value) if isfinite(value) else None
    if isinstance(value, np.generic | np.ndarray):
        return plain_json(value.tolist())
    if isinstance(value, Mapping):
        return {_as_utf8(str(key)): plain_json(one) for key, one in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [plain_json(one) for one in (sorted(value) if isinstance(value, set | frozenset) else value)]
    raise DataError(f"a report holds plain values only, found {type(value).__name__}")


def _as_utf8(text: str) -> str:
    """A file name of undecodable bytes holds lone surrogates, which no file of text can say."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8") if _LONE.search(text) else text


def _save_scores(path: Path, report: AuditReport) -> None:
    """A row group at a time: text of ten million images needs no second copy in memory."""
    scores = {one.check: one.scores for one in report.results if one.scores is not None}
    for check, values in scores.items():
        if len(values) != len(report):
            raise DataError(f"{check} must have a score for each of {len(report)} images, found {len(values)}")
    schema = score_schema(list(scores))
    names = pa.array([_as_utf8(name) for name in report.class_names], pa.string())
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for start in range(0, max(len(report), 1), _ROW_GROUP):
            rows = slice(start, min(start + _ROW_GROUP, len(report)))
            labels = report.labels[rows]
            split = [None] * len(labels) if report.split is None else [_as_utf8(str(one)) for one in report.split[rows]]
            columns = [
                pa.array([_as_utf8(name) for name in report.ids[rows]], pa.string()),
                pa.array(list(report.content_hash[rows]), pa.string()),
                pa.DictionaryArray.from_arrays(pa.array(np.maximum(labels, 0), pa.int32(), mask=labels < 0), names),
                pa.array(split, pa.string()),
                *(pa.array(np.asarray(values[rows], dtype=np.float32)) for values in scores.values()),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _save_pictures(path: Path, pairs: Iterable[tuple[int, NDArray[np.uint8]]], count: int) -> None:
    encoded = _encoded(pairs, count)
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, PICTURE_SCHEMA, compression="none") as writer:
        while batch := list(islice(encoded, 512)):
            rows, data = zip(*batch, strict=True)
            writer.write_table(
                pa.table([pa.array(rows, pa.int64()), pa.array(data, pa.binary())], schema=PICTURE_SCHEMA)
            )


def _encoded(pairs: Iterable[tuple[int, NDArray[np.uint8]]], count: int) -> Iterator[tuple[int, bytes]]:
    """Each row once, as a small WebP: lossy at a quality where cells show no difference."""
    seen = set()
    for row, image in pairs:
        if not 0 <= row < count:
            raise DataError(f"a picture must be of a row from 0 to {count - 1}, found {row}")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise DataError(f"a picture must be uint8 (height, width, 3), found {image.dtype} {image.shape}")
        if row in seen:
            continue
        seen.add(row)
        picture = Image.fromarray(np.ascontiguousarray(image))
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=_QUALITY, method=2)
        yield int(row), buffer.getvalue()
