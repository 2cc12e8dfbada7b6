"""A folder back to an AuditReport; what outside files say is checked before it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from pydantic_core import from_json

from hemascope.audit_record.layout import (
    FIXED,
    MAP_SCHEMA,
    PICTURE_SCHEMA,
    VERSION,
    AuditRecord,
    CheckRecord,
    SavedAudit,
    score_schema,
)
from hemascope.errors import DataError, RunError
from hemascope.findings import AuditReport, CheckResult, Finding, MapPoints

_LARGEST_JSON = 512 * 2**20
_LARGEST_PICTURES = 512 * 2**20
_LARGEST_PICTURE = 64 * 1024
_FEW_ROWS = 100_000
REDO = "Run hemascope audit again."


def load_audit(folder: Path) -> SavedAudit:
    """Read what ``save_audit`` wrote.

    Raises RunError where something is missing, damaged, beyond its limits, or of another version.
    """
    path = folder / "audit.json"
    record = _load_record(path)
    scores = _load_scores(folder / "scores.parquet", record)
    drawn = _load_map(folder / "map.parquet", record)
    try:
        report = AuditReport(
            results=[_result(one, scores) for one in record.checks],
            ids=scores["id"],
            content_hash=scores["content_hash"],
            labels=scores["label"],
            class_names=tuple(record.class_names),
            fingerprint=record.fingerprint,
            source=record.source,
            embedding=record.embedding,
            split=np.array(scores["split"], dtype=np.str_) if record.split else None,
            statistics=record.statistics,
            map=drawn,
            facts=record.facts,
        )
    except DataError as error:
        raise RunError(f"{path} is damaged: {error}. {REDO}") from error
    return SavedAudit(report, _load_pictures(folder / "pictures.parquet", record.images))


def _result(record: CheckRecord, scores: Mapping[str, Any]) -> CheckResult:
    return CheckResult(
        check=record.check,
        scores=scores[record.check] if record.scored else None,
        cut=record.cut,
        cut_rule=record.cut_rule,
        findings=[Finding(check=record.check, **one.model_dump()) for one in record.findings],
        not_applicable=record.not_applicable,
        summary=record.summary,
        seconds=record.seconds,
    )


def _load_record(path: Path) -> AuditRecord:
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise RunError(f"{path} is larger than any audit: {path.stat().st_size:,} bytes. {REDO}")
        value = from_json(path.read_bytes(), allow_inf_nan=False)
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist: {path.parent} holds no finished audit. {REDO}") from error
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}. {REDO}") from error
    except ValueError as error:
        raise RunError(f"{path} is damaged: it is not JSON ({error}). {REDO}") from error
    version = value.get("version") if isinstance(value, dict) else None
    if version is not None and version != VERSION:
        raise RunError(f"{path} has version {version!r}, this hemascope reads version {VERSION}. {REDO}")
    try:
        record = AuditRecord.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the top level"
        raise RunError(f"{path} is damaged: {first['msg']} at {place}. {REDO}") from error
    checks = [one.check for one in record.checks]
    if len(set(checks)) < len(checks):
        raise RunError(f"{path} is damaged: it has a check twice. {REDO}")
    return record


def _table(path: Path, schema: pa.Schema, most_rows: int, most_bytes: int) -> pa.Table:
    """The table in ``path``, which must have exactly these columns; limits are checked before a row is read."""
    try:
        size = path.stat().st_size
        with pq.ParquetFile(path) as file:
            if not _same(file.schema_arrow, schema):
                _damaged(path, f"its columns are not {', '.join(schema.names)}")
            rows = file.metadata.num_rows
            unpacked = sum(file.metadata.row_group(one).total_byte_size for one in range(file.metadata.num_row_groups))
            if rows > most_rows or rows > max(_FEW_ROWS, size) or unpacked > most_bytes:
                _damaged(path, f"it claims {rows:,} rows and {unpacked:,} bytes, more than can be true")
            table = file.read()
        table.validate(full=True)
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist: the audit is incomplete. {REDO}") from error
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{path} cannot be read as Parquet: it is damaged or something else. {REDO}") from error
    return table


def _same(found: pa.Schema, wanted: pa.Schema) -> bool:
    """Dictionaries may come back with another width of index."""

    def kinds(schema: pa.Schema) -> list[tuple[str, Any]]:
        return [(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in schema]

    return kinds(found) == kinds(wanted)


def _damaged(path: Path, what: str) -> NoReturn:
    raise RunError(f"{path} is damaged: {what}. {REDO}")


def _load_scores(path: Path, record: AuditRecord) -> dict[str, Any]:
    scored = [one.check for one in record.checks if one.scored]
    # An id, a hash and a label take some hundred bytes; a file path at most 4,096.
    table = _table(path, score_schema(scored), record.images, 5000 * record.images + 2**20)
    if len(table) != record.images:
        _damaged(path, f"it has {len(table):,} rows, audit.json says {record.images:,} images")
    columns: dict[str, Any] = {name: table.column(name).cast(pa.string()).to_pylist() for name in FIXED}
    place = {name: index for index, name in enumerate(record.class_names)} | {None: -1}
    try:
        columns["label"] = np.array([place[name] for name in columns["label"]], dtype=np.int64)
    except KeyError as error:
        _damaged(path, f"the label {error} is no class of audit.json")
    if any(None in columns[name] for name in ("id", "content_hash", *(["split"] if record.split else []))):
        _damaged(path, "an image has no id, hash or split")
    for name in scored:
        if table.column(name).null_count:
            _damaged(path, f"the column {name} has empty cells")
        columns[name] = table.column(name).to_numpy().astype(np.float32, copy=False)
    return columns


def _load_map(path: Path, record: AuditRecord) -> MapPoints | None:
    if record.map is None:
        return None
    table = _table(path, MAP_SCHEMA, record.images, 64 * record.images + 2**20)
    rows, x, y = (table.column(name).to_numpy() for name in MAP_SCHEMA.names)
    if any(table.column(name).null_count for name in MAP_SCHEMA.names) or not np.isfinite([*x, *y]).all():
        _damaged(path, "a point has no place")
    if len(rows) and (rows.min() < 0 or rows.max() >= record.images):
        _damaged(path, "a point is of no image")
    position = np.stack([x, y], axis=1).astype(np.float32, copy=False)
    return MapPoints(rows, position, record.map.silhouette, record.map.knn_accuracy, record.map.title)


def _load_pictures(path: Path, count: int) -> dict[int, bytes]:
    table = _table(path, PICTURE_SCHEMA, count, _LARGEST_PICTURES)
    pictures = dict(zip(table.column("row").to_pylist(), table.column("webp").to_pylist(), strict=True))
    for row, data in pictures.items():
        if row is None or not 0 <= row < count or data is None or not _is_webp(data):
            _damaged(path, "it holds something that is no small picture of an image")
    return pictures


def _is_webp(data: bytes) -> bool:
    return len(data) <= _LARGEST_PICTURE and data[:4] == b"RIFF" and data[8:12] == b"WEBP"
