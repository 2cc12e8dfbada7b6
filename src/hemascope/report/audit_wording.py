"""An audit in plain words: the verdict, how each check came out, and figures as short facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hemascope.findings import CHECKS, AuditReport, CheckResult, Suggestion

Kind = Literal["found", "passed", "not-applicable", "not-made"]

SUGGESTIONS: Mapping[Suggestion, str] = {"drop": "to drop", "relabel": "to relabel", "review": "to look at"}
"""What is proposed, as part of a sentence."""

_LONGEST_TABLE = 40


@dataclass(frozen=True)
class Outcome:
    """How a check came out: its kind, the word for it, and details or reasons."""

    kind: Kind
    word: str
    detail: str


def outcome(result: CheckResult | None) -> Outcome:
    """Found, passed, not applicable or, where there is no result, not made; never passed without having been made."""
    if result is None:
        return Outcome("not-made", "not made", "This audit was asked for other checks only.")
    if result.not_applicable:
        return Outcome("not-applicable", "not applicable", _sentence(result.not_applicable))
    sentence = str(result.summary.get("sentence") or "")
    if result.findings:
        kinds = Counter(one.suggestion for one in result.findings)
        parts = ", ".join(f"{kinds[one]:,} {words}" for one, words in SUGGESTIONS.items() if kinds[one])
        return Outcome("found", f"{len(result.findings):,} found", sentence or f"{parts}.")
    if result.passed:
        return Outcome("passed", "passed", sentence or "Nothing found.")
    return Outcome("found", "found", sentence)


def audit_verdict(report: AuditReport) -> str:
    """The whole audit in a sentence or two."""
    images = len(report)
    proposed: dict[Suggestion, set[str]] = {name: set() for name in SUGGESTIONS}
    for finding in report.findings:
        proposed[finding.suggestion].add(finding.id)
    dropped = len(proposed["drop"])
    # Unreadable images are not among the N that could be read.
    unreadable = len(proposed["drop"] - set(report.ids)) if dropped else 0
    parts = []
    if dropped:
        share = f" ({100 * dropped / max(images + unreadable, 1):.2g}\N{NO-BREAK SPACE}%)"
        parts.append(f"{dropped:,} {_are(dropped)} proposed for removal{share}")
    if relabelled := len(proposed["relabel"] - proposed["drop"]):
        parts.append(f"{relabelled:,} for another label")
    if looked := len(proposed["review"] - proposed["drop"] - proposed["relabel"]):
        parts.append(f"{looked:,} more should be looked at")
    text = _joined(parts) if parts else "nothing was found that should be removed"
    outcomes = Counter(outcome(result).kind for result in report.results)
    made = outcomes["found"] + outcomes["passed"]
    rest = f" {outcomes['found']:,} of {made:,} checks found something"
    if skipped := outcomes["not-applicable"]:
        rest += f"; {skipped:,} could not be made, which says nothing either way"
    return f"Of {images + unreadable:,} images {text}.{rest}. Nothing is changed until someone decides."


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


@dataclass(frozen=True)
class Table:
    """A small table: its title, column names, and rows of text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int = 0


_NOT_SHOWN = frozenset({"verdict", "sentence", "probes", "counts"})
"""Parts of a summary that stand elsewhere in the section."""


def facts_of(summary: Mapping[str, Any]) -> tuple[tuple[tuple[str, str], ...], tuple[Table, ...]]:
    """A summary as (name, text) pairs and small tables, whatever it holds."""
    facts, tables = [], []
    for key, value in summary.items():
        if key in _NOT_SHOWN or value is None or value in ("", [], {}):
            continue
        title = words(key)
        if isinstance(value, Mapping):
            table = _table_of_mapping(title, value)
            tables.append(table)
        elif isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
            columns = tuple(dict.fromkeys(name for one in value for name in one))
            rows = tuple(tuple(text_of(one.get(name)) for name in columns) for one in value[:_LONGEST_TABLE])
            tables.append(Table(title, tuple(map(words, columns)), rows, max(0, len(value) - _LONGEST_TABLE)))
        else:
            facts.append((title, text_of(value)))
    return tuple(facts), tuple(tables)


def _table_of_mapping(title: str, value: Mapping[str, Any]) -> Table:
    entries = list(value.items())[:_LONGEST_TABLE]
    more = max(0, len(value) - _LONGEST_TABLE)
    if all(isinstance(one, Mapping) for _, one in entries):
        columns = tuple(dict.fromkeys(name for _, one in entries for name in one))
        rows = tuple((str(key), *(text_of(one.get(name)) for name in columns)) for key, one in entries)
        return Table(title, ("", *map(words, columns)), rows, more)
    return Table(title, ("", ""), tuple((str(key), text_of(one)) for key, one in entries), more)


def text_of(value: Any) -> str:
    """A plain JSON value as short text."""
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list):
        shown = ", ".join(text_of(one) for one in value[:12])
        return shown + (f" and {len(value) - 12:,} more" if len(value) > 12 else "")
    if isinstance(value, Mapping):
        return ", ".join(f"{words(str(key))}: {text_of(one)}" for key, one in list(value.items())[:12])
    return str(value)


def words(key: str) -> str:
    """A key as a title: ``largest_cluster`` becomes ``Largest cluster``."""
    text = key.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def check_order(report: AuditReport) -> list[tuple[str, CheckResult | None]]:
    """Every check there is with its result, None where it was not made, in the order of CHECKS."""
    made = {result.check: result for result in report.results}
    return [(code, made.get(code)) for code in CHECKS]
