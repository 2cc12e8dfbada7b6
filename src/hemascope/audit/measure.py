"""One pass over the original images: what the checks that need no network look at. Kept in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import __version__ as pillow_version

from hemascope.atomic import reason_of
from hemascope.audit.file_facts import FileFacts, file_facts
from hemascope.audit.material import Measures
from hemascope.audit.measure_cache import open_measures, write_measures
from hemascope.audit.pixel_measures import COLUMNS, WIDTH, measure_pixels
from hemascope.cells import CellDataset
from hemascope.data.load import default_cache
from hemascope.data.parallel import ordered_map
from hemascope.data.read_image import decode_image, read_bytes
from hemascope.data.sources import Source, open_source
from hemascope.data.sources.source import Raw, decode, fetch_or_error
from hemascope.errors import DataError, ImageError, OutputError
from hemascope.progress import SILENT, Progress

VERSION = 1
_BLOCK = 16_384
"""Images in memory at a time on the way to the cache."""

_FACTS = ("format", "mode", "file_hash", "metadata")


class _Seen(NamedTuple):
    """What is kept of one image once its pixels are let go; size is height and width."""

    facts: FileFacts
    size: tuple[int, int]
    numbers: NDArray[np.float32]


_Block = dict[str, Any]
"""Some rows of Measures, by the names of its fields."""


def measure(
    path: str | Path | Source,
    cells: CellDataset,
    *,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    label_pattern: str | None = None,
    cache_dir: Path | None = None,
    progress: Progress = SILENT,
) -> Measures:
    """Measure the originals of ``cells``, found by id at ``path``; row i belongs to cell i.

    path      what ``cells`` were loaded from, or its opened Source; the options are those of ``data.load``
    cells     N cells; images of the source that are not among them (unreadable ones) are passed over

    A packed store no longer has its originals: its prepared pixels are measured (``measure_prepared``). A second call
    for the same, unchanged files reads the cache. Raises SourceError for the path, DataError where a cell is not in the
    source or its file has changed since it was loaded, OutputError where the cache cannot be written.
    """
    if isinstance(path, Source):
        source = path
    else:
        source = open_source(path, format=format, class_names=class_names, label_pattern=label_pattern)
    parts = (VERSION, pillow_version, source.kind, source.signature, cells.fingerprint())
    name = hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
    file = (cache_dir or default_cache()) / "measures" / f"{name}.parquet"
    order = _order(source, cells)
    found = open_measures(file, len(cells))
    if found is None:
        seen = _prepared(cells, order) if source.kind == "store" else _originals(source, cells, order)
        try:
            write_measures(file, _blocks(seen, len(cells), progress))
        except OutputError as error:
            raise OutputError(
                f"the cache {file.parent} cannot be written ({reason_of(error)}). Set HEMASCOPE_CACHE to a folder that "
                "can be"
            ) from None
        found = open_measures(file, len(cells))
        if found is None:
            raise OutputError(f"the measures in {file} were damaged as they were written; run it again")
    return _rearranged(found, order[:, 0])


def measure_prepared(cells: CellDataset, *, progress: Progress = SILENT) -> Measures:
    """Measure the prepared pixels of ``cells``, where there are no originals; format "array", no file to speak of.

    ``size`` is the original size where the cells know it, else that of the prepared pixels.
    """
    rows = np.arange(len(cells))
    blocks = list(_blocks(_prepared(cells, np.stack([rows, rows], axis=1)), len(cells), progress))
    return Measures(**{name: _joined([block[name] for block in blocks]) for name in blocks[0]})


def _order(source: Source, cells: CellDataset) -> NDArray[np.int64]:
    """int64 (N, 2): row of the cell and index in the source, in the source's order.

    Arrays inside compressed files are only quick to read forwards.
    """
    prefix = source.prefix.rpartition("/")[2]  # as data.load names cells: inside the source, however it was typed
    place = {prefix + name: index for index, name in enumerate(source.names)}
    try:
        index = np.fromiter((place[name] for name in cells.ids), dtype=np.int64, count=len(cells))
    except KeyError as error:
        raise DataError(
            f"the cell {error.args[0]!r} is not in {source.path}; give the data these cells were loaded from"
        ) from None
    rows = np.argsort(index, kind="stable")
    return np.stack([rows, index[rows]], axis=1)


def _originals(source: Source, cells: CellDataset, order: NDArray[np.int64]) -> Iterator[_Seen]:
    fetched = (fetch_or_error(source, int(index)) for index in order[:, 1])
    for row, seen in zip(order[:, 0], ordered_map(_look, fetched), strict=True):
        if isinstance(seen, ImageError):
            raise DataError(f"{cells.ids[row]} was read before and cannot be now: {seen.reason}. Load it again")
        yield seen


def _look(raw: Raw | ImageError) -> _Seen | ImageError:
    try:
        if isinstance(raw, Path):
            content = read_bytes(raw)
            pixels, facts = decode_image(content).pixels, file_facts(content)
        else:
            pixels = decode(raw).pixels
            facts = FileFacts("array", str(raw.dtype) if isinstance(raw, np.ndarray) else "", 0, "", "")
    except ImageError as error:
        return error
    return _Seen(facts, (pixels.shape[0], pixels.shape[1]), measure_pixels(pixels))


def _prepared(cells: CellDataset, order: NDArray[np.int64]) -> Iterator[_Seen]:
    facts = FileFacts("array", "uint8", 0, "", "")

    def look(row: int) -> _Seen:
        pixels = np.ascontiguousarray(cells.images[row])
        known = pixels.shape[:2] if cells.original_size is None else cells.original_size[row].tolist()
        return _Seen(facts, (known[0], known[1]), measure_pixels(pixels))

    return ordered_map(look, order[:, 0].tolist())


def _blocks(seen: Iterator[_Seen], count: int, progress: Progress) -> Iterator[_Block]:
    """The images' rows a block at a time, at least one block, so that memory is bounded on the way to disk."""
    with progress.task("measuring images", count, "images") as advance:
        while True:
            taken = []
            for item in islice(seen, _BLOCK):
                taken.append(item)
                advance(1)
            if taken or not count:
                yield _block(taken)
            if len(taken) < _BLOCK:
                return


def _block(taken: list[_Seen]) -> _Block:
    numbers = np.array([item.numbers for item in taken], dtype=np.float32).reshape(len(taken), WIDTH)
    block: _Block = {name: [getattr(item.facts, name) for item in taken] for name in _FACTS}
    block["file_bytes"] = np.array([item.facts.file_bytes for item in taken], dtype=np.int64)
    block["size"] = np.array([item.size for item in taken], dtype=np.int32).reshape(len(taken), 2)
    for name, place in COLUMNS.items():
        found = numbers[:, place]
        block[name] = found[:, 0] if found.shape[1] == 1 else found
    return block


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], list):
        return [text for part in parts for text in part]
    return np.concatenate(parts)


def _rearranged(measures: Measures, rows: NDArray[np.int64]) -> Measures:
    """Entry i of ``measures`` belongs to cell ``rows[i]``: brought to the order of the cells."""
    if np.array_equal(rows, np.arange(len(rows))):
        return measures
    back = np.empty_like(rows)
    back[rows] = np.arange(len(rows))
    moved: dict[str, Any] = {
        name: value[back] if isinstance(value, np.ndarray) else [value[i] for i in back.tolist()]
        for name, value in vars(measures).items()
    }
    return Measures(**moved)
