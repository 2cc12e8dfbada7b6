"""Audits, ledgers and cleaning: wrong words, damaged ledgers, stores of other cells."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from bad_cases.case import CLASSES, Case, Ground, no_room, ordinary_user, write
from bad_cases.trust_tests import both, locked, not_numbers, other_store

AUDIT = "audit cells -o new --config tiny.toml --checks exact_duplicate --map 0"
CLEAN = "clean cells --ledger ledger.csv -o new.store --config tiny.toml"
HEADER = "id,content_hash,check,score,suggestion,decision\n"
CLEAN_MANY = CLEAN.replace("cells", "many")
ROW = f"{CLASSES[0]}/{CLASSES[0]}_00000.jpg,blake2b:{'0' * 32},blank,0.1,drop,"


def ledger(text: str) -> Callable[[Path, Ground], None]:
    """``ledger.csv`` with this text."""
    return write("ledger.csv", text)


def _decided_nothing(here: Path, ground: Ground) -> None:
    """``ledger.csv`` of no finding."""
    ledger(HEADER)(here, ground)


def _many(here: Path, ground: Ground) -> None:
    shutil.copytree(ground.many, here / "many")


def _occupied(here: Path, ground: Ground) -> None:
    (here / "new").mkdir()
    (here / "new" / "letter.txt").write_text("mine", encoding="utf-8")


def _broken_audit(here: Path, ground: Ground) -> None:
    (here / "new").mkdir()
    for name, text in (("audit.json", "{"), ("ledger.csv", "nothing like a ledger")):
        (here / "new" / name).write_text(text, encoding="utf-8")


def _decided(decision: str, *, blanks: int = 1) -> Callable[[Path, Ground], None]:
    """``ledger.csv`` of an audit of ``many`` in which the first pictures are to be treated so."""

    def make(here: Path, ground: Ground) -> None:
        from hemascope.config_files import load_config
        from hemascope.data.load import load

        preparation = load_config(file=ground.config).data.preparation
        cells = load(here / "many", preparation=preparation, cache_dir=here.parent / "cache")
        rows = [f"{cells.ids[k]},{cells.content_hash[k]},blank,0.1,drop,{decision}" for k in range(blanks)]
        ledger(HEADER + "".join(f"{row}\n" for row in rows))(here, ground)

    return make


def _cleaned(here: Path, ground: Ground) -> None:
    """``new.store``: cleaned cells whose record of the cleaning is damaged."""
    from hemascope.audit.cleaning import clean
    from hemascope.config_files import load_config

    _decided("drop")(here, ground)
    preparation = load_config(file=ground.config).data.preparation
    clean(here / "many", here / "ledger.csv", here / "new.store", preparation=preparation)
    (here / "new.store/cleaning.json").write_text("{", encoding="utf-8")


def _full_store(here: Path, ground: Ground) -> None:
    write("new.store/thesis.txt", "all of it")(here, ground)


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
    Case("clean of a path that is not there", f"{CLEAN_MANY.replace('many', 'cellz')}", ("cellz",), _decided_nothing),
    Case("binary ledger", CLEAN, ("ledger.csv is not UTF-8 text",), write("ledger.csv", bytes(range(256)))),
    Case(
        "ledger in JSON that is none",
        CLEAN.replace("ledger.csv", "ledger.json"),
        ("ledger.json is not JSON",),
        write("ledger.json", "{"),
    ),
    Case("ledger that relabels to no class", CLEAN_MANY, ("no class 'blast'",), _decided("relabel to blast")),
    Case(
        "ledger that leaves no cell",
        CLEAN_MANY,
        ("drops every image", "undo some decisions"),
        _decided("drop", blanks=120),
    ),
    Case(
        "accepting an unknown check",
        f"{CLEAN_MANY} --accept blnk",
        ("no check 'blnk'", "did you mean 'blank'?"),
        _decided(""),
        status=2,
    ),
    Case(
        "clean and undo at once",
        "clean many --undo --ledger ledger.csv",
        ("--undo puts everything back", "without --ledger"),
        status=2,
    ),
    Case(
        "reason for nothing that is accepted",
        f"{CLEAN_MANY} --reason because",
        ("--accept",),
        status=2,
    ),
    Case(
        "cleaned store over a folder of something else",
        CLEAN_MANY,
        ("new.store", "-o"),
        both(_decided("drop"), _full_store),
    ),
    Case(
        "cleaned store over the cells themselves", CLEAN_MANY.replace("new.store", "many"), ("many",), _decided("drop")
    ),
    Case(
        "cleaned store without permission to write",
        CLEAN_MANY.replace("new.store", "locked/new.store"),
        ("cannot write locked/new.store", "Permission denied"),
        both(_decided("drop"), locked),
        around=ordinary_user,
    ),
    Case(
        "disk full while the cleaned store is written",
        CLEAN_MANY,
        ("cannot write new.store", "Free some space"),
        _decided("drop"),
        around=no_room,
    ),
    Case(
        "clean of pixels of NaN",
        "clean cells.npz --ledger ledger.csv -o new.store",
        ("NaN",),
        both(not_numbers, _decided_nothing),
    ),
    Case(
        "clean of a store of another preparation",
        "clean packed --ledger ledger.csv -o new.store --config tiny.toml",
        ("was packed with", "bicubic to 48"),
        both(other_store, _decided_nothing),
    ),
    Case(
        "undoing by a damaged record",
        "clean new.store --undo",
        ("new.store/cleaning.json is damaged", "clean the cells again"),
        both(_many, _cleaned),
    ),
    Case(
        "audit below a file",
        AUDIT.replace("-o new", "-o notes/new"),
        ("cannot write notes/new", "choose another place"),
        write("notes", "none"),
    ),
)
