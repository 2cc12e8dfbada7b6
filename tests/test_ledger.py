"""The ledger: decisions, carrying them on, and two files that say the same, whatever is in them."""

from __future__ import annotations

import csv
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hemascope.errors import HemascopeError, LedgerError, UsageError
from hemascope.findings import AuditReport, CheckResult, Finding
from hemascope.ledger import (
    Ledger,
    LedgerRow,
    decide,
    from_findings,
    merge,
    parse_decision,
    previous_ledger,
    read_ledger,
    write_ledger,
)
from hemascope.ledger.columns import guard, unguard

FILES = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.one_of(
    st.sampled_from(
        ['=HYPERLINK("http://x","y")', "+1", "-1", "@SUM(A1)", "'=1", "''-", "a;b,c\td", 'q"q', "l\r\nm", "\r", "\n="]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
NAME = TEXT.filter(bool)
CLASSES = ("basophil", "monocyte")


@st.composite
def rows(draw: st.DrawFn, text: st.SearchStrategy[str] = TEXT) -> LedgerRow:
    suggestion = draw(st.sampled_from(["drop", "relabel", "review"]))
    decisions = ["", "fine", "drop", "relabel to monocyte", *(["accept"] if suggestion != "review" else [])]
    return LedgerRow(
        id=draw(text.filter(bool)),
        content_hash=draw(st.sampled_from(["", "aa", "1e10", "0b"])),
        check=draw(st.sampled_from(["exact_duplicate", "label_error", "off_topic"])),
        score=draw(st.floats(0, 1)),
        suggestion=suggestion,
        label=draw(text),
        new_label=draw(st.sampled_from(CLASSES)) if suggestion == "relabel" else "",
        related=draw(text),
        related_hash=draw(st.sampled_from(["", "aa", "bb"])),
        why=draw(text),
        decision=draw(st.sampled_from(decisions)),
        decided_by=draw(text),
        decided_at=draw(text),
        reason=draw(text),
        stale=draw(st.booleans()),
        extra={"my note": draw(text)},
    )


def ledgers(text: st.SearchStrategy[str] = TEXT) -> st.SearchStrategy[Ledger]:
    def made(found: list[LedgerRow], source: str, separator: str) -> Ledger:
        return Ledger(tuple(found), source, "f" * 64, CLASSES, {"blurred": 0.25}, ("my note",), separator)

    return st.builds(made, st.lists(rows(text), max_size=6), text, st.sampled_from(",;\t"))


def row(name: str = "a.png", **changes: object) -> LedgerRow:
    return replace(LedgerRow(name, "0a" * 16, "off_topic", 0.1, "drop", label="basophil", why="odd"), **changes)


def report(findings: list[Finding], names: list[str]) -> AuditReport:
    checks = dict.fromkeys(finding.check for finding in findings)
    return AuditReport(
        results=[
            CheckResult(check, cut=0.5, cut_rule="a rule", findings=[f for f in findings if f.check == check])
            for check in checks
        ],
        ids=names,
        content_hash=[f"hash of {name}".replace(" ", "-") for name in names],
        labels=np.zeros(len(names), dtype=np.int64),
        class_names=CLASSES,
        fingerprint="f" * 64,
        source="cells",
        embedding="",
    )


# --- the files ---------------------------------------------------------------------------------------------------


@FILES
@given(ledgers())
def test_both_files_say_the_same_as_was_written(tmp_path: Path, ledger: Ledger) -> None:
    """Formulas, quotes, line breaks, separators and any other text come back equal from the CSV and from the JSON."""
    write_ledger(tmp_path, ledger)
    assert read_ledger(tmp_path / "ledger.csv") == ledger
    assert read_ledger(tmp_path / "ledger.json") == ledger
    assert read_ledger(tmp_path / "ledger.csv").fingerprint() == ledger.fingerprint()


@given(TEXT)
def test_no_cell_is_a_formula(text: str) -> None:
    """No written cell begins as a formula does, and the apostrophe is taken away again, from no other cell."""
    assert not guard(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert unguard(guard(text)) == text


def test_a_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    """A byte order mark, semicolons, CRLF, decimal commas, other cases, columns moved, added and cut short."""
    text = "\ufeffCheck;ID;content_hash;Score;suggestion;decision;new_label;ward;;\r\n"
    text += "off_topic;a.png;blake2b:1e10;0,25;drop;Accept ;;3 B;;\r\n;;;;;;;;;\r\n"
    text += "label_error;b.png;blake2b:ff;0,1;relabel;RELABEL TO monocyte;basophil\r\n"
    (tmp_path / "x.csv").write_bytes(text.encode())
    ledger = read_ledger(tmp_path / "x.csv")
    first, second = ledger.rows
    assert (first.id, first.content_hash, first.score, first.decision) == ("a.png", "1e10", 0.25, "accept")
    assert first.extra == {"ward": "3 B"} and second.decision == "relabel to monocyte"
    assert (first.line, second.line) == (2, 4)
    write_ledger(tmp_path, ledger, stem="x")
    assert read_ledger(tmp_path / "x.csv") == ledger
    assert (tmp_path / "x.csv").read_text().startswith("id;content_hash;") and ";blake2b:1e10;" in text


HEAD = "id,content_hash,check,score,suggestion,new_label,decision\n"
GOOD = "a.png,blake2b:aa,off_topic,0.5,drop,,\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("id,check\na,b\n", "no column 'content_hash'"),
        (HEAD.replace("new_label", "id") + GOOD, "row 1: each column needs a name of its own"),
        (HEAD + GOOD + GOOD.replace("off_topic", "offtopic"), "row 3, column check: .*did you mean 'off_topic'"),
        (HEAD + GOOD.replace("0.5", "1,5"), "row 2: 8 cells|column suggestion"),
        (HEAD + GOOD.replace("0.5", "1.5"), "row 2, column score: .*'1.5'"),
        (HEAD + GOOD.replace("0.5", "nan"), "row 2, column score"),
        (HEAD + GOOD.replace("drop,,", "drop,,yes"), "row 2, column decision: .*'yes'"),
        (HEAD + GOOD.replace("drop,,", "drop,,relabel to "), "row 2, column decision"),
        (HEAD + GOOD.replace("drop,,", "review,,accept"), "row 2, column decision: nothing is suggested"),
        (HEAD + GOOD.replace("drop,,", "drop,monocyte,"), "row 2, column new_label"),
        (HEAD + GOOD.replace("drop", "burn"), "row 2, column suggestion"),
        (HEAD + GOOD.replace("blake2b:aa", "1.2E+31"), "row 2, column content_hash"),
        (HEAD + GOOD.replace("a.png", ""), "row 2, column id"),
        (HEAD + '"a.png,blake2b', "row 2: unexpected end of data"),
        (HEAD + "x" * 200_000 + GOOD, "row 2: field larger than field limit"),
        (b"\xff\xfei\x00d\x00", "is not UTF-8"),
        (HEAD[:-1] + ",x" * 300 + "\n", "more than 200 columns"),
        ('{"version": 1, "rows": [{' + ", ".join(f'"{i}": 1' for i in range(300)) + "}]}", "more than 200 columns"),
        ("[" * 100_000, "is nested deeper|is not JSON"),
        ("[]", "must be a JSON object"),
        ('{"version": 2, "rows": []}', "version 2"),
        ('{"version": 1, "rows": [3]}', "row 1: must be an object, found int"),
        ('{"version": 1, "rows": [{"id": ["a"]}]}', "row 1, column id: must be text"),
        ('{"version": 1, "rows": [{"id": "a", "check": "blurry"}]}', "row 1, column check"),
        ('{"version": 1, "rows": [], "cuts": [1]}', "cuts"),
        ('{"version": 1, "rows": [], "class_names": "ab"}', "class_names"),
    ],
)
def test_a_bad_ledger_names_row_and_column(tmp_path: Path, content: str | bytes, said: str) -> None:
    """What is not a ledger is refused in one sentence with the file, the row and the column."""
    raw = content if isinstance(content, bytes) else content.encode()
    path = tmp_path / ("x.json" if raw[:1] in b"[{" and raw else "x.csv")
    path.write_bytes(raw)
    with pytest.raises(LedgerError, match=said) as caught:
        read_ledger(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


@settings(FILES, max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 400), st.sampled_from([".csv", ".json"]))
def test_damage_is_a_ledger_error(tmp_path: Path, noise: bytes, place: int, ending: str) -> None:
    """Whatever bytes are put into either file, it is read or refused with a LedgerError."""
    write_ledger(tmp_path / "good", Ledger((row(), row("b.png", decision="drop"))))
    raw = (tmp_path / "good" / f"ledger{ending}").read_bytes()
    (tmp_path / f"bad{ending}").write_bytes(raw[:place] + noise + raw[place + len(noise) :])
    with suppress(LedgerError):
        read_ledger(tmp_path / f"bad{ending}")


def test_limits_and_absent_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many bytes or rows, a missing file, a folder and another ending are each one sentence."""
    write_ledger(tmp_path, Ledger((row(), row("b.png"))))
    monkeypatch.setattr("hemascope.ledger.files.MAX_ROWS", 1)
    for name in ("ledger.csv", "ledger.json"):
        with pytest.raises(LedgerError, match="more than 1 rows"):
            read_ledger(tmp_path / name)
    monkeypatch.setattr("hemascope.ledger.files.MAX_BYTES", 10)
    with pytest.raises(LedgerError, match="at most 10"):
        read_ledger(tmp_path / "ledger.csv")
    monkeypatch.undo()
    (tmp_path / "d.csv").mkdir()
    for name, said in (("none.csv", "No such file"), ("d.csv", "directory"), ("x.txt", "no ledger by its name")):
        with pytest.raises(LedgerError, match=said):
            read_ledger(tmp_path / name)


def test_of_two_edited_files_neither_is_lost(tmp_path: Path) -> None:
    """The file that was edited is read; giving the other one is an error, so no decision is passed over in silence."""
    ledger = Ledger((row(), row("b.png")), source="cells", cuts={"off_topic": 0.3})
    write_ledger(tmp_path, ledger)
    path = tmp_path / "ledger.csv"
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    lines[1]["decision"] = "drop"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    edited = read_ledger(path)
    assert [one.decision for one in edited.rows] == ["", "drop"]
    assert edited.source == "cells" and edited.cuts == {"off_topic": 0.3}
    with pytest.raises(LedgerError, match=r"ledger\.csv was edited .* delete it"):
        read_ledger(tmp_path / "ledger.json")
    write_ledger(tmp_path, edited)
    document = json.loads((tmp_path / "ledger.json").read_text())
    document["rows"][0]["decision"] = "fine"
    (tmp_path / "ledger.json").write_text(json.dumps(document))
    assert [one.decision for one in read_ledger(tmp_path / "ledger.json").rows] == ["fine", "drop"]
    with pytest.raises(LedgerError, match=r"ledger\.json was edited"):
        read_ledger(path)


# --- decisions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [(" Accept", "accept"), ("FINE", "fine"), ("drop ", "drop"), ("Relabel To  Ab c ", "relabel to Ab c"), (" ", "")],
)
def test_decisions_as_people_write_them(text: str, meant: str) -> None:
    """Case and spaces do not matter, except in the name of a class."""
    assert parse_decision(text) == meant


@given(ledgers(), st.randoms())
def test_the_fingerprint_is_of_what_is_done(ledger: Ledger, random: Random) -> None:
    """Order, authors, undecided and fine rows do not change it; one decision more or less does."""
    shuffled = list(ledger.rows)
    random.shuffle(shuffled)
    told = [replace(one, decided_by="x", reason="y", why="z", score=0.5) for one in shuffled]
    more = (*told, row("new", decision="fine"), row("new2"))
    assert replace(ledger, rows=more).fingerprint() == ledger.fingerprint()
    assert replace(ledger, rows=(*more, row("new3", decision="drop"))).fingerprint() != ledger.fingerprint()
    assert Ledger((row(decision="drop"),)).fingerprint() == Ledger((row(decision="accept"),)).fingerprint()


def test_bulk_decisions_leave_the_decided_alone() -> None:
    """Accepting a check decides its open findings that suggest something, with by, when and why, and no others."""
    ledger = Ledger(
        (
            row("a"),
            row("b", decision="fine", decided_by="eva"),
            row("c", suggestion="review"),
            row("d", check="blurred"),
        )
    )
    some = decide(ledger, ["off_topic"], "accept", by="ada", when="today", reason="overlays")
    assert [one.decision for one in some.rows] == ["accept", "fine", "", ""]
    assert (some.rows[0].decided_by, some.rows[0].decided_at, some.rows[0].reason) == ("ada", "today", "overlays")
    assert some.rows[1].decided_by == "eva"
    assert [one.decision for one in decide(ledger, "all", "fine", by="", when="").rows] == ["fine"] * 4
    with pytest.raises(UsageError, match="did you mean 'off_topic'"):
        decide(ledger, ["offtopic"], "accept", by="", when="")
    with pytest.raises(UsageError, match="at most 2,000"):
        decide(ledger, "all", "fine", by="", when="", reason="x" * 2001)
    with pytest.raises(LedgerError, match="relabel to CLASS"):
        decide(ledger, "all", "review", by="", when="")


def test_from_findings() -> None:
    """An audit's ledger has a row a finding in order, hashes of both images, the cuts, and nothing decided."""
    name = "a\udcff.png"
    found = Finding("near_duplicate", "b", "hash-of-b", 0.123456789, "drop", "alike", "basophil", related="r")
    odd = Finding("unreadable", name, "", 0.0, "drop", "cannot be decoded")
    ledger = from_findings(report([odd, found], ["r", "b"]))
    assert [one.id for one in ledger.rows] == ["a\\udcff.png", "b"]
    assert ledger.rows[1].related_hash == "hash-of-r" and ledger.rows[1].score == 0.123457
    assert ledger.cuts == {"unreadable": 0.5, "near_duplicate": 0.5} and ledger.class_names == CLASSES
    assert not any(one.decision for one in ledger.rows)


# --- from one audit to the next ----------------------------------------------------------------------------------


@given(ledgers(st.sampled_from("abc")), ledgers(st.sampled_from("abc")))
def test_merge_keeps_every_decision(new: Ledger, old: Ledger) -> None:
    """Each earlier decision is on a finding of its kind or kept as stale; findings only gain decisions."""
    open_rows = tuple(replace(one, decision="", stale=False) for one in new.rows)
    merged = merge(replace(new, rows=open_rows), old)
    found = merged.rows[: len(new.rows)]
    assert [replace(a, decision="", decided_by="", decided_at="", reason="", extra={}) for a in found] == [
        replace(a, decision="", decided_by="", decided_at="", reason="", extra={}) for a in open_rows
    ]
    decided = [one for one in old.rows if one.decision]
    assert sum(bool(one.decision) for one in merged.rows) == len(decided)
    keys = sorted(repr((one.key, one.effect)) for one in merged.rows if one.decision)
    assert keys == sorted(repr((one.key, one.effect)) for one in decided)
    assert all(one.stale for one in merged.rows[len(new.rows) :])
    again = merge(replace(new, rows=open_rows), merged)
    assert [one.decision for one in again.rows[: len(found)]] == [one.decision for one in found]
    assert sorted(map(repr, again.rows)) == sorted(map(repr, merged.rows))


def test_fine_stays_fine_though_files_are_renamed() -> None:
    """The pixels carry a decision on, another pair, another label or another check does not get it."""
    fine = row("old name.png", decision="fine", decided_by="eva")
    assert merge(Ledger((row("new name.png"),)), Ledger((fine,))).rows[0].decided_by == "eva"
    other = row("new name.png", check="blurred")
    assert [one.decision for one in merge(Ledger((other,)), Ledger((fine,))).rows] == ["", "fine"]
    pair = row(check="near_duplicate", related="r", related_hash="01", decision="fine")
    renamed = replace(pair, id="n", related="s", decision="")
    assert merge(Ledger((renamed,)), Ledger((pair,))).rows == (replace(pair, id="n", related="s"),)
    assert merge(Ledger((replace(renamed, related_hash="02"),)), Ledger((pair,))).rows[0].decision == ""
    label = row(check="label_error", suggestion="review", decision="fine")
    assert merge(Ledger((replace(label, decision="", label="monocyte"),)), Ledger((label,))).rows[0].decision == ""


def test_copies_keep_their_own_decisions() -> None:
    """Of copies of one picture each keeps what was decided about it, whatever the order of rows."""
    one, two = (
        row(name, check="exact_duplicate", related="r", related_hash="0a" * 16, decision=decision)
        for name, decision in (("a", "fine"), ("b", "accept"))
    )
    merged = merge(Ledger((replace(two, decision=""), replace(one, decision=""))), Ledger((one, two)))
    assert [(row.id, row.decision) for row in merged.rows] == [("b", "accept"), ("a", "fine")]


def test_what_was_accepted_stays_what_it_was() -> None:
    """Where a later audit suggests something else, an earlier accept still means what it meant."""
    earlier = row(check="label_error", suggestion="relabel", new_label="monocyte", decision="accept")
    later = replace(earlier, new_label="basophil", decision="")
    assert merge(Ledger((later,)), Ledger((earlier,))).rows[0].decision == "relabel to monocyte"
    dropped = row(decision="accept")
    assert merge(Ledger((replace(dropped, suggestion="review", decision=""),)), Ledger((dropped,))).rows[0].effect == (
        "drop",
        "",
    )


def test_previous_ledger(tmp_path: Path) -> None:
    """Earlier decisions come from the ledger given, the output folder and a cleaned store, in that order."""
    assert previous_ledger(tmp_path, tmp_path / "none") is None
    store, audit = tmp_path / "s", tmp_path / "a"
    store.mkdir()
    (store / "store.json").write_text("{}")
    write_ledger(store, Ledger((row("1", content_hash="01", decision="drop"), row("2", content_hash="02"))))
    assert len(previous_ledger(store, None) or ()) == 2
    write_ledger(audit, Ledger((row("1", content_hash="01", decision="fine"),)))
    given_path = write_ledger(tmp_path, Ledger((row("3", content_hash="03", decision="drop"),)), stem="mine")
    found = previous_ledger(store, audit, given_path)
    assert found is not None
    assert {one.id: (one.decision, one.stale) for one in found.rows} == {"3": ("drop", False), "1": ("fine", True)}
    (audit / "ledger.json").write_text("{")
    with pytest.raises(HemascopeError, match=r"ledger\.json is not JSON"):
        previous_ledger(store, audit)
