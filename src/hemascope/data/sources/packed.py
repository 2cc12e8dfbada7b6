"""A packed store as a source: its images are already prepared and are handed on as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hemascope.data.sources.folder import signature_of, state_of
from hemascope.data.sources.source import Source, check_class_names
from hemascope.data.store import open_store
from hemascope.errors import SourceError
from hemascope.names import listed


def open_packed(path: Path, given: str, *, class_names: Sequence[str] | None = None) -> Source:
    """The store at ``path``. Ids are those the images had when they were packed. Raises StoreError, SourceError."""
    cells = open_store(path)
    if class_names is not None and check_class_names(class_names) != cells.class_names:
        raise SourceError(f"{given} holds the classes {listed(cells.class_names)}, not {listed(class_names)}")
    if not len(cells):
        raise SourceError(f"{given} holds no image")
    status = (path / "store.json").stat()
    return Source(
        kind="store",
        path=path,
        class_names=cells.class_names,
        prefix="",
        names=cells.ids,
        labels=cells.labels,
        fetch=lambda index: np.asarray(cells.images[index]),
        signature=signature_of([("store.json", status.st_size, state_of(status))]),
        split=cells.split,
        groups=cells.groups,
        notes=cells.notes,
        bytes_on_disk=sum(file.stat().st_size for file in path.iterdir() if file.is_file()),
        content_hashes=cells.content_hash,
    )
