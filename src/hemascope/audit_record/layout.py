"""Which files an audit's folder has, and what each holds.

audit.json        facts, statistics and, for each check, its cut, findings and summary
scores.parquet    a row an image: id, content_hash, label, split, and one column for each check that scores images
map.parquet       row, x, y; where there is a map
pictures.parquet  row, webp: pictures of at most 96 pixels a side
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from hemascope.findings import AuditReport, Suggestion

VERSION = 1
SIDE = 96
"""Longest side of a picture in pixels, as large as the page shows one."""

SHOWN = 60
"""Findings of a check whose pictures are kept: what a person looks through; all of them are in the ledger."""

FIXED = ("id", "content_hash", "label", "split")
"""The columns of scores.parquet that every audit has."""

MAP_SCHEMA = pa.schema({"row": pa.int64(), "x": pa.float32(), "y": pa.float32()})
PICTURE_SCHEMA = pa.schema({"row": pa.int64(), "webp": pa.binary()})


@dataclass(frozen=True)
class SavedAudit:
    """An audit as it was saved.

    report    what it said
    pictures  WebP bytes of at most 96 pixels a side, by row; only of the images the page shows
    """

    report: AuditReport
    pictures: Mapping[int, bytes] = field(default_factory=dict)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FindingRecord(_Record):
    """A Finding without its check, which the record around it names."""

    id: str
    content_hash: str
    score: float = Field(ge=0, le=1)
    suggestion: Suggestion
    why: str
    label: str
    new_label: str
    related: str


class CheckRecord(_Record):
    """A CheckResult; ``scored`` says that scores.parquet has its column."""

    check: str
    scored: bool
    cut: float | None
    cut_rule: str
    not_applicable: str
    summary: dict[str, Any]
    seconds: float = Field(ge=0)
    findings: list[FindingRecord]


class MapRecord(_Record):
    """What a MapPoints says beside its points."""

    title: str
    silhouette: float | None = Field(ge=-1, le=1)
    knn_accuracy: float | None = Field(ge=0, le=1)


class AuditRecord(_Record):
    """audit.json: an AuditReport without what the tables beside it hold."""

    version: int
    images: int = Field(ge=0)
    source: str
    fingerprint: str
    class_names: list[str]
    embedding: str
    split: bool
    facts: dict[str, Any]
    statistics: dict[str, Any]
    map: MapRecord | None
    checks: list[CheckRecord]


def score_schema(scored: Sequence[str]) -> pa.Schema:
    """The columns of scores.parquet with those of the checks in ``scored``, in their order."""
    text = pa.string()
    kinds = {"id": text, "content_hash": text, "label": pa.dictionary(pa.int32(), text), "split": text}
    return pa.schema([*kinds.items(), *((name, pa.float32()) for name in scored)])


def rows_shown(report: AuditReport) -> NDArray[np.int64]:
    """The rows whose pictures the page shows, ascending: the worst findings of each check with what they were
    compared with, and the map's points.
    """
    names = {
        name for result in report.results for one in result.findings[:SHOWN] for name in (one.id, one.related) if name
    }
    found = [row for row, name in enumerate(report.ids) if name in names] if names else []
    drawn = np.array([], dtype=np.int64) if report.map is None else report.map.rows
    return np.union1d(np.asarray(found, dtype=np.int64), drawn)
