"""A cleaned store: a packed store of the kept cells that holds, inside it, all that is needed to undo the cleaning.

images.npy, index.parquet, store.json   the kept cells with their new labels, opened like any store
removed/                                a packed store of the cells left out
cleaning.json                           fingerprints, which rows were left out, the labels before
ledger.csv, ledger.json                 the ledger as it was applied
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from hemascope.atomic import atomic_folder, write_json
from hemascope.audit.clean_plan import CleaningPlan
from hemascope.cells import CellDataset, Unreadable
from hemascope.config import Preparation
from hemascope.data.store import StoreRow, fill_store, open_store, read_store_header
from hemascope.errors import DataError, StoreError
from hemascope.ledger import Ledger, write_ledger
from hemascope.progress import SILENT, Advance, Progress

VERSION = 1
RECORD = "cleaning.json"
REMOVED = "removed"
LEDGERS = ("ledger.csv", "ledger.json")
MAX_RECORD_BYTES = 512 * 2**20


class CleaningRecord(BaseModel):
    """What ``cleaning.json`` holds: what turns the store back into the N cells it was made of.

    ledger      fingerprint of the ledger applied
    before      fingerprint of the N cells as they were
    after       fingerprint of the kept cells
    count       N
    removed     which of the N rows were left out, rising; the others are kept, in order
    old_labels  (row, label) of every cell with a new label, as it was
    unreadable  which of the images listed as unreadable were taken off that list, rising
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    ledger: str
    before: str
    after: str
    count: int
    removed: list[int]
    old_labels: list[tuple[int, int]]
    unreadable: list[int]


@dataclass(frozen=True)
class Original:
    """N cells before any cleaning, with their pixels wherever these are.

    cells        all of them, in order, labels as they were. Of a cleaned store ``images`` is a stand-in of zeros
    preparation  how their pixels were prepared
    image        the prepared pixels of cell i, uint8 (S, S, 3), read when asked for
    """

    cells: CellDataset
    preparation: Preparation
    image: Callable[[int], NDArray[np.uint8]]


def is_cleaned(path: Path) -> bool:
    """Does a cleaned store stand at ``path``?"""
    return (path / RECORD).is_file() and (path / "store.json").is_file()


def read_record(path: Path) -> CleaningRecord:
    """``cleaning.json`` of the cleaned store at ``path``, checked. Raises StoreError."""
    file = path / RECORD
    try:
        if file.stat().st_size > MAX_RECORD_BYTES:
            raise StoreError(f"{file} is larger than can be right; clean the cells again")
        record = CleaningRecord.model_validate_json(file.read_bytes())
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror}; clean the cells again") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its text"
        raise StoreError(f"{file} is damaged ({place}: {first['msg']}); clean the cells again") from None
    if record.version != VERSION:
        raise StoreError(f"{file} is of version {record.version}, this reads {VERSION}; clean the cells again")
    rows = np.array([-1, *record.removed, record.count])
    relabelled = [row for row, _ in record.old_labels]
    unlisted = np.array([-1, *record.unreadable])
    if (
        (np.diff(rows) < 1).any()
        or (np.diff(unlisted) < 1).any()
        or any(not 0 <= row < record.count for row in relabelled)
    ):
        raise StoreError(f"{file} is damaged: it names rows that cannot be; clean the cells again")
    return record


def open_original(path: Path) -> Original:
    """The cells of the packed store at ``path`` as they were before cleaning: kept and removed ones, in order.

    A store that was never cleaned is handed on as it is. Raises StoreError for a damaged one.
    """
    kept, preparation = open_store(path), read_store_header(path).preparation
    if not is_cleaned(path):
        if kept.cleaning:
            raise StoreError(f"{path} was cleaned but has no {RECORD}, so the cleaning cannot be undone")
        return Original(kept, preparation, lambda row: np.asarray(kept.images[row]))
    record, removed = read_record(path), open_store(path / REMOVED)
    bad = len(kept.unreadable) + len(removed.unreadable)
    if len(removed.unreadable) != len(record.unreadable) or any(place >= bad for place in record.unreadable):
        raise StoreError(f"{path} is damaged: its lists of unreadable images do not agree; clean the cells again")
    if len(removed) != len(record.removed) or len(kept) + len(removed) != record.count:
        raise StoreError(
            f"{path} is damaged: {len(kept):,} cells kept and {len(removed):,} removed, expected {record.count:,} "
            f"with {len(record.removed):,} removed; clean the cells again"
        )
    is_removed = np.zeros(record.count, dtype=np.bool_)
    is_removed[record.removed] = True
    place = np.empty(record.count, dtype=np.int64)
    place[is_removed], place[~is_removed] = np.arange(len(removed)), np.arange(len(kept))

    def image(row: int) -> NDArray[np.uint8]:
        return np.asarray((removed if is_removed[row] else kept).images[place[row]])

    try:
        cells = _joined(kept, removed, is_removed, record)
    except (DataError, OverflowError) as error:
        raise StoreError(f"{path} is damaged: {error}; clean the cells again") from None
    if cells.fingerprint() != record.before:
        raise StoreError(f"{path} is damaged: its cells are not those that were cleaned; clean the cells again")
    return Original(cells, preparation, image)


