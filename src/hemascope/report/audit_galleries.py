"""The findings of a check as cards with pictures, copies of one picture together; and the ledger's rows for them."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemascope.audit_record import SHOWN, SavedAudit
from hemascope.findings import CheckResult, Finding
from hemascope.ledger import Ledger, LedgerRow, from_findings, read_ledger
from hemascope.ledger.columns import COLUMNS, as_text, cells_of_row, guard

MOST_ROWS = 20_000
"""Findings whose ledger a page carries whole; with more it carries those shown."""

MOST_CLASSES = 60
"""With more classes than this no list of them is offered beside a picture."""

_GROUPED = frozenset({"exact_duplicate", "near_duplicate", "conflicting_label", "leakage"})
"""Checks that compare an image with another one: findings of one original are shown together."""


@dataclass(frozen=True)
class Card:
    """One finding as the page shows it.

    picture, related  ``data:`` addresses, None where there is none
    row       of the ledger's rows in the page; None where the ledger has no such row
    accept    what accepting would do, "" where there is nothing to accept
    entry     the ledger's row
    """

    finding: Finding
    picture: str | None
    related: str | None
    row: int | None
    accept: str
    entry: LedgerRow | None


@dataclass(frozen=True)
class Cluster:
    """Findings of one original, worst first; a single one stands beside it."""

    related: str
    picture: str | None
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class LedgerBlock:
    """The ledger as a page carries it.

    data      JSON for the script
    whole     every row is there, so that what is saved is complete
    total     rows of the ledger
    """

    data: Mapping[str, Any]
    whole: bool
    total: int


class Galleries:
    """Cards of an audit's findings; remembers which ledger rows they need.

    Raises LedgerError where the folder's ledger cannot be read.
    """

    def __init__(self, saved: SavedAudit, folder: Path) -> None:
        self._saved = saved
        self._ledger = _ledger(saved, folder)
        self._whole = len(self._ledger) <= MOST_ROWS
        self._waiting: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for place, row in enumerate(self._ledger.rows):
            self._waiting[row.check, row.id, row.related].append(place)
        self._carried: list[int] = list(range(len(self._ledger))) if self._whole else []
        names = {
            name for one in saved.report.results for f in one.findings[:SHOWN] for name in (f.id, f.related) if name
        }
        self._row_of = {name: row for row, name in enumerate(saved.report.ids) if name in names}

    def picture(self, name: str) -> str | None:
        """The picture of an image by its id, as a ``data:`` address."""
        row = self._row_of.get(name)
        data = None if row is None else self._saved.pictures.get(row)
        return None if data is None else "data:image/webp;base64," + base64.b64encode(data).decode("ascii")

    def clusters(self, result: CheckResult) -> list[Cluster]:
        """The worst findings of a check, those of one original together, in the order of their worst."""
        groups: dict[str, list[Finding]] = defaultdict(list)
        for number, finding in enumerate(result.findings[:SHOWN]):
            grouped = result.check in _GROUPED and finding.related
            groups[finding.related if grouped else f"\0{number}"].append(finding)
        found = []
        for name, members in groups.items():
            related = "" if name.startswith("\0") else name
            many = bool(related) and len(members) > 1
            cards = tuple(self._card(one, beside=not many) for one in members)
            found.append(Cluster(related if many else "", self.picture(related) if many else None, cards))
        return found

    def _card(self, finding: Finding, *, beside: bool) -> Card:
        places = self._waiting.get((finding.check, _sayable(finding.id), _sayable(finding.related)), [])
        place = places.pop(0) if places else None
        entry = None if place is None else self._ledger.rows[place]
        row = place
        if place is not None and not self._whole:
            self._carried.append(place)
            row = len(self._carried) - 1
        accept = {"drop": "Drop", "relabel": "Relabel", "review": ""}[entry.suggestion if entry else finding.suggestion]
        related = self.picture(finding.related) if beside and finding.related else None
        return Card(finding, self.picture(finding.id), related, row, accept, entry)

    def block(self) -> LedgerBlock:
        """The ledger for the script; call it after every gallery was made."""
        columns = (*COLUMNS, *self._ledger.extra_columns)
        rows = [self._cells(self._ledger.rows[place], columns) for place in self._carried]
        data = {
            "columns": [guard(name) for name in columns],
            "rows": rows,
            "separator": self._ledger.separator,
            "whole": self._whole,
        }
        return LedgerBlock(data, self._whole, len(self._ledger))

    @staticmethod
    def _cells(row: LedgerRow, columns: Sequence[str]) -> list[str]:
        values = cells_of_row(row)
        return [guard(as_text(values[name] if name in values else row.extra.get(name, ""))) for name in columns]


def _ledger(saved: SavedAudit, folder: Path) -> Ledger:
    """The ledger beside the audit with what was decided, or else a fresh one."""
    path = folder / "ledger.csv"
    return read_ledger(path) if path.is_file() else from_findings(saved.report)


def _sayable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
