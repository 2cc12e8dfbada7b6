"""Measures on disk: one Parquet file, written a block at a time, opened again only when it is whole."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from hemascope.atomic import atomic_path
from hemascope.audit.material import Measures

_TEXT = ("format", "mode", "file_hash", "metadata")
_SINGLE = ("brightness", "darkest", "brightest", "contrast", "sharpness", "entropy", "foreground")
_WIDE = {"size": 2, "colour": 3, "border": 6, "stain": 2}
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in _TEXT]
    + [("file_bytes", pa.int64())]
    + [(name, pa.float32()) for name in _SINGLE]
    + [
        (f"{name}_{column}", pa.int32() if name == "size" else pa.float32())
        for name, width in _WIDE.items()
        for column in range(width)
    ]
)
_MOST_BYTES_A_ROW = 2048
"""More than a row can need unpacked; a file that claims more was not written here."""


def write_measures(file: Path, blocks: Iterable[dict[str, Any]]) -> None:
    """Write the blocks, dictionaries of the columns of Measures, one row group each. Raises OutputError."""
    with atomic_path(file) as temporary, parquet.ParquetWriter(temporary, _SCHEMA, compression="zstd") as writer:
        for block in blocks:
            columns = {name: block[name] for name in (*_TEXT, "file_bytes", *_SINGLE)}
            for name, width in _WIDE.items():
                columns |= {f"{name}_{column}": block[name][:, column] for column in range(width)}
            writer.write_table(pa.table(columns, schema=_SCHEMA))


def open_measures(file: Path, count: int) -> Measures | None:
    """The measures of ``count`` images in ``file``; None where there are none or they are not whole."""
    try:
        with parquet.ParquetFile(file, read_dictionary=["format", "mode", "metadata"]) as opened:
            metadata = opened.metadata
            size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
            names_match = opened.schema_arrow.names == _SCHEMA.names
            if metadata.num_rows != count or not names_match or size > _MOST_BYTES_A_ROW * (count + 1000):
                return None
            table = opened.read()
    except (OSError, ValueError, pa.ArrowException):
        return None
    if table.num_rows != count or any(column.null_count for column in table.columns):
        return None

    def numbers(name: str) -> np.ndarray[Any, Any]:
        return np.asarray(table.column(name).to_numpy(), dtype=_SCHEMA.field(name).type.to_pandas_dtype())

    columns: dict[str, Any] = {name: _texts(table.column(name)) for name in _TEXT}
    columns |= {name: numbers(name) for name in ("file_bytes", *_SINGLE)}
    columns |= {
        name: np.stack([numbers(f"{name}_{column}") for column in range(width)], axis=1)
        for name, width in _WIDE.items()
    }
    return Measures(**columns)


def _texts(column: Any) -> list[str]:
    """Equal texts share one string: ten million images have a handful of modes."""
    values: list[str] = []
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            words = chunk.dictionary.to_pylist()
            values += [words[code] for code in chunk.indices.to_pylist()]
        else:
            values += chunk.to_pylist()
    return values
