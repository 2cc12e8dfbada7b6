"""The packed store: a folder that holds prepared images ready to be memory-mapped.

images.npy     uint8 (N, S, S, 3), row by row
index.parquet  N rows: id, label, split, group, content_hash, height, width
store.json     version, class names, preparation, source, notes, what was unreadable, digests, the ledger applied

A cleaned store holds more (``audit/cleaned_store.py``), and is opened like any other.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from hemascope.atomic import atomic_folder, write_json
from hemascope.cells import CellDataset, Unreadable
from hemascope.config import Preparation
from hemascope.data.parquet_table import read_columns
from hemascope.errors import DataError, StoreError

VERSION = 1
MAX_HEADER_BYTES = 256 * 2**20
_AGAIN = "; pack the images again"
INDEX_COLUMNS = ("id", "label", "split", "group", "content_hash", "height", "width")


@dataclass(frozen=True)
class StoreRow:
    """One prepared image on its way into a store: ``image`` is uint8 (S, S, 3), height and width the original's."""

    id: str
    label: int
    image: np.ndarray[Any, np.dtype[np.uint8]]
    content_hash: str
    height: int
    width: int
    split: str | None = None
    group: str | None = None
    conversions: tuple[str, ...] = ()


class StoreHeader(BaseModel):
    """What ``store.json`` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    version: int
    count: int
    class_names: tuple[str, ...]
    preparation: Preparation
    source: str
    notes: dict[str, int]
    unreadable: list[tuple[str, str]]
    fingerprint: str
    index_sha256: str
    cleaning: str = ""


def write_store(
    path: Path,
    rows: Iterable[StoreRow | Unreadable],
    *,
    class_names: Sequence[str],
    preparation: Preparation,
    source: str = "",
    notes: Mapping[str, int] | None = None,
) -> CellDataset:
    """Write ``rows`` to a store at ``path`` as they come, so the set may be larger than memory, and open it.

    Either every row has a split or none has; the same for groups. Conversions are counted into the
    notes. The store appears whole or not at all. Raises OutputError where it cannot be written,
    StoreError for an image of another size than ``preparation`` makes.
    """
    with atomic_folder(path) as folder:
        fill_store(folder, rows, class_names=class_names, preparation=preparation, source=source, notes=notes)
    return open_store(path)


def fill_store(
    folder: Path,
    rows: Iterable[StoreRow | Unreadable],
    *,
    class_names: Sequence[str],
    preparation: Preparation,
    source: str = "",
    notes: Mapping[str, int] | None = None,
    cleaning: str = "",
) -> str:
    """What ``write_store`` does, into a folder that is there, step by step; the fingerprint of its cells.

    cleaning  fingerprint of the ledger applied, "" for none

    For stores that hold more than one: the caller sees to it that the whole appears at once or not at all.
    """
    counts = Counter(notes or {})
    unreadable: list[tuple[str, str]] = []
    columns: dict[str, list[Any]] = {name: [] for name in INDEX_COLUMNS}
    shape = (preparation.size, preparation.size, 3)
    with (folder / "images.npy").open("wb") as file:
        _write_array_header(file, 0, shape)
        begins = file.tell()
        for row in rows:
            if isinstance(row, Unreadable):
                unreadable.append((row.id, row.reason))
                continue
            if row.image.shape != shape or row.image.dtype != np.uint8:
                raise StoreError(f"{row.id}: a stored image must be uint8 {shape}, found {row.image.shape}")
            file.write(np.ascontiguousarray(row.image).data)
            counts.update(row.conversions)
            for name in INDEX_COLUMNS:
                columns[name].append(getattr(row, name))
        # The header of an array that may grow has a fixed length, so the count can be put in last.
        file.seek(0)
        _write_array_header(file, len(columns["id"]), shape)
        if file.tell() != begins:
            raise StoreError(f"{folder}: the array header changed its length while writing")
    index = _write_index(folder / "index.parquet", columns)
    cells = _as_cells(folder, columns, class_names, preparation, source, counts, unreadable)
    header = StoreHeader(
        version=VERSION,
        count=len(cells),
        class_names=tuple(class_names),
        preparation=preparation,
        source=source,
        notes=dict(counts),
        unreadable=unreadable,
        fingerprint=cells.fingerprint(),
        index_sha256=index,
        cleaning=cleaning,
    )
    # A store of no cleaning is written without the key, so that an older hemascope opens it.
    write_json(folder / "store.json", header.model_dump(mode="json", exclude=None if cleaning else {"cleaning"}))
    return header.fingerprint


def read_store_header(path: Path) -> StoreHeader:
    """``store.json`` of the store at ``path``, checked. Raises StoreError."""
    try:
        if (path / "store.json").stat().st_size > MAX_HEADER_BYTES:
            raise StoreError(f"{path}: store.json is larger than can be right")
        content = (path / "store.json").read_bytes()
    except OSError as error:
        raise StoreError(
            f"{path} is not a complete packed store: store.json: {error.strerror}; pack the images again"
        ) from None
    try:
        header = StoreHeader.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its text"
        raise StoreError(
            f"{path}: store.json is damaged or of another version ({place}: {first['msg']}); pack the images again"
        ) from None
    if header.version != VERSION:
        raise StoreError(
            f"{path} is a packed store of version {header.version}; this reads version {VERSION}; pack the images again"
        )
    return header


def open_store(path: str | Path) -> CellDataset:
    """The store at ``path`` with its images memory-mapped.

    Checked: the version, the digest of the index, and that images, index and header agree in number and
    size. Not checked: each pixel, which would take as long as reading the set. Raises StoreError.
    """
    from pyarrow import ArrowException

    path = Path(path)
    header = read_store_header(path)
    try:
        images = _map_images(path / "images.npy", header)  # first: the size of this file bounds the rows of the index
        columns = _read_index(path / "index.parquet", header)
    except OSError as error:
        raise StoreError(
            f"{path} is not a complete packed store: {error.filename or ''} {error.strerror}; pack the images again"
        ) from None
    except (ArrowException, ValueError, EOFError) as error:
        raise StoreError(f"{path} is damaged: {error}{_AGAIN}") from None
    cells = _as_cells(
        path, columns, header.class_names, header.preparation, header.source, header.notes, header.unreadable, images
    )
    return replace(cells, cleaning=header.cleaning)


def _write_array_header(file: BinaryIO, count: int, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)})


def _write_index(path: Path, columns: dict[str, list[Any]]) -> str:
    """Write the index; its SHA-256."""
    import pyarrow as pa
    from pyarrow import parquet

    types = {"label": pa.int64(), "height": pa.int32(), "width": pa.int32()}
    arrays = {name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()}
    parquet.write_table(pa.table(arrays), path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_index(path: Path, header: StoreHeader) -> dict[str, list[Any]]:
    """The index's columns, once its digest and its number of rows are what they must be."""
    from pyarrow import parquet

    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != header.index_sha256:
            raise StoreError(f"{path} was changed or damaged{_AGAIN}")
    rows = parquet.read_metadata(path).num_rows
    if rows != header.count:
        raise StoreError(f"{path}: the index has {rows:,} rows for {header.count:,} images{_AGAIN}")
    return read_columns(path, INDEX_COLUMNS, file_bytes=path.stat().st_size, max_rows=header.count)


