"""Looking at an augmentation policy, and augmenting a set once and for all."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.atomic import atomic_folder, write_json
from hemascope.augmentation import Augmentation, operated, position_generator
from hemascope.cells import UNUSED, CellDataset
from hemascope.config import RunConfig
from hemascope.data.splits import make_splits
from hemascope.data.store import StoreRow, fill_store
from hemascope.errors import DataError, OutputError, UsageError
from hemascope.policies import OPERATIONS, Operation, Policy
from hemascope.progress import SILENT, Progress
from hemascope.report.contact_sheet import SheetRow, SheetSection, save_contact_sheet
from hemascope.workflow.cells import Data, cells_of, spread
from hemascope.workflow.places import check_free

DRAWS = 9
MAX_CELLS = 24
MAX_COPIES = 100


def preview(
    policy: Policy,
    data: Data,
    config: RunConfig | None = None,
    *,
    output: str | Path,
    cells: int = 8,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Draw what a model would see under ``policy``: a PNG with two parts.

    First ``cells`` cells of ``data``, spread over the classes, each as it is and nine times augmented. Then every
    operation of the policy by itself, at the two ends of its strength and between, on two cells.

    Raises DataError, ConfigError, OutputError; UsageError for a number of cells that no sheet holds.
    """
    if not 1 <= cells <= MAX_CELLS:
        raise UsageError(f"a sheet shows 1 to {MAX_CELLS} cells, found {cells}")
    if not str(output).lower().endswith(".png"):
        raise UsageError(f"the sheet is a PNG picture: give a name such as sheet.png, found {str(output)!r}")
    config = config or RunConfig()
    found = cells_of(data, config, format=format, class_names=class_names, progress=progress)
    if not len(found):
        raise DataError("there is no image to show")
    rows = spread(found.labels, config.seed)[:cells]
    rows = rows[np.argsort(found.labels[rows], kind="stable")]  # in the order of the classes
    augmentation = Augmentation(config.augmentation.model_copy(update={"policy": policy}), config.seed)
    sections = [_seen(found, rows, augmentation, policy)]
    if policy.operations():
        sections.append(_ends(found, rows, policy, config.seed))
    save_contact_sheet(Path(output), sections)
    return Path(output)


def _seen(cells: CellDataset, rows: NDArray[np.intp], augmentation: Augmentation, policy: Policy) -> SheetSection:
    shown = []
    for place, row in enumerate(rows.tolist()):
        image = np.array(cells.images[row])
        positions = range(place * DRAWS, (place + 1) * DRAWS)
        pictures = [image, *augmentation(np.stack([image] * DRAWS), positions)]
        label = int(cells.labels[row])
        name = cells.class_names[label] if label >= 0 else "unlabelled"
        shown.append(SheetRow((_short(name, 30), _short(str(cells.ids[row]), 34)), pictures))
    mirrored = augmentation.config.flips or augmentation.config.quarter_turns
    return SheetSection(
        f"Policy {policy.name}: what the model sees",
        "Each cell as it is, then nine draws" + (", mirroring and quarter turns included." if mirrored else "."),
        shown,
    )


def _ends(cells: CellDataset, rows: NDArray[np.intp], policy: Policy, seed: int) -> SheetSection:
    """Every operation with its range, once, in the order written."""
    distinct: dict[tuple[str, tuple[float, float], str], Operation] = {}
    for node in policy.operations():
        distinct.setdefault((node.operation, node.range, node.fill if _fills(node) else ""), node)
    pair = [np.array(cells.images[row]) for row in (rows[0], rows[-1])]
    shown = []
    for number, node in enumerate(distinct.values()):
        spec, (low, high) = OPERATIONS[node.operation], node.range
        strengths = (
            [-high, -low, low, high] if node.either_sign else [low + (high - low) * part / 3 for part in range(4)]
        )
        if low == high or not spec.unit:
            strengths = sorted({-high, high}) if node.either_sign else [high]
        pictures, words = [], []
        for image in pair:
            pictures.append(image)
            words.append("as it is")
            for strength in strengths:
                rng = position_generator(seed, number, 2)  # the same draw at every strength
                pictures.append(operated(image, node, strength, rng))
                words.append(f"{strength:.3g}" if spec.unit else "")
        caption = [node.operation.replace("_", " ")]
        if spec.unit:
            caption.append(_short(spec.unit, 36))
        if _fills(node):
            caption.append(f"fill: {node.fill}")
        shown.append(SheetRow(tuple(caption), pictures, tuple(words)))
    return SheetSection("Each operation alone", "At the ends of its strength and between, on two cells.", shown)


