"""What is in a set of images, before anything is made of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from hemascope.cells import UNLABELLED
from hemascope.data.parallel import ordered_map
from hemascope.data.read_image import image_header
from hemascope.data.sources import Source, open_source
from hemascope.data.sources.source import Raw, decode, fetch_or_error
from hemascope.errors import ImageError
from hemascope.progress import SILENT, Progress

MOST_FREQUENT = 8
EXAMPLES = 10
MAX_UNREADABLE_LISTED = 1000
IMBALANCE_WORTH_SAYING = 2.0
FEW_IMAGES = 30


class SizeCount(BaseModel):
    """How many images have one size, in pixels."""

    model_config = ConfigDict(frozen=True)

    width: int
    height: int
    count: int


class UnreadableImage(BaseModel):
    """An image that cannot be read, and why."""

    model_config = ConfigDict(frozen=True)

    id: str
    reason: str


class Inspection(BaseModel):
    """What was found at a path. Pure JSON.

    count             images listed, readable or not
    class_counts      images of each class, in index order; unlabelled ones are counted in ``unlabelled``
    imbalance         largest class over smallest, None with fewer than two classes
    sizes             the most frequent sizes; min_size and max_size are (width, height), each taken alone
    formats, modes    as Pillow names them, or "array" and the number type
    conversions       what reading changed, and in how many images
    unreadable        the first 1,000; unreadable_count counts all
    duplicate_groups  sets of pixel-exact copies; duplicate_images the images in them; duplicate_examples the ids of
                      the first ten sets; conflicting_duplicates the sets whose copies have different labels
    own_split         images of each part of the source's own split, None without one
    groups            number of groups (patients, slides), None without
    suggestions       sentences a person may act on
    """

    model_config = ConfigDict(frozen=True)

    path: str
    kind: str
    count: int
    bytes_on_disk: int
    class_counts: dict[str, int]
    unlabelled: int
    imbalance: float | None
    sizes: list[SizeCount]
    min_size: tuple[int, int] | None
    max_size: tuple[int, int] | None
    formats: dict[str, int]
    modes: dict[str, int]
    conversions: dict[str, int]
    notes: dict[str, int]
    unreadable_count: int
    unreadable: list[UnreadableImage]
    duplicate_groups: int
    duplicate_images: int
    duplicate_examples: list[list[str]]
    conflicting_duplicates: int
    own_split: dict[str, int] | None
    groups: int | None
    suggestions: list[str]


class _Seen(BaseModel):
    """What is kept of one image once its pixels are let go."""

    format: str
    mode: str
    width: int
    height: int
    conversions: tuple[str, ...]
    content_hash: str


def inspect_source(
    path: str | Path,
    *,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    label_pattern: str | None = None,
    progress: Progress = SILENT,
) -> Inspection:
    """Read every image at ``path`` once and say what is there. Nothing is written.

    Options as for ``open_source``. Unreadable images are counted, however many. Raises SourceError.
    """
    source = open_source(path, format=format, class_names=class_names, label_pattern=label_pattern)
    sizes: Counter[tuple[int, int]] = Counter()
    formats: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    conversions: Counter[str] = Counter()
    bad: list[UnreadableImage] = []
    copies: defaultdict[str, list[int]] = defaultdict(list)
    names = source.names
    fetched = (fetch_or_error(source, index) for index in range(len(source)))
    with progress.task("inspecting cells", len(source), "images") as advance:
        for index, seen in enumerate(ordered_map(_look, fetched)):
            advance(1)
            if isinstance(seen, ImageError):
                bad.append(UnreadableImage(id=source.prefix + names[index], reason=seen.reason))
                continue
            sizes[seen.width, seen.height] += 1
            formats[seen.format] += 1
            modes[seen.mode] += 1
            conversions.update(seen.conversions)
            copies[source.content_hashes[index] if source.content_hashes else seen.content_hash].append(index)
    duplicates = [indices for indices in copies.values() if len(indices) > 1]
    conflicting = [i for i in duplicates if len({int(source.labels[j]) for j in i} - {UNLABELLED}) > 1]
    labelled = source.labels[source.labels != UNLABELLED]
    counts = np.bincount(labelled, minlength=len(source.class_names)).tolist()
    class_counts = dict(zip(source.class_names, counts, strict=True))
    positive = [count for count in counts if count]
    imbalance = max(positive) / min(positive) if len(positive) > 1 else None
    return Inspection(
        path=str(path),
        kind=source.kind,
        count=len(source),
        bytes_on_disk=source.bytes_on_disk,
        class_counts=class_counts,
        unlabelled=len(source) - len(labelled),
        imbalance=imbalance,
        sizes=[SizeCount(width=w, height=h, count=n) for (w, h), n in sizes.most_common(MOST_FREQUENT)],
        min_size=(min(w for w, _ in sizes), min(h for _, h in sizes)) if sizes else None,
        max_size=(max(w for w, _ in sizes), max(h for _, h in sizes)) if sizes else None,
        formats=dict(formats.most_common()),
        modes=dict(modes.most_common()),
        conversions=dict(conversions.most_common()),
        notes=dict(source.notes),
        unreadable_count=len(bad),
        unreadable=bad[:MAX_UNREADABLE_LISTED],
        duplicate_groups=len(duplicates),
        duplicate_images=sum(map(len, duplicates)),
        duplicate_examples=[[source.prefix + names[i] for i in indices] for indices in duplicates[:EXAMPLES]],
        conflicting_duplicates=len(conflicting),
        own_split=None if source.split is None else dict(Counter(source.split.tolist())),
        groups=None if source.groups is None else len(set(source.groups.tolist()) - {""}),
        suggestions=_suggestions(source, class_counts, bad, sizes, duplicates, conflicting),
    )


def _look(raw: Raw | ImageError) -> _Seen | ImageError:
    try:
        decoded = decode(raw)
        if isinstance(raw, Path):
            kind, mode = image_header(raw)
        else:
            kind, mode = "array", str(raw.dtype) if isinstance(raw, np.ndarray) else ""
    except ImageError as error:
        return error
    height, width = decoded.pixels.shape[:2]
    return _Seen.model_construct(
        format=kind,
        mode=mode,
        width=width,
        height=height,
        conversions=decoded.conversions,
        content_hash=decoded.content_hash,
    )


def _suggestions(
    source: Source,
    class_counts: dict[str, int],
    bad: list[UnreadableImage],
    sizes: Counter[tuple[int, int]],
    duplicates: list[list[int]],
    conflicting: list[list[int]],
) -> list[str]:
    said = []
    present = {name: count for name, count in class_counts.items() if count}
    if not present:
        said.append("No image has a label: good for predicting, not for training.")
    elif len(present) == 1:
        said.append("All labelled images are of one class: training needs at least two.")
    else:
        largest, smallest = max(present, key=lambda n: present[n]), min(present, key=lambda n: present[n])
        ratio = present[largest] / present[smallest]
        if ratio >= IMBALANCE_WORTH_SAYING:
            said.append(
                f"The largest class, {largest}, is {ratio:.1f} times the smallest, {smallest}: read balanced accuracy, "
                "and consider class weights or oversampling."
            )
    if few := [name for name, count in present.items() if count < FEW_IMAGES]:
        said.append(f"Fewer than {FEW_IMAGES} images of {', '.join(few)}: intervals of their metrics will be wide.")
    if missing := [name for name in class_counts if not class_counts[name]]:
        said.append(f"No image of {', '.join(missing)}: the classes cannot be learned.")
    if bad:
        said.append(f"{len(bad):,} of {len(source):,} images cannot be read and would be left out.")
    if duplicates:
        extra = sum(map(len, duplicates)) - len(duplicates)
        said.append(f"{extra:,} images are pixel-exact copies of others; a split keeps copies together.")
    if conflicting:
        said.append(f"{len(conflicting):,} sets of copies have different labels: at least one label of each is wrong.")
    if sizes and (ratio := max(w * h for w, h in sizes) / min(w * h for w, h in sizes)) > 4:
        said.append(f"The largest image has {ratio:.0f} times the pixels of the smallest: check the magnification.")
    if source.groups is None and present:
        said.append(
            "No patients or slides are named: a split cannot keep them apart; results on other patients may be lower."
        )
    return said
