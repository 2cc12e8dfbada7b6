"""Which image trains, which chooses, which calibrates and which tests, so that nothing leaks from one to another.

Images that must stay together form a cluster: those of one group (patient, slide), and exact duplicates. A
cluster goes to one part as a whole. Placing the clusters is in ``split_clusters``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemascope.atomic import write_json
from hemascope.cells import SPLIT_NAMES, UNLABELLED, UNUSED, CellDataset
from hemascope.config import DataConfig
from hemascope.data.split_clusters import clusters, cut
from hemascope.errors import SplitError

VERSION = 1
REQUIRED = ("train", "validation", "test")
TRAIN, VALIDATION, CALIBRATION, TEST = range(4)
PART_INDEX = {name: index for index, name in enumerate(SPLIT_NAMES)}
OUT = -1

# Of exact duplicates in several parts of a source's own split, the copies in the first of these stay.
PRECEDENCE = (TEST, VALIDATION, CALIBRATION, TRAIN)


@dataclass(frozen=True)
class Splits:
    """The part of each of N cells.

    assignment   N of SPLIT_NAMES or UNUSED
    fingerprint  of the cells it was made for (``CellDataset.fingerprint``)
    notes        what a reader of the results should know, as sentences
    """

    assignment: NDArray[np.str_]
    fingerprint: str
    notes: tuple[str, ...] = ()

    def indices(self, part: str) -> NDArray[np.intp]:
        """Indices of the cells in ``part``, rising."""
        return np.flatnonzero(self.assignment == part)


def make_splits(cells: CellDataset, config: DataConfig, seed: int) -> Splits:
    """Split ``cells``: stratified by class, clusters kept whole; the same seed gives the same split.

    A source's own split is kept. What it lacks is taken from what it has: calibration from half of
    validation, validation and test from train. Exact duplicates across its parts stay in the test part and
    are unused elsewhere. Unlabelled images are unused, and so are exact duplicates with different labels
    (in a source's own test part they stay: published tests are not changed). Shares are met within the
    size of one cluster. Raises SplitError where a class cannot have an image in train, validation and test.
    """
    if not len(cells):
        raise SplitError("there is no image to split")
    present = np.flatnonzero(cells.class_counts())
    if not len(present):
        raise SplitError(
            "no image has a label; put the images in one folder a class, or label them by a manifest or a label pattern"
        )
    if len(present) == 1:
        raise SplitError(f"all labelled images are of one class, {cells.class_names[present[0]]!r}; training needs two")
    notes: list[str] = []
    contents, together = clusters(cells.content_hash, cells.groups)
    usable = cells.labels != UNLABELLED
    if not usable.all():
        notes.append(f"{np.count_nonzero(~usable):,} unlabelled images are unused.")
    conflicting = _conflicting(contents, cells.labels)
    rng = np.random.default_rng(seed)
    if cells.split is None:
        if conflicting.any():
            notes.append(
                f"{np.count_nonzero(conflicting):,} exact duplicates have different labels and are unused: "
                "none of them can be trusted."
            )
        parts = _made(cells, together, usable & ~conflicting, config, rng)
    else:
        parts = _own(cells, contents, together, conflicting, config, rng, notes)
    _check_classes(cells, parts)
    return Splits(np.array([*SPLIT_NAMES, UNUSED])[parts], cells.fingerprint(), tuple(notes))


def save_splits(path: Path, splits: Splits, cells: CellDataset) -> None:
    """Write a JSON file a person can read: fingerprint, counts, notes, and the part of each id. Raises OutputError."""
    _check_fingerprint(splits.fingerprint, cells, "this split")
    if len(set(cells.ids)) != len(cells):
        raise SplitError("the cells' ids are not unique, so a split cannot be written by id")
    names, counts = np.unique(splits.assignment, return_counts=True)
    write_json(
        path,
        {
            "version": VERSION,
            "fingerprint": splits.fingerprint,
            "counts": dict(zip(names.tolist(), counts.tolist(), strict=True)),
            "notes": list(splits.notes),
            "assignment": dict(zip(cells.ids, splits.assignment.tolist(), strict=True)),
        },
    )


def load_splits(path: Path, cells: CellDataset) -> Splits:
    """The split saved at ``path``. Raises SplitError where it is damaged or was made for other cells."""
    try:
        saved: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SplitError(f"cannot read the split {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SplitError(f"{path} is not a split file ({error}); give the splits.json of a run") from None
    if not isinstance(saved, dict) or saved.get("version") != VERSION:
        raise SplitError(f"{path} is not a split file of version {VERSION}")
    assignment, notes, fingerprint = (saved.get(key) for key in ("assignment", "notes", "fingerprint"))
    if not isinstance(assignment, dict) or not isinstance(notes, list) or not isinstance(fingerprint, str):
        raise SplitError(f"{path} is damaged: it needs fingerprint, notes and assignment")
    missing = next((name for name in cells.ids if name not in assignment), None)
    if missing is not None or len(assignment) != len(cells):
        example = f"; {missing!r} is not in it" if missing is not None else ""
        raise SplitError(
            f"{path} was made for other cells: it lists {len(assignment):,} images, here are {len(cells):,}{example}. "
            "Make a new split, or give the data it was made for"
        )
    _check_fingerprint(fingerprint, cells, str(path))
    ordered = [assignment[name] for name in cells.ids]
    unknown = next((part for part in ordered if part not in (*SPLIT_NAMES, UNUSED)), None)
    if unknown is not None:
        raise SplitError(f"{path} holds the part {unknown!r}; parts are {', '.join(SPLIT_NAMES)} and {UNUSED}")
    assigned = np.array(ordered, dtype=np.str_)
    if (cells.labels[assigned != UNUSED] == UNLABELLED).any():
        raise SplitError(f"{path} puts cells without a label into a part; mark them {UNUSED}, or label them")
    _check_classes(cells, np.array([PART_INDEX.get(part, OUT) for part in ordered]))
    return Splits(assigned, fingerprint, tuple(map(str, notes)))


def _check_fingerprint(fingerprint: str, cells: CellDataset, what: str) -> None:
    if fingerprint != (found := cells.fingerprint()):
        raise SplitError(
            f"{what} was made for other cells: labels or pixels have changed since (fingerprint {fingerprint[:12]}, "
            f"here {found[:12]}). Make a new split, or give the data it was made for"
        )


def _conflicting(contents: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool (N,): labelled images that have an exact duplicate with another label."""
    labelled = labels != UNLABELLED
    size = int(contents.max()) + 1
    lowest = np.full(size, np.iinfo(np.int64).max)
    highest = np.full(size, -1)
    np.minimum.at(lowest, contents[labelled], labels[labelled])
    np.maximum.at(highest, contents[labelled], labels[labelled])
    return np.asarray(labelled & (lowest < highest)[contents])


def _made(
    cells: CellDataset,
    together: NDArray[np.int64],
    usable: NDArray[np.bool_],
    config: DataConfig,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    shares = {VALIDATION: config.validation, CALIBRATION: config.calibration, TEST: config.test}
    return _taken(cells, together, np.flatnonzero(usable), shares, TRAIN, rng)


def _taken(
    cells: CellDataset,
    together: NDArray[np.int64],
    pool: NDArray[np.intp],
    shares: dict[int, float],
    rest: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """int64 (N,): ``pool`` cut into ``shares``, what is left to ``rest``, all other images OUT."""
    parts = np.full(len(cells), OUT, dtype=np.int64)
    if not len(pool):
        return parts
    table = [shares.get(part, 0.0) for part in range(len(SPLIT_NAMES))]
    table[rest] = 1 - sum(table)
    required = [SPLIT_NAMES[part] in REQUIRED and table[part] > 0 for part in range(len(table))]
    parts[pool] = cut(cells.labels[pool], together[pool], table, required, rng)
    return parts


def _own(
    cells: CellDataset,
    contents: NDArray[np.int64],
    together: NDArray[np.int64],
    conflicting: NDArray[np.bool_],
    config: DataConfig,
    rng: np.random.Generator,
    notes: list[str],
) -> NDArray[np.int64]:
    """The source's own split, mended where it leaks and completed where a part is missing."""
    assert cells.split is not None
    parts = np.array([PART_INDEX.get(name, OUT) for name in cells.split.tolist()], dtype=np.int64)
    parts[cells.labels == UNLABELLED] = OUT
    left_out = conflicting & (parts != TEST) & (parts != OUT)
    if left_out.any():
        parts[left_out] = OUT
        notes.append(
            f"{np.count_nonzero(left_out):,} images outside the test part have an exact duplicate with another label "
            "and are unused."
        )
    notes.append("The split is the source's own.")
    parts = _without_leaks(parts, contents, notes)
    _note_groups(cells, parts, notes)

    def move(shares: dict[int, float], source: int, sentence: str) -> None:
        taken = _taken(cells, together, np.flatnonzero(parts == source), shares, source, rng)
        chosen = (taken != OUT) & (taken != source)
        parts[chosen] = taken[chosen]
        notes.append(sentence.format(count=np.count_nonzero(chosen)))

    has = {part: bool((parts == part).any()) for part in range(len(SPLIT_NAMES))}
    if not has[TRAIN]:
        raise SplitError("the source's own split has no training part with labelled images; give one named train")
    if not has[TEST]:
        move({TEST: config.test}, TRAIN, "It has no test part: {count:,} images of train became one.")
    if not has[VALIDATION]:
        shares = {VALIDATION: config.validation}
        if not has[CALIBRATION]:
            shares[CALIBRATION] = config.calibration
        move(shares, TRAIN, "It has no validation part: {count:,} images of train serve validation and calibration.")
    elif not has[CALIBRATION] and config.calibration > 0:
        move({CALIBRATION: 0.5}, VALIDATION, "It has no calibration part: {count:,} images of validation became one.")
    return parts


def _without_leaks(parts: NDArray[np.int64], contents: NDArray[np.int64], notes: list[str]) -> NDArray[np.int64]:
    """Exact duplicates across parts stay in the part that comes first in PRECEDENCE."""
    rank = np.full(len(SPLIT_NAMES) + 1, len(PRECEDENCE))  # the last, reached by OUT = -1, loses to every part
    rank[list(PRECEDENCE)] = range(len(PRECEDENCE))
    best = np.full(int(contents.max()) + 1, len(PRECEDENCE))
    np.minimum.at(best, contents, rank[parts])
    leaking = (parts != OUT) & (rank[parts] > best[contents])
    if leaking.any():
        parts = np.where(leaking, OUT, parts)
        in_test = np.count_nonzero(leaking & (best[contents] == 0))
        notes.append(
            f"{np.count_nonzero(leaking):,} images of the source's own split are exact duplicates of images in another "
            f"part ({in_test:,} of images in test); these copies are unused."
        )
    return parts


def _note_groups(cells: CellDataset, parts: NDArray[np.int64], notes: list[str]) -> None:
    if cells.groups is None:
        return
    used = (parts != OUT) & (cells.groups != "")
    names, index = np.unique(cells.groups[used], return_inverse=True)
    pairs = np.unique(np.stack([index, parts[used]]), axis=1)[0]
    straddling = np.count_nonzero(np.bincount(pairs, minlength=len(names)) > 1) if len(names) else 0
    if straddling:
        notes.append(f"{straddling:,} groups lie in more than one part of the source's own split: results may flatter.")


def _check_classes(cells: CellDataset, parts: NDArray[np.int64]) -> None:
    """Every class with labelled images needs one in train, validation and test."""
    classes = len(cells.class_names)
    for part in REQUIRED:
        counts = np.bincount(cells.labels[parts == PART_INDEX[part]], minlength=classes)
        lacking = np.flatnonzero(counts == 0)
        if len(lacking):
            raise SplitError(_too_few(cells, lacking, part))


def _too_few(cells: CellDataset, lacking: NDArray[np.intp], part: str) -> str:
    counts = cells.class_counts()
    named: Sequence[str] = [f"{cells.class_names[i]!r} ({counts[i]:,} images)" for i in lacking[:5]]
    more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
    what = "class" if len(lacking) == 1 else "classes"
    reason = (
        "its source's own split gives it none"
        if cells.split is not None
        else "train, validation and test each need one, duplicates and groups kept together"
    )
    return (
        f"no image of the {what} {', '.join(named)}{more} can be in {part}: {reason}. "
        "Add images from other patients or slides, or leave the class out"
    )
