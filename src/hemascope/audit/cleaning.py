"""Cleaning a set of cells by a ledger, and undoing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hemascope.audit.clean_plan import CleaningPlan, plan_cleaning
from hemascope.audit.cleaned_store import Original, is_cleaned, open_original, read_record, restore, write_cleaned
from hemascope.cells import CellDataset
from hemascope.config import Preparation
from hemascope.data.load import PLAIN, load, open_prepared
from hemascope.data.sources import open_source
from hemascope.data.store import open_store, read_store_header
from hemascope.errors import OutputError, StoreError
from hemascope.ledger import Ledger, decide, read_ledger, write_ledger
from hemascope.manifest import now
from hemascope.progress import SILENT, Progress


@dataclass(frozen=True)
class Cleaned:
    """What cleaning did.

    store     the cleaned store
    cells     the kept cells, opened from it
    ledger    the ledger as applied
    plan      what became of the cells before cleaning
    before    fingerprint of these
    accepted  findings that this call decided
    written   False where the store was already as it should be
    """

    store: Path
    cells: CellDataset
    ledger: Ledger
    plan: CleaningPlan
    before: str
    accepted: int
    written: bool


def clean(
    data: str | Path,
    ledger: str | Path,
    output: str | Path,
    *,
    accept: Sequence[str] | Literal["all"] = (),
    by: str = "",
    reason: str = "",
    preparation: Preparation | None = None,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    label_pattern: str | None = None,
    max_unreadable: float = 0.05,
    progress: Progress = SILENT,
) -> Cleaned:
    """Apply what a ledger decides to the cells of ``data``; the kept ones go to a packed store at ``output``.

    data         a path of any format ``load`` knows. Of a cleaned store all cells count, also those removed, so that
                 decisions can be taken back
    accept       checks whose undecided findings are accepted first, or "all"; this is written to the ledger's files
                 with ``by``, the time and ``reason``
    preparation  None: a packed store's own, else the plain one

    The same ledger on the same cells changes nothing, a changed one rewrites the store. Nothing is lost: the store
    holds the removed cells and the labels before, see ``undo``. Raises LedgerError, SourceError, StoreError,
    OutputError (also where ``output`` holds something else), UsageError for an unknown check.
    """
    path, target = Path(ledger), Path(output)
    decide(read_ledger(path), accept, "accept", by=by, when="", reason=reason)  # what is wrong here is said at once
    original = _open(
        Path(data),
        preparation,
        format=format,
        class_names=class_names,
        label_pattern=label_pattern,
        max_unreadable=max_unreadable,
        progress=progress,
    )
    before = original.cells.fingerprint()
    _check_place(target, before)
    open_now = read_ledger(path)  # again: it may have been edited while the cells were read
    decided = decide(open_now, accept, "accept", by=by, when=now(), reason=reason)
    accepted = sum(new != old for new, old in zip(decided.rows, open_now.rows, strict=True))
    plan = plan_cleaning(original.cells, decided)
    if accepted:
        write_ledger(path.parent, decided, stem=path.stem)
    current = _is_current(target, before, decided, original)
    if not current:
        write_cleaned(target, original, plan, decided, progress=progress)
    elif not (target / "ledger.csv").is_file() or read_ledger(target / "ledger.csv") != decided:
        write_ledger(target, decided)  # other decisions of no effect, such as fine
    return Cleaned(target, open_store(target), decided, plan, before, accepted, not current)


def undo(
    data: str | Path, output: str | Path | None = None, *, progress: Progress = SILENT
) -> tuple[Path, CellDataset]:
    """Restore the cells of a cleaned store, all of them, in order, with their labels; the store and its cells.

    The store is ``output`` where that exists, else ``data``; where only ``data`` exists, ``output`` is where the
    restored store goes. Raises StoreError where there is no cleaning to undo, OutputError where writing fails.
    """
    source = Path(data)
    if output is None:
        return source, restore(source, progress=progress)
    target = Path(output)
    if target.exists():
        return target, restore(target, progress=progress)
    if not is_cleaned(source):
        raise StoreError(f"{target} does not exist, so there is no cleaning to undo; give the cleaned store")
    return target, restore(source, target, progress=progress)


def _open(
    path: Path,
    preparation: Preparation | None,
    *,
    format: str | None,
    class_names: Sequence[str] | None,
    label_pattern: str | None,
    max_unreadable: float,
    progress: Progress,
) -> Original:
    """The cells at ``path`` as they were before any cleaning."""
    source = open_source(path, format=format, class_names=class_names, label_pattern=label_pattern)
    if source.kind == "store":
        if preparation is not None:
            open_prepared(path, preparation)
        return open_original(path)
    wanted = preparation or PLAIN
    cells = load(
        path,
        format=format,
        preparation=wanted,
        class_names=class_names,
        label_pattern=label_pattern,
        max_unreadable=max_unreadable,
        progress=progress,
    )
    return Original(cells, wanted, lambda row: cells.images[row])


def _check_place(target: Path, before: str) -> None:
    """Refuse to replace anything but a store of the very same cells: only then nothing can be lost."""
    if not target.exists() and not target.is_symlink():
        return
    if not (target / "store.json").is_file():
        raise OutputError(f"{target} is there and is no packed store; choose another place with -o")
    held = read_record(target).before if is_cleaned(target) else read_store_header(target).fingerprint
    if held != before:
        raise OutputError(f"{target} holds other cells than these; choose another place with -o, or remove it first")


def _is_current(target: Path, before: str, ledger: Ledger, original: Original) -> bool:
    if not is_cleaned(target):
        return False
    record, made = read_record(target), read_store_header(target).preparation
    return (record.ledger, record.before, made) == (ledger.fingerprint(), before, original.preparation)
