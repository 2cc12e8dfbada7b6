"""Findings and the decisions about them; deciding many at once; carrying decisions into a later audit."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from hemascope.errors import LedgerError, UsageError
from hemascope.findings import CHECKS, AuditReport, Suggestion
from hemascope.names import suggestion as nearest

ACCEPT, FINE, DROP, RELABEL = "accept", "fine", "drop", "relabel to "
LONGEST_REASON = 2000

_OF_THE_LABEL = frozenset({"label_error", "conflicting_label"})
"""Checks whose findings are about a label: of the same picture under another label they say something else."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One finding and what was decided about it.

    id, content_hash, check, score, suggestion, why, label, new_label, related   as in ``Finding``
    related_hash  content hash of ``related``, "" for none or not known
    decision      "" undecided · accept, do what is suggested · fine, no fault · drop · relabel to CLASS
    decided_by, decided_at, reason  by whom, when, why: free text
    stale         decided earlier; the latest audit did not find it again
    extra         columns a person added: name to text
    line          the row's number in the file it was read from, for messages; 0 for none
    """

    id: str
    content_hash: str
    check: str
    score: float
    suggestion: Suggestion
    label: str = ""
    new_label: str = ""
    related: str = ""
    related_hash: str = ""
    why: str = ""
    decision: str = ""
    decided_by: str = ""
    decided_at: str = ""
    reason: str = ""
    stale: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if self.decision != parse_decision(self.decision):
            raise LedgerError(f"{self.id}: a decision is written {parse_decision(self.decision)!r}")
        if self.decision == ACCEPT and self.suggestion == "review":
            raise LedgerError(f"{self.id} by {self.check}: {NOTHING_TO_ACCEPT}")

    @property
    def effect(self) -> tuple[Literal["drop", "relabel"], str] | None:
        """What the decision does to the image: ("drop", ""), ("relabel", class) or None."""
        if self.decision == DROP or (self.decision == ACCEPT and self.suggestion == "drop"):
            return "drop", ""
        if self.decision == ACCEPT:
            return "relabel", self.new_label
        if self.decision.startswith(RELABEL):
            return "relabel", self.decision.removeprefix(RELABEL)
        return None

    @property
    def key(self) -> Hashable:
        """What makes two findings the same though files were renamed: the check and the pixels, not the ids."""
        label = self.label if self.check in _OF_THE_LABEL else None
        return self.check, self.content_hash or ("unreadable", self.id), self.related_hash or self.related, label


NOTHING_TO_ACCEPT = (
    "nothing is suggested but to look at it, so there is nothing to accept; write fine, drop or relabel to CLASS"
)


@dataclass(frozen=True)
class Ledger:
    """The findings of an audit with their decisions.

    rows           one a finding
    source         where the cells came from, for people
    cells          fingerprint of the cells audited (``CellDataset.fingerprint``)
    class_names    their classes
    cuts           of each check, None where it has none
    extra_columns  names of the columns a person added, in order
    separator      of the CSV it was read from, kept so that the same spreadsheet opens it again
    """

    rows: tuple[LedgerRow, ...]
    source: str = ""
    cells: str = ""
    class_names: tuple[str, ...] = ()
    cuts: Mapping[str, float | None] = field(default_factory=dict)
    extra_columns: tuple[str, ...] = ()
    separator: str = field(default=",", compare=False)

    def __len__(self) -> int:
        return len(self.rows)

    def fingerprint(self) -> str:
        """SHA-256 over what the decisions do to the images.

        Independent of the order of rows, of the file's format, of who decided and when, and of rows that change
        nothing (undecided, fine). Two ledgers of one fingerprint do the same to the same cells.
        """
        digest = hashlib.sha256(b"hemascope ledger 1\n")
        effects = {
            json.dumps([*row.effect, row.content_hash, row.id, row.label, row.related, row.related_hash])
            for row in self.rows
            if row.effect is not None
        }
        for effect in sorted(effects):
            digest.update(effect.encode() + b"\n")
        return digest.hexdigest()


def parse_decision(text: str) -> str:
    """A decision as written by a person, in its one spelling. Raises LedgerError for anything else."""
    words = text.strip()
    if words.casefold() in ("", ACCEPT, FINE, DROP):
        return words.casefold()
    if words.casefold().startswith(RELABEL) and (name := words[len(RELABEL) :].strip()):
        return RELABEL + name
    raise LedgerError(
        f"a decision must be accept, fine, drop, relabel to CLASS, or empty while it is open; found {words[:60]!r}"
    )


def from_findings(report: AuditReport) -> Ledger:
    """The ledger of an audit, nothing decided yet."""
    related = {finding.related for finding in report.findings if finding.related}
    hashes = {name: content for name, content in zip(report.ids, report.content_hash, strict=True) if name in related}
    rows = tuple(
        LedgerRow(
            id=_sayable(finding.id),
            content_hash=finding.content_hash,
            check=finding.check,
            score=float(f"{finding.score:.6g}"),
            suggestion=finding.suggestion,
            label=_sayable(finding.label),
            new_label=_sayable(finding.new_label),
            related=_sayable(finding.related),
            related_hash=hashes.get(finding.related, ""),
            why=_sayable(finding.why),
        )
        for finding in report.findings
    )
    return Ledger(
        rows=rows,
        source=_sayable(report.source),
        cells=report.fingerprint,
        class_names=report.class_names,
        cuts={result.check: None if result.cut is None else float(result.cut) for result in report.results},
    )


def decide(
    ledger: Ledger, checks: Sequence[str] | Literal["all"], decision: str, *, by: str, when: str, reason: str = ""
) -> Ledger:
    """The ledger with ``decision`` on every undecided finding of these checks; what was decided stays as it was.

    Findings that suggest nothing (review) cannot be accepted and stay undecided. Raises UsageError for an unknown
    check or a reason of more than 2,000 characters, LedgerError for something that is no decision.
    """
    chosen = set(CHECKS) if checks == "all" else set(checks)
    for code in sorted(chosen - set(CHECKS)):
        raise UsageError(f"there is no check {code!r}; {nearest(code, list(CHECKS))}")
    if len(reason) > LONGEST_REASON:
        raise UsageError(f"a reason has at most {LONGEST_REASON:,} characters, found {len(reason):,}")
    decision = parse_decision(decision)

    def decided(row: LedgerRow) -> LedgerRow:
        if row.decision or row.check not in chosen or (decision == ACCEPT and row.suggestion == "review"):
            return row
        return replace(row, decision=decision, decided_by=by, decided_at=when, reason=reason)

    return replace(ledger, rows=tuple(map(decided, ledger.rows)))


def merge(new: Ledger, old: Ledger) -> Ledger:
    """The findings of ``new`` with the decisions of ``old``, so that what was decided once stays decided.

    A finding is the same when check, pixels and the pixels of the related image are (for findings about labels, the
    label too); of several such (copies of one picture) those of equal ids go together first. Where ``new`` is decided
    already, its decision stands. Decided rows of ``old`` that ``new`` does not find are kept and marked stale.
    """
    partners = _pair(new.rows, old.rows)
    taken = set(partners.values())
    rows = [
        _carried(row, old.rows[partners[place]]) if place in partners else row for place, row in enumerate(new.rows)
    ]
    kept = (row for place, row in enumerate(old.rows) if place not in taken and row.decision)
    rows += [replace(row, stale=True) for row in kept]
    columns = dict.fromkeys((*new.extra_columns, *old.extra_columns))
    return replace(new, rows=tuple(rows), extra_columns=tuple(columns), separator=old.separator)


def _pair(new: Sequence[LedgerRow], old: Sequence[LedgerRow]) -> dict[int, int]:
    """Which row of ``new`` is which of ``old``; each at most once."""
    pairs: dict[int, int] = {}
    for by_id in (True, False):

        def key(row: LedgerRow, by_id: bool = by_id) -> Hashable:
            return (row.key, row.id if by_id else None)

        taken = set(pairs.values())
        waiting: dict[Hashable, list[int]] = defaultdict(list)
        for place in reversed(range(len(old))):
            if place not in taken:
                waiting[key(old[place])].append(place)
        for place, row in enumerate(new):
            if place not in pairs and waiting.get(key(row)):
                pairs[place] = waiting[key(row)].pop()
    return pairs


def _carried(row: LedgerRow, earlier: LedgerRow) -> LedgerRow:
    extra = {**earlier.extra, **row.extra}
    if row.decision or not earlier.decision:
        return replace(row, extra=extra)
    decision = earlier.decision
    if decision == ACCEPT and (row.suggestion, row.new_label) != (earlier.suggestion, earlier.new_label):
        # What was agreed to is what was suggested then, not what is suggested now.
        decision = DROP if earlier.suggestion == "drop" else parse_decision(RELABEL + earlier.new_label)
    return replace(
        row,
        decision=decision,
        decided_by=earlier.decided_by,
        decided_at=earlier.decided_at,
        reason=earlier.reason,
        extra=extra,
    )


def decisions_digest(rows: Iterable[LedgerRow]) -> str:
    """SHA-256 over everything a person may have written in these rows, in any order: was a file edited?"""
    told = sorted(
        json.dumps([row.check, row.content_hash, row.id, row.related, row.decision, row.reason]) for row in rows
    )
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _sayable(text: str) -> str:
    """``text`` as UTF-8 can say it: a file name of undecodable bytes holds lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
