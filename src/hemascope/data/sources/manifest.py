"""A table that lists images: CSV or Parquet with the columns path, label, split and group."""

from __future__ import annotations

import csv
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.cells import SPLIT_NAMES, UNUSED
from hemascope.data.parquet_table import read_columns
from hemascope.data.sources.folder import printable, signature_of, state_of
from hemascope.data.sources.source import SPLIT_ALIASES, Source, check_unique, encode_labels
from hemascope.errors import SourceError

COLUMNS = ("path", "label", "split", "group")
MAX_BYTES = 2 * 2**30
MAX_ROWS = 10_000_000
"""Most rows of a Parquet table; far above any set of cell images, and what a computer's memory still holds."""
DELIMITERS = ",;\t"


def open_manifest(path: Path, given: str, *, class_names: Sequence[str] | None = None) -> Source:
    """The images that a CSV (comma, semicolon or tab) or Parquet table lists, one a row.

    ``path`` is needed and may be listed once; ``label``, ``split`` and ``group`` may be absent or empty
    (unlabelled; unused; no group); other columns are ignored. A relative path is meant from the
    manifest's folder and may not leave it, neither by ``..`` nor by a symbolic link. An absolute path is
    taken as it is: who writes one has named that very file. A file that does not exist becomes an
    unreadable image, counted against the limit on these. Raises SourceError.
    """
    if path.stat().st_size > MAX_BYTES:
        raise SourceError(f"{given} is larger than {MAX_BYTES:,} bytes, too large for a manifest")
    columns = _read_parquet(path, given) if path.suffix.lower() == ".parquet" else _read_csv(path, given)
    listed = columns["path"]
    if not listed:
        raise SourceError(f"{given} lists no image")
    blank = next((row for row, name in enumerate(listed) if not name or "\0" in name), None)
    if blank is not None:
        raise SourceError(f"{given}: image {blank + 1} has no usable path; fill it in or take the row out")
    absolute = any(Path(name).is_absolute() for name in listed)
    folder = path.parent
    files, entries = _locate(folder, listed, given)
    above = given.rpartition("/")[0]
    prefix = f"{above}/" if "/" in given and not absolute else ""
    # Where some paths are absolute, no common beginning can be set aside, so names are whole paths.
    names = [printable(str(folder / name)) for name in listed] if absolute else list(map(printable, listed))
    check_unique([os.path.normpath(file) for file in files], given)
    check_unique(names, given)

    labels, known = encode_labels(columns.get("label") or [""] * len(listed), class_names, given)
    notes: Counter[str] = Counter()
    split = _parse_split(columns["split"], given, notes) if "split" in columns else None
    digest = hashlib.sha256("\x1e".join("\x1f".join(row) for row in zip(*columns.values(), strict=True)).encode())
    return Source(
        kind="manifest",
        path=path,
        class_names=known,
        prefix=prefix,
        names=names,
        labels=labels,
        fetch=lambda index: files[index],
        signature=signature_of([(digest.hexdigest(), len(listed), ""), *entries]),
        split=split,
        groups=np.array(columns["group"]) if any(columns.get("group", ())) else None,
        notes=dict(notes),
        bytes_on_disk=path.stat().st_size + sum(max(size, 0) for _, size, _ in entries),
    )


def _read_csv(path: Path, given: str) -> dict[str, list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline(65536)
            delimiter = max(DELIMITERS, key=header.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            names = [name.strip() for name in next(reader, [])]
            if "\0" in header:
                raise SourceError(f"{given} is not text; save it as UTF-8 CSV or as Parquet")
            wanted = _columns(names, given, "" if len(names) > 1 else "; columns end at a comma, semicolon or tab")
            columns: dict[str, list[str]] = {name: [] for name in wanted}
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                for name, index in wanted.items():
                    columns[name].append(row[index].strip() if index < len(row) else "")
    except UnicodeDecodeError:
        raise SourceError(f"{given} is not UTF-8 text; save it as UTF-8 CSV or as Parquet") from None
    except csv.Error as error:
        raise SourceError(f"{given} is not a readable CSV file ({error}); save it again") from None
    except OSError as error:
        raise SourceError(f"cannot read {given}: {error.strerror}") from None
    return columns


def _read_parquet(path: Path, given: str) -> dict[str, list[str]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        header = parquet.read_schema(path).names
        wanted = {name: header[index] for name, index in _columns(header, given).items()}
        read = read_columns(path, list(wanted.values()), file_bytes=path.stat().st_size, max_rows=MAX_ROWS)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{given} is not a readable Parquet file ({error}); save it again") from None
    return {
        name: ["" if value is None else str(value).strip() for value in read[column]] for name, column in wanted.items()
    }


def _columns(header: list[str], given: str, hint: str = "") -> dict[str, int]:
    """Known column names to their positions. Raises SourceError without ``path`` or with one named twice."""
    lowered = [name.lower() for name in header]
    for name in COLUMNS:
        if lowered.count(name) > 1:
            raise SourceError(f"{given} has two columns named {name}; leave one of them out")
    if "path" not in lowered:
        found = ", ".join(header)[:200] or "none"
        raise SourceError(f"{given} needs a column named path (and may have label, split, group); found {found}{hint}")
    return {name: lowered.index(name) for name in COLUMNS if name in lowered}


def _parse_split(column: list[str], given: str, notes: Counter[str]) -> NDArray[np.str_]:
    parts = []
    for row, name in enumerate(column):
        part = SPLIT_ALIASES.get(name.lower(), UNUSED if not name else None)
        if part is None:
            raise SourceError(
                f"{given}: image {row + 1} has the split {name!r}; use one of "
                f"{', '.join(SPLIT_NAMES)}, {UNUSED} (or val for validation)"
            )
        parts.append(part)
    if "" in column:
        notes["rows without a split, unused"] = column.count("")
    return np.array(parts)


def _locate(folder: Path, listed: list[str], given: str) -> tuple[list[Path], list[tuple[str, int, str]]]:
    """Files to open, and (name, size, time of change) of each. Raises SourceError for a path that leaves ``folder``."""
    home = os.path.realpath(folder)
    real_parents: dict[Path, str] = {}  # resolving a folder once, not once an image
    files, entries = [], []
    for row, name in enumerate(listed):
        file = folder / name
        relative = not Path(name).is_absolute()
        try:
            status = file.lstat()
            if relative:
                parent = file.parent
                if parent not in real_parents:
                    real_parents[parent] = os.path.realpath(parent)
                real = f"{real_parents[parent]}{os.sep}{file.name}"
                if stat.S_ISLNK(status.st_mode):
                    real = os.path.realpath(file)
                _refuse_outside(real, home, name, row, given)
            if stat.S_ISLNK(status.st_mode):
                status = file.stat()
            entries.append((printable(name), status.st_size, state_of(status)))
        except (OSError, ValueError):  # missing, or a name too long: reading it will say so
            if relative:
                _refuse_outside(os.path.normpath(f"{home}{os.sep}{name}"), home, name, row, given)
            entries.append((printable(name), -1, ""))
        files.append(file)
    return files, entries


def _refuse_outside(real: str, home: str, name: str, row: int, given: str) -> None:
    if os.path.commonpath([os.path.normpath(real), home]) != home:
        raise SourceError(
            f"{given}: image {row + 1} ({printable(name)[:200]!r}) leads out of the manifest's folder; "
            "move the file into it, or give its absolute path"
        )
