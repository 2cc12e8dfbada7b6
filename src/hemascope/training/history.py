"""``history.jsonl``: what happened in training, one JSON object a line, in order.

Each line is flushed when written. On resume the lines written after the checkpoint are cut off again, because the
resumed run writes them anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hemascope.atomic import output_error, write_text


class History:
    """Appends records to a file; does nothing where ``path`` is None (processes other than the first)."""

    def __init__(self, path: Path | None, *, keep: int = 0) -> None:
        """Open ``path``, keeping its first ``keep`` lines."""
        self.path = path
        self.lines = keep
        self.records: list[dict[str, Any]] = []
        if path is not None:
            old = path.read_text(encoding="utf-8").splitlines()[:keep] if path.exists() and keep else []
            self.records = [json.loads(line) for line in old]
            self.lines = len(old)
            write_text(path, "".join(f"{line}\n" for line in old))

    def append(self, kind: str, **values: Any) -> None:
        """Add one record; floats are kept to six significant digits."""
        record = {"kind": kind, **{name: _rounded(value) for name, value in values.items()}}
        self.records.append(record)
        self.lines += 1
        if self.path is not None:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record, allow_nan=False) + "\n")
                    file.flush()
            except OSError as error:
                raise output_error(self.path, error) from error

    def sync(self) -> None:
        """Make what was written survive a power cut, as the checkpoint that refers to it does."""
        if self.path is not None and self.path.exists():
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
