"""The columns of a ledger: from the text of a row to a checked LedgerRow, and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast, get_args

from hemascope.errors import LedgerError
from hemascope.findings import CHECKS, Suggestion
from hemascope.ledger.rows import ACCEPT, NOTHING_TO_ACCEPT, LedgerRow, parse_decision
from hemascope.names import suggestion as nearest

COLUMNS = (
    "id",
    "content_hash",
    "check",
    "score",
    "suggestion",
    "label",
    "new_label",
    "related",
    "related_hash",
    "why",
    "decision",
    "decided_by",
    "decided_at",
    "reason",
    "stale",
)
NEEDED = ("id", "content_hash", "check", "score", "suggestion", "decision")
_HASH = "blake2b:"
"""Before every content hash, or a spreadsheet takes 1e10… for a number."""

_FORMULA = re.compile("'*[=+\\-@\t\r\n]")
_HASH_TEXT = re.compile("[0-9A-Za-z_.-]{1,128}")
_Place = Callable[[str], str]
"""From a column's name to the beginning of a message about it."""


def row_of_text(values: Mapping[str, str], line: int, path: Path) -> LedgerRow:
    """A row from the text of its cells, by column. Raises LedgerError naming ``line`` and the column."""

    def place(column: str) -> str:
        return f"{path}, row {line}, column {column}"

    get = {name: values.get(name, "") for name in COLUMNS}
    if not get["id"]:
        raise LedgerError(f"{place('id')}: is empty; every finding names its image")
    if get["check"] not in CHECKS:
        raise LedgerError(f"{place('check')}: no check {get['check'][:60]!r}; {nearest(get['check'], list(CHECKS))}")
    if get["suggestion"] not in get_args(Suggestion):
        raise LedgerError(
            f"{place('suggestion')}: must be {', '.join(get_args(Suggestion))}, found {get['suggestion'][:60]!r}"
        )
    if (get["suggestion"] == "relabel") != bool(get["new_label"].strip()):
        raise LedgerError(f"{place('new_label')}: goes with the suggestion relabel, and with no other")
    try:
        decision = parse_decision(get["decision"])
    except LedgerError as error:
        raise LedgerError(f"{place('decision')}: {error}") from None
    if decision == ACCEPT and get["suggestion"] == "review":
        raise LedgerError(f"{place('decision')}: {NOTHING_TO_ACCEPT}")
    return LedgerRow(
        id=get["id"],
        content_hash=_hash(get["content_hash"], "content_hash", place),
        check=get["check"],
        score=_score(get["score"], place),
        suggestion=cast(Suggestion, get["suggestion"]),
        label=get["label"],
        new_label=get["new_label"],
        related=get["related"],
        related_hash=_hash(get["related_hash"], "related_hash", place),
        why=get["why"],
        decision=decision,
        decided_by=get["decided_by"],
        decided_at=get["decided_at"],
        reason=get["reason"],
        stale=_stale(get["stale"], place),
        extra={name: value for name, value in values.items() if name not in COLUMNS},
        line=line,
    )


def _hash(text: str, column: str, place: _Place) -> str:
    found = text.strip().removeprefix(_HASH)
    if found and not _HASH_TEXT.fullmatch(found):
        raise LedgerError(f"{place(column)}: must be {_HASH} and a hash as the audit wrote it, found {text[:60]!r}")
    return found


def _score(text: str, place: _Place) -> float:
    try:
        score = float(text.strip().replace(",", "."))  # some spreadsheets write the decimal comma
    except ValueError:
        score = float("nan")
    if not 0 <= score <= 1:
        raise LedgerError(f"{place('score')}: must be a number in 0 to 1, found {text[:60]!r}")
    return score


def _stale(text: str, place: _Place) -> bool:
    word = text.strip().casefold()
    if word not in ("", "yes", "true", "no", "false"):
        raise LedgerError(f"{place('stale')}: must be yes or empty, found {text[:60]!r}")
    return word in ("yes", "true")


def cells_of_row(row: LedgerRow) -> dict[str, Any]:
    """The row as its columns; the score a number, the rest text."""
    values: dict[str, Any] = {name: getattr(row, name) for name in COLUMNS}
    for name in ("content_hash", "related_hash"):
        values[name] = values[name] and _HASH + values[name]
    values["stale"] = "yes" if row.stale else ""
    return values


def as_text(value: object) -> str:
    """A plain value as a cell's text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    return value if isinstance(value, str) else repr(value)


def guard(text: str) -> str:
    """``text`` so that no spreadsheet runs it as a formula: an apostrophe in front where one could."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguard(text: str) -> str:
    """What ``guard`` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
