"""The ledger as two files of the same content: CSV for spreadsheets, JSON with a header for programs.

Either may be edited. Both are read as hostile: limits on bytes and rows, every cell checked, and a message that names
the row (as a spreadsheet numbers it: the header of the CSV is row 1) and the column.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from hemascope.atomic import atomic_path, write_text
from hemascope.errors import LedgerError
from hemascope.ledger.columns import COLUMNS, NEEDED, as_text, cells_of_row, guard, row_of_text, unguard
from hemascope.ledger.rows import Ledger, LedgerRow, decisions_digest, merge

VERSION = 1
MAX_BYTES = 512 * 2**20
MAX_ROWS = 1_000_000
MAX_COLUMNS = 200
STEM = "ledger"
_COLUMNS = frozenset(COLUMNS)


def read_ledger(path: str | Path) -> Ledger:
    """The ledger in ``path``, a .csv or a .json of ``write_ledger``, as a person may have edited it.

    A CSV may have a byte order mark, semicolons or tabs for commas, CRLF, columns in any order, columns of its own
    and empty lines; its header (source, cuts) is taken from the JSON of the same name beside it, where there is one.
    Where the other of the two files was edited since both were written, and says something else, there is no telling
    which is meant: LedgerError. Raises LedgerError, naming row and column, for anything that is not right.
    """
    path = Path(path)
    ledger, _ = _read(path)
    other = _other(path)
    if not other.is_file():
        return ledger
    beside, written = _read(other)
    if other.suffix.lower() == ".csv":
        _, written = _read_json(path)
    known = decisions_digest(beside.rows)
    if known not in (written, decisions_digest(ledger.rows)):
        raise LedgerError(
            f"{other} was edited since it was written and says something else than {path}. "
            f"Give {other.name}, or delete it to go by {path.name}"
        )
    if other.suffix.lower() == ".csv":
        return replace(ledger, separator=beside.separator)
    return replace(beside, rows=ledger.rows, extra_columns=ledger.extra_columns, separator=ledger.separator)


def write_ledger(folder: str | Path, ledger: Ledger, *, stem: str = STEM) -> Path:
    """Write ``ledger.csv`` and ``ledger.json`` to ``folder``, each atomically; the path of the CSV.

    Cells that a spreadsheet would run as formulas (beginning with = + - @, tab or line break) get an apostrophe in
    front, which reading takes away. Raises OutputError where a file cannot be written.
    """
    folder = Path(folder)
    columns = (*COLUMNS, *ledger.extra_columns)
    with (
        atomic_path(folder / f"{stem}.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        # The writer quotes what its own line ending holds, so it must hold \r; lines then end in \n alone.
        writer = csv.writer(_Lines(file.write), delimiter=ledger.separator, lineterminator="\r\n")
        writer.writerow(map(guard, columns))
        for row in ledger.rows:
            writer.writerow([guard(as_text(value)) for value in _all_cells(row, ledger).values()])
    document = {
        "version": VERSION,
        "source": ledger.source,
        "fingerprint": ledger.cells,
        "class_names": list(ledger.class_names),
        "cuts": dict(ledger.cuts),
        "extra_columns": list(ledger.extra_columns),
        "written": decisions_digest(ledger.rows),
        "rows": [],
    }
    begins = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("[]\n}")
    # One line a finding: readable, and a change of one decision is a change of one line.
    lines = (json.dumps(_all_cells(row, ledger), ensure_ascii=False, allow_nan=False) for row in ledger.rows)
    write_text(folder / f"{stem}.json", begins + "[\n" + ",\n".join(lines) + "\n]}\n")
    return folder / f"{stem}.csv"


def previous_ledger(
    data: str | Path | None, output: str | Path | None, given: str | Path | None = None
) -> Ledger | None:
    """What was decided before about these cells; None where nothing was.

    Looked for in: the ledger ``given``; one already in the folder ``output``, where an earlier audit was written; the
    one inside ``data`` where that is a cleaned store. Of two decisions about one finding the first named here stands.
    Raises LedgerError for one that cannot be read.
    """
    found = [] if given is None else [read_ledger(given)]
    places = [] if output is None else [Path(output)]
    if data is not None and (Path(data) / "store.json").is_file():
        places.append(Path(data))
    for folder in places:
        file = next((folder / f"{STEM}{end}" for end in (".csv", ".json") if (folder / f"{STEM}{end}").is_file()), None)
        if file is not None:
            found.append(read_ledger(file))
    if not found:
        return None
    ledger = found[-1]
    for stronger in reversed(found[:-1]):
        ledger = merge(stronger, ledger)
    return ledger


def _all_cells(row: LedgerRow, ledger: Ledger) -> dict[str, Any]:
    return cells_of_row(row) | {name: row.extra.get(name, "") for name in ledger.extra_columns}


class _Lines:
    """A file for csv.writer, which writes one row at a time: rows end in a line feed alone."""

    def __init__(self, write: Callable[[str], Any]) -> None:
        self._write = write

    def write(self, row: str) -> None:
        self._write(row.removesuffix("\r\n") + "\n")


def _other(path: Path) -> Path:
    return path.with_suffix(".json" if path.suffix.lower() == ".csv" else ".csv")


def _read(path: Path) -> tuple[Ledger, str]:
    """The ledger of one file, and what its decisions were when it was written ("" where the file does not say)."""
    kind = path.suffix.lower()
    if kind not in (".csv", ".json"):
        raise LedgerError(f"{path} is no ledger by its name: give the ledger.csv or ledger.json of an audit")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LedgerError(f"{path} has {path.stat().st_size:,} bytes; a ledger has at most {MAX_BYTES:,}")
        return (_read_csv(path), "") if kind == ".csv" else _read_json(path)
    except OSError as error:
        raise LedgerError(f"cannot read the ledger {path}: {error.strerror or error}; check the path") from None
    except UnicodeDecodeError:
        raise LedgerError(f"{path} is not UTF-8 text; save it again as CSV UTF-8") from None


def _read_csv(path: Path) -> Ledger:
    with path.open(encoding="utf-8-sig", newline="") as file:
        separator = _separator(file.readline())
        file.seek(0)
        reader = csv.reader(file, delimiter=separator, strict=True)
        numbered = enumerate(_csv_rows(reader, path), 1)
        line, header = next(numbered, (0, None))
        if header is not None and len(header) == 1 and header[0].startswith("sep="):
            line, header = next(numbered, (0, None))
        if header is None:
            raise LedgerError(f"{path} is empty; a ledger begins with a row of column names")
        names = _names(header, path)
        rows = []
        for line, row in numbered:
            if not any(row):
                continue
            if any(row[len(names) :]):
                raise LedgerError(f"{path}, row {line}: {len(row)} cells where the header has {len(names)} columns")
            cells = row + [""] * (len(names) - len(row))  # spreadsheets cut empty ends off
            values = dict(zip(names, map(unguard, cells), strict=False))
            rows.append(row_of_text(values, line, path))
            _check_count(len(rows), path)
    return Ledger(tuple(rows), extra_columns=tuple(name for name in names if name not in COLUMNS), separator=separator)


def _separator(first: str) -> str:
    if first.startswith("sep=") and len(first.rstrip("\r\n")) == 5:  # a line some spreadsheets put above the header
        return first[4] if first[4] in ",;\t" else ","
    return max(",;\t", key=first.count)


def _csv_rows(reader: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    count = 0
    try:
        for row in reader:
            count += 1
            yield row
    except csv.Error as error:
        raise LedgerError(
            f"{path}, row {count + 1}: {error}; check its quotes, or save it from a spreadsheet"
        ) from None


def _names(header: Sequence[str], path: Path) -> list[str]:
    names = [unguard(name) for name in header]
    plain = [name.strip().lower() for name in names]
    names = [short if short in COLUMNS else name for name, short in zip(names, plain, strict=True)]
    while names and not names[-1]:  # spreadsheets like to end rows with empty cells
        names.pop()
    _check_columns(len(names), path)
    for wanted in NEEDED:
        if wanted not in names:
            raise LedgerError(f"{path} has no column {wanted!r}; a ledger has {', '.join(NEEDED)}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or "" in names:
        raise LedgerError(
            f"{path}, row 1: each column needs a name of its own, found {(twice or '')[:60]!r} twice or empty"
        )
    return names


def _read_json(path: Path) -> tuple[Ledger, str]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise LedgerError(f"{path} is nested deeper than a ledger is") from None
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise LedgerError(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("rows"), list):
        raise LedgerError(f"{path} is no ledger: it must be a JSON object with a list of rows")
    if document.get("version") != VERSION:
        raise LedgerError(f"{path} is a ledger of version {document.get('version')!r:.40}; this reads {VERSION}")
    _check_count(len(document["rows"]), path)
    head = {name: document.get(name, "") for name in ("source", "fingerprint", "written")}
    lists = {name: document.get(name, []) for name in ("class_names", "extra_columns")}
    cuts = document.get("cuts", {})
    for name, fits in (
        *((name, isinstance(value, str)) for name, value in head.items()),
        *((name, _is_texts(value)) for name, value in lists.items()),
        ("cuts", isinstance(cuts, dict) and all(cut is None or _is_number(cut) for cut in cuts.values())),
    ):
        if not fits:
            raise LedgerError(f"{path}: {name} is not what a ledger has there; audit again")
    extra = dict.fromkeys(lists["extra_columns"], "")
    for line, row in enumerate(document["rows"], 1):
        if not isinstance(row, dict):
            raise LedgerError(f"{path}, row {line}: must be an object, found {type(row).__name__}")
        for name, value in row.items():
            if isinstance(value, dict | list):
                raise LedgerError(f"{path}, row {line}, column {name[:60]}: must be text, found {type(value).__name__}")
            if name not in _COLUMNS:
                extra[name] = ""
        _check_columns(len(extra), path)
    rows = [
        row_of_text(extra | {name: as_text(value) for name, value in row.items()}, line, path)
        for line, row in enumerate(document["rows"], 1)
    ]
    ledger = Ledger(tuple(rows), head["source"], head["fingerprint"], tuple(lists["class_names"]), cuts, tuple(extra))
    return ledger, head["written"]


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _check_columns(count: int, path: Path) -> None:
    if count > MAX_COLUMNS:
        raise LedgerError(f"{path} has more than {MAX_COLUMNS} columns; a ledger has at most so many")


def _check_count(count: int, path: Path) -> None:
    if count > MAX_ROWS:
        raise LedgerError(f"{path} has more than {MAX_ROWS:,} rows; a ledger has at most so many")
