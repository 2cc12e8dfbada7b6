"""The data types that flow through everything: a set of cells and its split. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hemascope.errors import DataError

UNLABELLED = -1
"""The label of an image nobody has named."""

SPLIT_NAMES = ("train", "validation", "calibration", "test")
"""The parts of a split, in the order they are shown. ``unused`` marks images kept out of all of them."""

UNUSED = "unused"


@dataclass(frozen=True)
class Unreadable:
    """An image that was left out, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class CellDataset:
    """N single-cell images, prepared to one size, with what is known about them.

    images        uint8 (N, H, W, 3), RGB, in memory or memory-mapped; never written to
    labels        int64 (N,), an index into class_names, or UNLABELLED
    class_names   K names, in index order
    ids           N stable names, unique: a path inside the source, or ``file.npz#12`` for the row of an array
    content_hash  N hex digests of the decoded pixels before preparation: equal means exact duplicate
    split         N of SPLIT_NAMES or UNUSED where the source brings its own split, else None
    groups        N names of what must stay together (patient, slide), "" for none, or None
    original_size int32 (N, 2), height and width in pixels before preparation
    source        where it came from, for people
    preparation   ``Preparation.describe()`` of what was done to reach one size; "" where they were made at it
    notes         counts of conversions made while reading, such as {"greyscale made RGB": 12}
    unreadable    what was left out
    cleaning      fingerprint of the ledger applied, "" for none
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    ids: Sequence[str]
    content_hash: Sequence[str]
    split: NDArray[np.str_] | None = None
    groups: NDArray[np.str_] | None = None
    original_size: NDArray[np.int32] | None = None
    source: str = ""
    preparation: str = ""
    notes: Mapping[str, int] = field(default_factory=dict)
    unreadable: tuple[Unreadable, ...] = ()
    cleaning: str = ""

    def __post_init__(self) -> None:
        shape, n = self.images.shape, len(self.images)
        if len(shape) != 4 or shape[3] != 3:
            raise DataError(f"images must have shape (N, height, width, 3), found {shape}")
        if self.images.dtype != np.uint8:
            raise DataError(f"images must be uint8, found {self.images.dtype}")
        for name, value in (
            ("labels", self.labels),
            ("ids", self.ids),
            ("content_hash", self.content_hash),
            ("split", self.split),
            ("groups", self.groups),
            ("original_size", self.original_size),
        ):
            if value is not None and len(value) != n:
                raise DataError(f"{name} must have one entry for each of {n} images, found {len(value)}")
        if n and (self.labels.min() < UNLABELLED or self.labels.max() >= len(self.class_names)):
            raise DataError(
                f"labels must lie in 0 to {len(self.class_names) - 1} (or {UNLABELLED}, unlabelled), "
                f"found {self.labels.min()} to {self.labels.max()}"
            )
        if self.split is not None:
            unknown = set(np.unique(self.split)) - {*SPLIT_NAMES, UNUSED}
            if unknown:
                raise DataError(f"split must be one of {', '.join(SPLIT_NAMES)}, found {sorted(unknown)[0]!r}")

    def __len__(self) -> int:
        return len(self.images)

    def class_counts(self) -> NDArray[np.int64]:
        """Images of each class: int64 (K,). Unlabelled images are not counted."""
        labelled = self.labels[self.labels != UNLABELLED]
        return np.bincount(labelled, minlength=len(self.class_names)).astype(np.int64)

    def subset(self, indices: NDArray[np.intp]) -> CellDataset:
        """These images only, in this order. The chosen images of a memory map are read into memory."""
        return replace(
            self,
            images=self.images[indices],
            labels=self.labels[indices],
            ids=[self.ids[i] for i in indices],
            content_hash=[self.content_hash[i] for i in indices],
            split=None if self.split is None else self.split[indices],
            groups=None if self.groups is None else self.groups[indices],
            original_size=None if self.original_size is None else self.original_size[indices],
        )

    def fingerprint(self) -> str:
        """A SHA-256 over ids, labels and pixels' hashes, in order: the identity of this set of cells."""
        digest = hashlib.sha256()
        digest.update("\x1f".join(self.class_names).encode())
        for name, content, label in zip(self.ids, self.content_hash, self.labels.tolist(), strict=True):
            digest.update(f"{name}\x1f{content}\x1f{label}\x1e".encode())
        return digest.hexdigest()
