"""Parquet tables from outside, read within limits: a few kilobytes can announce, and unpack to, any size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_TEXT_BYTES = 2 * 2**30
"""Most bytes of a table once unpacked, and of its text once every cell has its own copy."""
MAX_ROWS_A_BYTE = 16
"""More rows a byte of the file than names that all differ can be packed to: zstd reaches 2 on numbered names."""
FEW_ROWS = 100_000
"""So many rows are harmless however small the file."""


def read_columns(file: Path, columns: Sequence[str], *, file_bytes: int, max_rows: int) -> dict[str, list[Any]]:
    """The named columns of the table in ``file``, each as a list with None where a cell is empty.

    ``file`` has ``file_bytes`` bytes. Rows and unpacked size are checked by what the file
    announces before a row is read. That announcement may lie, so rows are also held against ``file_bytes``, text
    stays packed until its true length is known, and equal cells share one string. Raises ValueError for a table
    past a limit or of nested or binary columns, and pyarrow's ArrowException or OSError for a damaged one.
    """
    from pyarrow import parquet

    with parquet.ParquetFile(file) as opened:
        metadata, schema = opened.metadata, opened.schema_arrow
    if metadata.num_rows > max_rows:
        raise ValueError(f"it claims {metadata.num_rows:,} rows, more than {max_rows:,}")
    if metadata.num_rows > max(FEW_ROWS, MAX_ROWS_A_BYTE * file_bytes):
        raise ValueError(f"it claims {metadata.num_rows:,} rows in {file_bytes:,} bytes, too few to name each")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    _check_bytes(sum(group.total_byte_size for group in groups))
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        raise ValueError("its row groups do not add up to its rows")
    for name in columns:
        if schema.names.count(name) != 1:
            raise ValueError(f"it must have one column {name}, found {schema.names.count(name)}")
        _check_type(name, schema.field(name).type)
    with parquet.ParquetFile(file, read_dictionary=list(columns)) as opened:
        table = opened.read(columns=list(columns))
    _check_bytes(sum(_text_bytes(table.column(name)) for name in columns))
    return {name: _as_list(table.column(name)) for name in columns}


def _check_bytes(found: int) -> None:
    if found > MAX_TEXT_BYTES:
        raise ValueError(f"it unpacks to {found:,} bytes, more than {MAX_TEXT_BYTES:,}")


def _check_type(name: str, kind: Any) -> None:
    """Text and plain values only: nested values and raw bytes are no cells of a table of images."""
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    plain = pa.types.is_primitive(inner) or pa.types.is_null(inner) or pa.types.is_decimal(inner)
    if not (plain or pa.types.is_string(inner) or pa.types.is_large_string(inner)):
        raise ValueError(f"its column {name} must hold text or numbers, found {kind}")


def _text_bytes(column: Any) -> int:
    """Bytes of the column's text if every cell had its own copy, found without making one."""
    import pyarrow as pa
    from pyarrow import compute

    total = 0
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            words = chunk.dictionary
            if pa.types.is_string(words.type) or pa.types.is_large_string(words.type):
                lengths = compute.binary_length(words).cast(pa.int64())
                total += compute.sum(lengths.take(chunk.indices)).as_py() or 0
        elif pa.types.is_string(chunk.type) or pa.types.is_large_string(chunk.type):
            total += compute.sum(compute.binary_length(chunk).cast(pa.int64())).as_py() or 0
    return total


def _as_list(column: Any) -> list[Any]:
    import pyarrow as pa

    values: list[Any] = []
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            words = chunk.dictionary.to_pylist()
            values += [None if code is None else words[code] for code in chunk.indices.to_pylist()]
        else:
            values += chunk.to_pylist()
    return values
