"""What every kind of input looks like once it is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemascope.cells import SPLIT_NAMES, UNLABELLED, UNUSED
from hemascope.data.read_image import DecodedImage, array_to_rgb, decode_image
from hemascope.errors import ImageError, SourceError
from hemascope.names import listed

Raw = Path | NDArray[Any]
"""An item before decoding: a file, or the row of an array."""

SPLIT_ALIASES = {
    **{name: name for name in (*SPLIT_NAMES, UNUSED)},
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "testing": "test",
}
"""Names of parts as people write them, in lower case."""


@dataclass(frozen=True)
class Source:
    """N images somewhere, with what is known about them before any is decoded.

    kind         folder, npz, medmnist, manifest or store
    path         as given
    class_names  K names in index order
    prefix       what each name is put behind to give its id
    names        N names inside the source, unique
    labels       int64 (N,), -1 unlabelled
    fetch        item i as a file or an array row. Cheap; in rising order from one thread, as arrays inside
                 compressed files are read forwards; any other order is correct but slow
    signature    hex digest of names, sizes, times and file numbers: equal means the very same, unchanged files
    split        N parts where the source has its own split, else None
    groups       N groups, "" for none, or None
    notes        counts of what was left out or changed while opening
    bytes_on_disk  size of the files read
    content_hashes the hashes of the original pixels, for a packed store, which no longer has those pixels
    """

    kind: str
    path: Path
    class_names: tuple[str, ...]
    prefix: str
    names: Sequence[str]
    labels: NDArray[np.int64]
    fetch: Callable[[int], Raw]
    signature: str
    split: NDArray[np.str_] | None = None
    groups: NDArray[np.str_] | None = None
    notes: Mapping[str, int] = field(default_factory=dict)
    bytes_on_disk: int = 0
    content_hashes: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def ids(self) -> list[str]:
        """N ids: the path as given joined with the name, or ``file.npz#12`` for the row of an array."""
        return [self.prefix + name for name in self.names]

    def read(self, index: int) -> DecodedImage:
        """Item ``index`` decoded. Raises ImageError."""
        return decode(self.fetch(index))


def decode(raw: Raw | ImageError) -> DecodedImage:
    """A fetched item as RGB. Raises ImageError; an item that could not be fetched is its own error."""
    if isinstance(raw, ImageError):
        raise raw
    return decode_image(raw) if isinstance(raw, Path) else array_to_rgb(raw)


def fetch_or_error(source: Source, index: int) -> Raw | ImageError:
    """Item ``index``, or why it could not be fetched: an error that must not stop the others."""
    try:
        return source.fetch(index)
    except ImageError as error:
        return error


def encode_labels(
    names: Sequence[str], class_names: Sequence[str] | None, where: str
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Names to indices: int64 (N,) and the K class names. "" is unlabelled.

    Without ``class_names``, the names found, sorted (as numbers where all are). Raises SourceError for a
    name that is not among ``class_names``.
    """
    counts = Counter(names)
    counts.pop("", None)
    if class_names is None:
        numeric = all(name.isascii() and name.isdigit() for name in counts)
        known = tuple(sorted(counts, key=int) if numeric else sorted(counts))
    else:
        known = check_class_names(class_names)
    index = {name: i for i, name in enumerate(known)}
    for name in sorted(counts):
        if name not in index:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SourceError(
                f"{where} holds the class {name!r} ({counts[name]} images), which is not among the class names "
                f"{listed(known)}{hint}"
            )
    index[""] = UNLABELLED
    return np.array([index[name] for name in names], dtype=np.int64), known


def check_class_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """The names, once it is certain that each is there once and none is empty. Raises SourceError."""
    names = tuple(str(name) for name in class_names)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not all(name.strip() for name in names):
        raise SourceError(f"class names must be different and not empty, found {', '.join(map(repr, names))}")
    return names


def check_unique(names: Sequence[str], where: str) -> None:
    """Raise SourceError where a name comes twice."""
    if len(set(names)) == len(names):
        return
    name, count = Counter(names).most_common(1)[0]
    raise SourceError(f"{where} names {name!r} {count} times; each image may be listed once")