def _fills(node: Operation) -> bool:
    return OPERATIONS[node.operation].fills


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


@dataclass(frozen=True)
class AugmentedStore:
    """A packed store with augmented copies: where it is, and how many images of each kind it holds."""

    path: Path
    originals: int
    copies: int
    bytes: int


def augment_offline(
    policy: Policy,
    data: Data,
    config: RunConfig | None = None,
    *,
    output: str | Path,
    copies: int,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    progress: Progress = SILENT,
) -> AugmentedStore:
    """Write a packed store with ``copies`` augmented versions of each training cell beside the cells themselves.

    The cells are split first, as ``train`` would by ``config``, and only the training part is multiplied: a copy of a
    validation or test cell would make a result look better than it is. The store brings that split along. A copy's
    id is ``<id>#augmented-<number>`` and its group the original's, so no later split can part them.
    ``augmentation.json`` in the store says policy, seed, copies and the fingerprint of what it was made from.

    The size is announced through ``progress`` before anything is written. Raises OutputError where something
    is at ``output`` already or the disk has no room, UsageError for a number of copies outside 1 to 100.
    """
    if not 1 <= copies <= MAX_COPIES:
        raise UsageError(f"copies must be 1 to {MAX_COPIES}, found {copies}")
    config, target = config or RunConfig(), Path(output)
    check_free(target)
    cells = cells_of(data, config, format=format, class_names=class_names, progress=progress)
    assignment = make_splits(cells, config.data, config.seed).assignment
    rows = np.flatnonzero(assignment != UNUSED)
    train = int((assignment == "train").sum())
    total = len(rows) + copies * train
    size = total * int(np.prod(cells.images.shape[1:]))
    progress.note(f"{target}: {len(rows):,} cells and {copies * train:,} copies, {size / 1e6:,.0f} MB on disk")
    room = shutil.disk_usage(_existing_parent(target)).free
    if size > 0.95 * room:
        raise OutputError(
            f"{target} would take {size / 1e6:,.0f} MB and the disk has {room / 1e6:,.0f} MB free. "
            "Make fewer copies, or augment while training, which takes none."
        )
    augmentation = Augmentation(config.augmentation.model_copy(update={"policy": policy}), config.seed)
    with (
        progress.task("augmenting", total, "images") as advance,
        atomic_folder(target) as folder,
    ):
        fingerprint = fill_store(
            folder,
            _store_rows(cells, rows, assignment, augmentation, copies, advance),
            class_names=cells.class_names,
            preparation=config.data.preparation,
            source=f"{cells.source}, augmented",
            notes={**cells.notes, "augmented copies": copies * train},
            cleaning=cells.cleaning,
        )
        write_json(
            folder / "augmentation.json",
            {
                "policy": policy.model_dump(mode="json", exclude_none=True),
                "mirroring": {"flips": config.augmentation.flips, "quarter_turns": config.augmentation.quarter_turns},
                "seed": config.seed,
                "copies": copies,
                "source_fingerprint": cells.fingerprint(),
                "fingerprint": fingerprint,
            },
        )
    return AugmentedStore(target, len(rows), copies * train, size)


def _store_rows(
    cells: CellDataset,
    rows: NDArray[np.intp],
    assignment: NDArray[np.str_],
    augmentation: Augmentation,
    copies: int,
    advance: Callable[[int], None],
) -> Iterator[StoreRow]:
    for row in rows.tolist():
        image, name, part = np.array(cells.images[row]), str(cells.ids[row]), str(assignment[row])
        size = image.shape[:2] if cells.original_size is None else cells.original_size[row].tolist()
        own = "" if cells.groups is None else str(cells.groups[row])
        group = own or name
        label = int(cells.labels[row])
        yield StoreRow(name, label, image, str(cells.content_hash[row]), int(size[0]), int(size[1]), part, group)
        made = 0
        if part == "train":
            positions = range(row * copies, (row + 1) * copies)
            for number, changed in enumerate(augmentation(np.stack([image] * copies), positions), start=1):
                content = hashlib.sha256(changed.tobytes()).hexdigest()
                copy = f"{name}#augmented-{number}"
                yield StoreRow(copy, label, changed, content, int(size[0]), int(size[1]), part, group)
            made = copies
        advance(1 + made)


def _existing_parent(path: Path) -> Path:
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent


__all__ = ["AugmentedStore", "augment_offline", "preview"]