def write_cleaned(
    path: Path, original: Original, plan: CleaningPlan, ledger: Ledger, *, progress: Progress = SILENT
) -> None:
    """Write the cleaned store to ``path``, whole or not at all; what is there is replaced.

    Pixels are read one image at a time. Raises OutputError where it cannot be written.
    """
    cells, applied = original.cells, ledger.fingerprint()
    kept, removed = np.flatnonzero(~plan.removed), np.flatnonzero(plan.removed)
    changed = np.flatnonzero((plan.labels != cells.labels) & ~plan.removed)
    dropped = set(plan.unreadable)
    listed = [item for place, item in enumerate(cells.unreadable) if place not in dropped]
    unlisted = [cells.unreadable[place] for place in plan.unreadable]
    with (
        atomic_folder(path) as folder,
        progress.task("writing the cleaned store", len(cells), "images") as advance,
    ):
        after = _fill(folder, original, kept, plan.labels, listed, advance, notes=cells.notes, cleaning=applied)
        (folder / REMOVED).mkdir()
        _fill(folder / REMOVED, original, removed, cells.labels, unlisted, advance)
        record = CleaningRecord(
            version=VERSION,
            ledger=applied,
            before=cells.fingerprint(),
            after=after,
            count=len(cells),
            removed=removed.tolist(),
            old_labels=[(int(row), int(cells.labels[row])) for row in changed],
            unreadable=list(plan.unreadable),
        )
        write_json(folder / RECORD, record.model_dump(mode="json"))
        write_ledger(folder, ledger)


def restore(path: Path, output: Path | None = None, *, progress: Progress = SILENT) -> CellDataset:
    """Undo the cleaning of the store at ``path``: all cells in their order with their labels, as one plain store.

    It replaces ``path``, or is written to ``output`` where that is given. The ledger stays in it, not applied. The
    new store appears whole or not at all. Raises StoreError where there is no cleaning to undo.
    """
    if not (path / "store.json").is_file():
        raise StoreError(f"{path} is not a packed store, so there is no cleaning to undo; give a cleaned store")
    if not is_cleaned(path) and not read_store_header(path).cleaning:
        raise StoreError(f"{path} holds no cleaning to undo: it was never cleaned, or that was undone already")
    original = open_original(path)
    target = path if output is None else output
    with (
        atomic_folder(target) as folder,
        progress.task("restoring the store", len(original.cells), "images") as advance,
    ):
        cells = original.cells
        rows = np.arange(len(cells))
        fingerprint = _fill(folder, original, rows, cells.labels, cells.unreadable, advance, notes=cells.notes)
        if fingerprint != cells.fingerprint():
            raise StoreError(f"{path} cannot be restored: its cells came out different; it was left as it is")
        for name in LEDGERS:
            if (path / name).is_file():
                shutil.copyfile(path / name, folder / name)
    return open_store(target)


def _fill(
    folder: Path,
    original: Original,
    rows: NDArray[np.intp],
    labels: NDArray[np.int64],
    unreadable: Sequence[Unreadable],
    advance: Advance,
    *,
    notes: Mapping[str, int] | None = None,
    cleaning: str = "",
) -> str:
    """A store of these rows in ``folder``; its fingerprint."""
    return fill_store(
        folder,
        chain(_rows(original, rows, labels, advance), unreadable),
        class_names=original.cells.class_names,
        preparation=original.preparation,
        source=original.cells.source,
        notes=notes,
        cleaning=cleaning,
    )


def _rows(
    original: Original, rows: NDArray[np.intp], labels: NDArray[np.int64], advance: Advance
) -> Iterator[StoreRow]:
    cells = original.cells
    for row in rows.tolist():
        image = original.image(row)
        height, width = image.shape[:2] if cells.original_size is None else cells.original_size[row].tolist()
        yield StoreRow(
            id=cells.ids[row],
            label=int(labels[row]),
            image=image,
            content_hash=cells.content_hash[row],
            height=height,
            width=width,
            split=None if cells.split is None else str(cells.split[row]),
            group=None if cells.groups is None else str(cells.groups[row]),
        )
        advance(1)


def _joined(
    kept: CellDataset, removed: CellDataset, is_removed: NDArray[np.bool_], record: CleaningRecord
) -> CellDataset:
    """Both parts as one set in the original order, with the original labels and no pixels."""

    def join(first: Any, second: Any) -> Any:
        """Rows of ``first`` (kept) and ``second`` (removed) in the original order."""
        if first is None or not len(removed):
            return first
        if second is None:
            raise DataError("kept and removed cells do not have the same columns")
        dtype = np.result_type(first, second)
        whole = np.empty((record.count, *first.shape[1:]), dtype=dtype)
        whole[~is_removed], whole[is_removed] = first, second
        return whole

    def join_texts(first: Any, second: Any) -> list[str]:
        texts = join(*(np.fromiter(part, dtype=object, count=len(part)) for part in (first, second)))
        return list(texts)

    listed, unlisted = iter(kept.unreadable), iter(removed.unreadable)
    dropped = set(record.unreadable)
    unreadable = [
        next(unlisted if place in dropped else listed)
        for place in range(len(kept.unreadable) + len(removed.unreadable))
    ]
    labels = np.array(join(kept.labels, removed.labels))
    for row, label in record.old_labels:
        labels[row] = label
    return replace(
        kept,
        images=np.broadcast_to(np.zeros((1, 1, 1, 1), dtype=np.uint8), (record.count, *kept.images.shape[1:])),
        labels=labels,
        ids=join_texts(kept.ids, removed.ids),
        content_hash=join_texts(kept.content_hash, removed.content_hash),
        split=join(kept.split, removed.split),
        groups=join(kept.groups, removed.groups),
        original_size=join(kept.original_size, removed.original_size),
        unreadable=tuple(unreadable),
        cleaning="",
    )