def _map_images(path: Path, header: StoreHeader) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The images as a read-only memory map, once the header and the file's size are what they must be."""
    size = header.preparation.size
    expected = (header.count, size, size, 3)
    with path.open("rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise StoreError(f"{path} is not an array of the expected version{_AGAIN}")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        offset = file.tell()
    if shape != expected or fortran or dtype != np.uint8:
        raise StoreError(f"{path} must be uint8 {expected}, found {dtype} {shape}{_AGAIN}")
    held, needed = path.stat().st_size - offset, int(np.prod(expected, dtype=object))
    if held != needed:
        raise StoreError(
            f"{path} is truncated or damaged: {held:,} bytes of pixels, expected {needed:,}; pack the images again"
        )
    if not header.count:
        return np.zeros(expected, dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=expected)


def _as_cells(
    path: Path,
    columns: dict[str, list[Any]],
    class_names: Sequence[str],
    preparation: Preparation,
    source: str,
    notes: Mapping[str, int],
    unreadable: Sequence[tuple[str, str]],
    images: np.ndarray[Any, np.dtype[np.uint8]] | None = None,
) -> CellDataset:
    count, size = len(columns["id"]), preparation.size
    if any(None in columns[name] for name in ("id", "label", "content_hash", "height", "width")):
        raise StoreError(f"{path}: the index has empty cells")
    if images is None:  # while writing: the identity depends on the index alone
        images = np.broadcast_to(np.zeros((1, 1, 1, 1), dtype=np.uint8), (count, size, size, 3))
    try:
        return CellDataset(
            images=images,
            labels=np.array(columns["label"], dtype=np.int64),
            class_names=tuple(class_names),
            ids=columns["id"],
            content_hash=columns["content_hash"],
            split=_all_or_none(path, "split", columns["split"]),
            groups=_all_or_none(path, "group", columns["group"]),
            original_size=np.array([columns["height"], columns["width"]], dtype=np.int32).T,
            source=source,
            preparation=preparation.describe(),
            notes=dict(notes),
            unreadable=tuple(Unreadable(name, reason) for name, reason in unreadable),
        )
    except DataError as error:
        raise StoreError(f"{path}: {error}") from None


def _all_or_none(path: Path, name: str, values: list[str | None]) -> np.ndarray[Any, np.dtype[np.str_]] | None:
    missing = values.count(None)
    if missing == len(values):
        return None
    if missing:
        raise StoreError(f"{path}: {missing} of {len(values)} rows have no {name}")
    return np.array(values, dtype=np.str_)
