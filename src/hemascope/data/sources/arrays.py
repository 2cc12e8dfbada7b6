"""npz files: one array of images with labels (a contest's), or the six arrays of MedMNIST."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemascope.cells import UNLABELLED
from hemascope.data.read_image import MAX_PIXELS
from hemascope.data.sources.folder import printable, signature_of, state_of
from hemascope.data.sources.npy_member import Member, RowReader, read_members, read_small
from hemascope.data.sources.source import Source, check_class_names, encode_labels
from hemascope.errors import SourceError
from hemascope.names import listed

MEDMNIST_PARTS = (("train", "train"), ("val", "validation"), ("test", "test"))

KNOWN_NAMES = {
    "bloodmnist": ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")
}
"""Class names of public sets whose files do not hold them, by a part of the file name."""

MAX_CLASSES = 10_000


def open_npz(path: Path, given: str, *, class_names: Sequence[str] | None = None, kind: str | None = None) -> Source:
    """An npz file as a source. ``kind`` forces "npz" or "medmnist"; else the arrays' names decide.

    npz: ``images`` (N, H, W, 3), (N, H, W), (N, H, W, 1) or (N, H, W, 4); ``labels`` (N,) or (N, 1), whole
    numbers from 0 (-1: unlabelled) or text, may be absent; ``class_names`` (K,) text, may be absent.
    medmnist: ``train_images``, ``train_labels`` and the same for val and test; their split is kept.
    Ids are ``file.npz#12`` and ``file.npz#train/12``. Raises SourceError.
    """
    members = read_members(path)
    if kind is None:
        kind = "medmnist" if any(f"{part}_images" in members for part, _ in MEDMNIST_PARTS) else "npz"
    parts = [("", "")] if kind == "npz" else [(p, s) for p, s in MEDMNIST_PARTS if f"{p}_images" in members]
    if not parts or (kind == "npz" and "images" not in members):
        wanted = "images and labels" if kind == "npz" else "train_images, train_labels, val_images, ..."
        found = listed([printable(name)[:60] for name in members]) or "no array"
        raise SourceError(f"{given} must hold the arrays {wanted}; found {found}")

    names: list[str] = []
    labels: list[NDArray[Any]] = []
    split: list[str] = []
    readers: list[tuple[int, RowReader]] = []  # first index of each array
    for part, split_name in parts:
        stem = f"{part}_" if part else ""
        images = members[f"{stem}images"]
        count = _check_images(given, f"{stem}images", images)
        labels.append(_read_labels(path, given, f"{stem}labels", members.get(f"{stem}labels"), count))
        readers.append((len(names), RowReader(path, images)))
        names += [f"{part}/{row}" if part else str(row) for row in range(count)]
        split += [split_name] * count
    if not names:
        raise SourceError(f"{given} holds no image")
    indices, known = _encode(given, labels, _class_names(path, given, members, class_names))

    def fetch(index: int) -> NDArray[Any]:
        first, reader = next((first, reader) for first, reader in reversed(readers) if first <= index)
        return reader(index - first)

    status = path.stat()
    return Source(
        kind=kind,
        path=path,
        class_names=known,
        prefix=f"{given}#",
        names=names,
        labels=indices,
        fetch=fetch,
        signature=signature_of([(path.name, status.st_size, state_of(status))]),
        split=np.array(split) if kind == "medmnist" else None,
        bytes_on_disk=status.st_size,
    )


def _check_images(given: str, name: str, member: Member) -> int:
    """How many images the array holds. Raises SourceError for a shape or type that is not of images."""
    shape = member.shape
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3, 4)):
        raise SourceError(
            f"{given}: {name} must have shape (N, height, width, 3) (or 1 or 4 channels, or none), found {shape}"
        )
    if min(shape) < 0 or (shape[0] and shape[1] * shape[2] not in range(1, MAX_PIXELS + 1)):
        raise SourceError(
            f"{given}: the images of {name} must have 1 to {MAX_PIXELS:,} pixels, found {shape}; save the array again"
        )
    if member.dtype.kind not in "buif":
        raise SourceError(f"{given}: {name} must hold numbers, found {member.dtype}")
    return shape[0]


def _read_labels(path: Path, given: str, name: str, member: Member | None, count: int) -> NDArray[Any]:
    """Labels of one array: int64 (N,), or text (N,)."""
    if member is None:
        return np.full(count, UNLABELLED, dtype=np.int64)
    if member.shape not in ((count,), (count, 1)):
        raise SourceError(
            f"{given}: {name} must have shape ({count},) or ({count}, 1), one label an image, found {member.shape}"
        )
    labels = read_small(path, member).reshape(count)
    if labels.dtype.kind == "U":
        return labels
    if labels.dtype.kind == "f" and bool((labels == np.rint(labels)).all()):  # NaN is not equal to itself
        labels = np.where(np.abs(labels) < 2**53, labels, -2)
    elif labels.dtype.kind not in "iu":
        raise SourceError(f"{given}: {name} must hold whole numbers or text, found {_kind(labels)}")
    if count and (labels.min() < UNLABELLED or labels.max() >= MAX_CLASSES):
        raise SourceError(
            f"{given}: {name} must lie in 0 to {MAX_CLASSES - 1} (or {UNLABELLED}, unlabelled), "
            f"found {labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int64)


def _kind(labels: NDArray[Any]) -> str:
    return f"fractions or NaN ({labels.dtype})" if labels.dtype.kind == "f" else str(labels.dtype)


def _class_names(
    path: Path, given: str, members: dict[str, Member], class_names: Sequence[str] | None
) -> tuple[str, ...] | None:
    """Names as the user gave them, else the file's own, else a public set's."""
    if class_names is not None:
        return check_class_names(class_names)
    if (member := members.get("class_names")) is not None:
        if member.dtype.kind != "U" or len(member.shape) != 1:
            raise SourceError(f"{given}: class_names must be text of shape (K,), found {member.dtype} {member.shape}")
        return check_class_names(read_small(path, member).tolist())
    return next((names for word, names in KNOWN_NAMES.items() if word in path.name.lower()), None)


def _encode(
    given: str, labels: list[NDArray[Any]], known: tuple[str, ...] | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if any(part.dtype.kind == "U" for part in labels):
        texts = [("" if text == UNLABELLED else str(text)) for part in labels for text in part.tolist()]
        return encode_labels(texts, known, given)
    indices = np.concatenate(labels)
    highest = int(indices.max())
    if known is None:
        known = tuple(map(str, range(highest + 1)))
    if highest >= len(known):
        raise SourceError(
            f"{given}: labels go up to {highest}, but there are {len(known)} class names "
            f"({listed(known)}), for labels 0 to {len(known) - 1}"
        )
    return indices, known
