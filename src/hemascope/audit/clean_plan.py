"""What a ledger would do to a set of cells, before anything is done."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hemascope.cells import CellDataset
from hemascope.errors import LedgerError
from hemascope.ledger import Ledger, LedgerRow
from hemascope.names import suggestion

WRONG_DATA = 0.5
"""A ledger of which more than this share of the findings is about pictures that are not there is of other cells."""

ABSENT = -1


@dataclass(frozen=True)
class CleaningPlan:
    """What becomes of N cells.

    removed     bool (N,), left out
    labels      int64 (N,), from now on
    dropped_by  images dropped by the findings of each check; one image may be dropped by several
    relabelled_by  images given another label, by check
    unreadable  which of the images left out as unreadable are dropped for good, rising: nobody is told of them again
    warnings    sentences a person must not miss
    """

    removed: NDArray[np.bool_]
    labels: NDArray[np.int64]
    dropped_by: dict[str, int]
    relabelled_by: dict[str, int]
    unreadable: tuple[int, ...]
    warnings: tuple[str, ...]


def plan_cleaning(cells: CellDataset, ledger: Ledger) -> CleaningPlan:
    """What the decided rows of ``ledger`` do to ``cells``, found by their pixels' hashes, so files may be renamed.

    Dropping wins over relabelling; fine and undecided rows do nothing. Raises LedgerError where more than half of the
    findings are about pictures that are not there, where one image is given two labels, for an unknown class, and
    where no image would be left.
    """
    where, related, present = match_rows(cells, ledger.rows)
    warnings = _check_presence(ledger, where, present)
    removed = np.zeros(len(cells), dtype=np.bool_)
    relabels: dict[int, tuple[int, LedgerRow]] = {}
    dropped: dict[str, set[int]] = defaultdict(set)
    no_copy = 0
    acting = [
        (row, row.effect, place, other)
        for row, place, other in zip(ledger.rows, where, related, strict=True)
        if row.effect is not None and place != ABSENT
    ]
    for row, effect, place, other in acting:
        if effect[0] != "drop":
            continue
        if other == ABSENT and row.content_hash == row.related_hash:
            no_copy += 1  # the other copy is gone, so this one is no longer a copy
            continue
        removed[place] = True
        dropped[row.check].add(place)
    if no_copy:
        warnings.append(f"{no_copy:,} images were to go as copies of images that are not there; they stay")
    for row, effect, place, _ in acting:
        if effect[0] != "relabel" or removed[place]:
            continue
        label = _class(cells, effect[1], row)
        known = relabels.setdefault(place, (label, row))
        if known[0] != label:
            raise LedgerError(
                f"{_name(known[1])} and {_name(row)} give {cells.ids[place]} two labels, "
                f"{cells.class_names[known[0]]} and {cells.class_names[label]}; keep one of them"
            )
    labels = cells.labels.copy()
    relabelled: Counter[str] = Counter()
    for place, (label, row) in relabels.items():
        relabelled[row.check] += int(labels[place] != label)
        labels[place] = label
    if removed.all():
        raise LedgerError("the ledger drops every image, so nothing would be left to store; undo some decisions")
    gone = {row.id for row in ledger.rows if row.effect == ("drop", "") and not row.content_hash}
    warnings += _check_copies(cells, acting, removed) + _check_classes(cells, labels, removed)
    return CleaningPlan(
        removed,
        labels,
        {check: len(places) for check, places in dropped.items()},
        {check: count for check, count in relabelled.items() if count},
        tuple(place for place, item in enumerate(cells.unreadable) if item.id in gone),
        tuple(warnings),
    )


Acting = tuple[LedgerRow, tuple[str, str], int, int]


class Matches(NamedTuple):
    """For each row of a ledger, which of the cells it is about and which its ``related`` is; ABSENT for none.

    present  the content hashes that the cells have, of those the rows name
    """

    where: list[int]
    related: list[int]
    present: AbstractSet[str]


def match_rows(cells: CellDataset, rows: Sequence[LedgerRow]) -> Matches:
    """Find the cells that the rows of a ledger are about.

    Pixels decide. Where several cells have the same pixels (copies), ids tell them apart; copies whose files were
    renamed are told apart as far as they can be: the one a cluster keeps comes first, then equal labels.
    """
    wanted = {content for row in rows for content in (row.content_hash, row.related_hash) if content}
    cells_of: dict[str, list[int]] = defaultdict(list)
    for place, content in enumerate(cells.content_hash):
        if content in wanted:
            cells_of[content].append(place)
    kept: dict[str, dict[str, str]] = defaultdict(dict)  # of each content, ids named as the related one of a row
    named: dict[str, dict[str, str]] = defaultdict(dict)  # and ids named by rows themselves, with their labels
    copies: dict[str, set[str]] = defaultdict(set)  # and ids said to be different cells of these very pixels
    for row in rows:
        if row.related_hash:
            kept[row.related_hash].setdefault(row.related, "")
        if row.content_hash:
            named[row.content_hash].setdefault(row.id, row.label)
        if row.content_hash == row.related_hash:
            copies[row.content_hash] |= {row.id, row.related}
    found = {
        content: _tell_apart(cells, places, kept[content], named[content], copies[content])
        for content, places in cells_of.items()
    }
    nothing: dict[str, int] = {}
    return Matches(
        [found.get(row.content_hash, nothing).get(row.id, ABSENT) for row in rows],
        [found.get(row.related_hash, nothing).get(row.related, ABSENT) for row in rows],
        found.keys(),
    )


def _tell_apart(
    cells: CellDataset, places: list[int], kept: dict[str, str], named: dict[str, str], copies: set[str]
) -> dict[str, int]:
    """Which of these cells of equal pixels each id means; ids left out mean none."""
    by_id = {cells.ids[place]: place for place in places}
    means = {name: by_id[name] for name in (*kept, *named) if name in by_id}
    if len(places) == 1:  # one cell: whatever it was called, unless that was another copy
        means |= {name: places[0] for name in (*kept, *named) if name not in copies}
    taken = set(means.values())
    free = [place for place in places if place not in taken]
    for name in (*kept, *named):
        if name in means or not free:
            continue
        if name in kept:
            means[name] = free.pop(0)
            continue
        label = named[name]
        alike = (place for place in reversed(free) if _label_name(cells, place) == label)
        means[name] = next(alike, free[-1])
        free.remove(means[name])
    return means


def _check_presence(ledger: Ledger, where: list[int], present: AbstractSet[str]) -> list[str]:
    latest = [row for row in ledger.rows if row.content_hash and not row.stale]
    missing = sum(row.content_hash not in present for row in latest)
    if missing > WRONG_DATA * len(latest):
        raise LedgerError(
            f"the ledger is of other cells: {missing:,} of its {len(latest):,} findings are about pictures that are "
            "not among these; give the data it was made from"
        )
    lost = sum(
        place == ABSENT for row, place in zip(ledger.rows, where, strict=True) if row.effect and row.content_hash
    )
    said = f"{lost:,} decided findings are about pictures that are not among these cells; they change nothing"
    return [said] if lost else []


def _check_copies(cells: CellDataset, acting: Sequence[Acting], removed: NDArray[np.bool_]) -> list[str]:
    """Say where the image that a cluster keeps is dropped too, by a decision of its own."""
    lost = {
        place: other
        for _, effect, place, other in acting
        if effect[0] == "drop" and other != ABSENT and removed[other] and removed[place]
    }
    if not lost:
        return []
    place, other = next(iter(lost.items()))
    return [
        f"{len(lost):,} images go as copies of images that go too, so that none of these stays, "
        f"such as {cells.ids[place]} and {cells.ids[other]}"
    ]


def _check_classes(cells: CellDataset, labels: NDArray[np.int64], removed: NDArray[np.bool_]) -> list[str]:
    k = len(cells.class_names)
    left = np.bincount(labels[~removed & (labels >= 0)], minlength=k)
    return [
        f"the class {name} loses all its {before:,} images"
        for name, before, after in zip(cells.class_names, cells.class_counts().tolist(), left.tolist(), strict=True)
        if before and not after
    ]


def _class(cells: CellDataset, name: str, row: LedgerRow) -> int:
    if name in cells.class_names:
        return cells.class_names.index(name)
    stripped = [known.strip() for known in cells.class_names]
    if name.strip() in stripped:
        return stripped.index(name.strip())
    raise LedgerError(
        f"{_name(row)}: these cells have no class {name[:60]!r}; {suggestion(name[:60], cells.class_names)}"
    )


def _name(row: LedgerRow) -> str:
    return f"row {row.line} of the ledger" if row.line else f"the finding {row.check} of {row.id}"


def _label_name(cells: CellDataset, place: int) -> str:
    label = int(cells.labels[place])
    return cells.class_names[label] if label >= 0 else ""
