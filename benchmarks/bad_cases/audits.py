"""Audits, ledgers and cleaning: wrong words, damaged ledgers, stores of other cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bad_cases.case import CLASSES, Case, Ground, write

AUDIT = "audit cells -o new --config tiny.toml --checks exact_duplicate --map 0"
CLEAN = "clean cells --ledger ledger.csv -o new.store --config tiny.toml"
HEADER = "id,content_hash,check,score,suggestion,decision\n"
ROW = f"{CLASSES[0]}/{CLASSES[0]}_00000.jpg,blake2b:{'0' * 32},blank,0.1,drop,"


def ledger(text: str) -> Callable[[Path, Ground], None]:
    """``ledger.csv`` with this text."""
    return write("ledger.csv", text)


def _occupied(here: Path, ground: Ground) -> None:
    (here / "new").mkdir()
    (here / "new" / "letter.txt").write_text("mine", encoding="utf-8")


def _broken_audit(here: Path, ground: Ground) -> None:
    (here / "new").mkdir()
    for name, text in (("audit.json", "{"), ("ledger.csv", "nothing like a ledger")):
        (here / "new" / name).write_text(text, encoding="utf-8")


AUDITS = (
    Case("audit of a path that is not there", "audit nowhere -o new", ("nowhere",)),
    Case(
        "unknown check",
        AUDIT.replace("exact_duplicate", "exact_duplicates"),
        ("no check 'exact_duplicates'", "did you mean 'exact_duplicate'?"),
        status=2,
    ),
    Case("no check named", "audit cells -o new --checks ,", ("no check ''",), status=2),
    Case("a map of three points", AUDIT.replace("--map 0", "--map 3"), ("at least 10 points", "found 3"), status=2),
    Case("views that are no number of turns", "audit cells -o new --views 3", ("--views", "3"), status=2),
    Case("audit into a folder of something else", AUDIT, ("not empty and holds no audit", "-o"), _occupied),
    Case("audit over an audit with a spoilt ledger", AUDIT, ("ledger.csv",), _broken_audit),
    Case("earlier ledger that is not there", f"{AUDIT} --ledger gone.csv", ("gone.csv",)),
    Case("audit with a run that is none", "audit cells -o new --run cells", ("cells",)),
    Case(
        "map of a part without a run", "map cells -o new.html --points 3", ("at least 10 points", "found 3"), status=2
    ),
    Case("clean without a ledger", "clean cells -o new.store", ("--ledger",), status=2),
    Case("clean with a ledger that is not there", CLEAN, ("ledger.csv",)),
    Case("ledger that is no table", CLEAN, ("ledger.csv",), ledger("hello\n")),
    Case("ledger that is empty", CLEAN, ("ledger.csv",), ledger("")),
    Case("ledger with a decision that is none", CLEAN, ("decision",), ledger(f"{HEADER}{ROW}perhaps\n")),
    Case("ledger with an unknown check", CLEAN, ("ghost",), ledger(HEADER + ROW.replace("blank", "ghost") + "drop\n")),
    Case(
        "ledger with a score that is no number", CLEAN, ("score",), ledger(HEADER + ROW.replace("0.1", "much") + "\n")
    ),
    Case("ledger of other cells", CLEAN, ("ledger",), ledger(f"{HEADER}{ROW}drop\n")),
    Case("undoing where nothing was cleaned", "clean cells --undo", ("cells",)),
)
