"""From a path to a CellDataset: read once, in parallel, into a packed store in the cache; opened from there later.

The cache is ``$HEMASCOPE_CACHE``, else ``$XDG_CACHE_HOME/hemascope``, else ``~/.cache/hemascope``. A store in it
belongs to one state of the input (names, sizes, times and file numbers of all files) and one preparation.
Nothing is ever deleted from it; the folder may be removed at any time and costs only another reading.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import __version__ as pillow_version

from hemascope.cells import CellDataset, Unreadable
from hemascope.config import Preparation
from hemascope.data.parallel import ordered_map
from hemascope.data.prepare import prepare
from hemascope.data.read_image import DecodedImage
from hemascope.data.sources import Source, open_source
from hemascope.data.sources.source import Raw, decode, fetch_or_error
from hemascope.data.store import VERSION, StoreRow, open_store, read_store_header, write_store
from hemascope.errors import ImageError, OutputError, SourceError, StoreError
from hemascope.progress import SILENT, Progress

PLAIN = Preparation()
"""The preparation where none is named: the largest centre square, bicubic to 96."""

Read = tuple[DecodedImage, NDArray[np.uint8]] | ImageError
"""A decoded image and its prepared pixels, or why there are none."""


def load(
    path: str | Path,
    *,
    format: str | None = None,
    preparation: Preparation = PLAIN,
    class_names: Sequence[str] | None = None,
    label_pattern: str | None = None,
    max_unreadable: float = 0.05,
    cache_dir: Path | None = None,
    progress: Progress = SILENT,
) -> CellDataset:
    """The cells at ``path``, prepared to one size: a folder, npz file, manifest or packed store.

    The first call decodes every image into the cache; later calls on the same, unchanged input open the
    memory map. Unreadable images are left out and listed in ``unreadable``; when they are more than the
    share ``max_unreadable``, SourceError says how many and why. A packed store is opened as it is and must
    have been made with the same ``preparation`` (StoreError). Raises OutputError where the cache cannot be
    written.
    """
    source = open_source(path, format=format, class_names=class_names, label_pattern=label_pattern)
    if source.kind == "store":
        cells = open_prepared(source.path, preparation)
    else:
        cells = _through_cache(source, preparation, cache_dir or default_cache(), progress)
    _check_unreadable(cells, str(path), max_unreadable, progress)
    return cells


def default_cache() -> Path:
    """The cache's folder, by HEMASCOPE_CACHE, XDG_CACHE_HOME or the home folder."""
    if own := os.environ.get("HEMASCOPE_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "hemascope"
    try:
        return Path.home() / ".cache" / "hemascope"
    except RuntimeError:
        raise OutputError("there is no home folder for the cache; set HEMASCOPE_CACHE to a writable folder") from None


def open_prepared(path: Path, preparation: Preparation) -> CellDataset:
    """The packed store at ``path`` if it was made with ``preparation``; else StoreError.

    Preparing prepared pixels a second time would give images that no original could give.
    """
    made = read_store_header(path).preparation
    if made.crop != preparation.crop or made.resizes != preparation.resizes:
        raise StoreError(
            f"{path} was packed with the preparation {_describe(made)}, but {_describe(preparation)} is asked for; "
            "use the store's preparation, or give the original images"
        )
    return open_store(path)


def read_one(raw: Raw | ImageError, preparation: Preparation) -> Read:
    """Decode and prepare one fetched item; its ImageError where that fails."""
    try:
        decoded = decode(raw)
        return decoded, prepare(decoded.pixels, preparation)
    except ImageError as error:
        return error


def _through_cache(source: Source, preparation: Preparation, cache: Path, progress: Progress) -> CellDataset:
    folder = cache / "stores" / _cache_key(source, preparation)
    cells = None
    if folder.exists():
        try:
            cells = open_store(folder)
        except StoreError as error:
            progress.warn(f"The cached copy is damaged and is read again: {error}")
    if cells is None:
        cells = _read_into(folder, source, preparation, progress)
    # Ids do not hold how the source's place was typed: the same cells by a relative and by an absolute path must have
    # one fingerprint, share their splits and compare cell by cell. A folder's cells are named inside it.
    prefix = source.prefix.rpartition("/")[2]
    return replace(
        cells,
        ids=[prefix + name for name in cells.ids],
        unreadable=tuple(replace(item, id=prefix + item.id) for item in cells.unreadable),
        source=str(source.path),
    )


def _read_into(folder: Path, source: Source, preparation: Preparation, progress: Progress) -> CellDataset:
    try:
        return write_store(
            folder,
            _rows(source, preparation, progress),
            class_names=source.class_names,
            preparation=preparation,
            source=str(source.path),
            notes=source.notes,
        )
    except (OutputError, StoreError) as error:
        try:
            return open_store(folder)  # another process was quicker with the same input
        except StoreError:
            if isinstance(error, StoreError):
                raise error from None
        raise OutputError(
            f"the cache {folder.parent} cannot be written ({_reason(error)}); "
            "free some space there or set HEMASCOPE_CACHE to a writable folder"
        ) from error


def _rows(source: Source, preparation: Preparation, progress: Progress) -> Iterator[StoreRow | Unreadable]:
    fetched = (fetch_or_error(source, index) for index in range(len(source)))
    results = ordered_map(lambda raw: read_one(raw, preparation), fetched)
    with progress.task("reading cells", len(source), "images") as advance:
        for index, result in enumerate(results):
            advance(1)
            name = source.names[index]
            if isinstance(result, ImageError):
                yield Unreadable(name, result.reason)
                continue
            decoded, image = result
            yield StoreRow(
                id=name,
                label=int(source.labels[index]),
                image=image,
                content_hash=decoded.content_hash,
                height=decoded.pixels.shape[0],
                width=decoded.pixels.shape[1],
                split=None if source.split is None else str(source.split[index]),
                group=None if source.groups is None else str(source.groups[index]),
                conversions=decoded.conversions,
            )


def _cache_key(source: Source, preparation: Preparation) -> str:
    """One name for: this state of the input, these labels, this preparation, these versions."""
    parts = {
        "version": VERSION,
        "pillow": pillow_version,  # its decoders and filters decide the pixels
        "kind": source.kind,
        "signature": source.signature,
        "class_names": source.class_names,
        "labels": hashlib.sha256(source.labels.tobytes()).hexdigest(),
        "preparation": preparation.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


_SHOWN = 2  # reasons in the sentence about unreadable images; all are in ``unreadable``


def _check_unreadable(cells: CellDataset, path: str, limit: float, progress: Progress) -> None:
    bad = len(cells.unreadable)
    if not bad:
        return
    total = bad + len(cells)
    examples = {item.reason: item for item in reversed(cells.unreadable)}  # of each reason, the first image
    shown = "; ".join(f"{item.id}: {item.reason}" for item in list(examples.values())[: -_SHOWN - 1 : -1])
    more = "; …" if bad > min(len(examples), _SHOWN) else ""
    said = f"{bad} of {total} images ({bad / total:.1%}) in {path} cannot be read ({shown}{more})"
    if bad > limit * total or not len(cells):
        raise SourceError(f"{said}. At most {limit:.1%} may be; mend them, or raise max_unreadable")
    progress.warn(f"{said}. They were left out.")


def _reason(error: Exception) -> str:
    cause = error.__cause__
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause or error)


def _describe(preparation: Preparation) -> str:
    steps = ", ".join(f"{step.filter} to {step.size}" for step in preparation.resizes)
    crop = "largest centre square" if preparation.crop is None else f"centre {preparation.crop} x {preparation.crop}"
    return f"{preparation.name} ({crop}, {steps})"
