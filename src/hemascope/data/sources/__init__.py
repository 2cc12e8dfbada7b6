"""Inputs of every known kind, recognised by themselves. Start at ``open_source``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from hemascope.data.read_image import SUFFIXES
from hemascope.data.sources.arrays import open_npz
from hemascope.data.sources.folder import open_folder, open_single
from hemascope.data.sources.manifest import open_manifest
from hemascope.data.sources.packed import open_packed
from hemascope.data.sources.source import Source
from hemascope.errors import SourceError, UsageError

FORMATS = ("folder", "npz", "medmnist", "manifest", "store")
"""What ``format`` accepts."""

__all__ = ["FORMATS", "Source", "kind_of", "open_single", "open_source"]


def open_source(
    path: str | Path,
    *,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    label_pattern: str | None = None,
) -> Source:
    """Look at what is at ``path`` and make a Source of it; no image is decoded.

    Recognised: a packed store, a folder of images, an npz file (a contest's or MedMNIST's), a manifest
    (.csv, .tsv, .parquet), a single image. ``format`` forces one of FORMATS. ``class_names`` gives the names
    in label order (npz) or the names allowed (folder, manifest); ``label_pattern`` labels a folder by its
    file names. Raises SourceError for what is missing, unknown or malformed, UsageError for a wrong option.
    """
    given = os.fspath(path)
    path = Path(path)
    if isinstance(class_names, str):
        raise UsageError(f"class_names must be a list of names, found the text {class_names!r}")
    if format is not None and format not in FORMATS:
        raise UsageError(f"unknown format {format!r}; use one of {', '.join(FORMATS)}")
    try:
        is_folder = path.is_dir()
        if not path.exists():
            raise SourceError(f"{given} {_absent(path)}")
        kind = format or kind_of(path) or _refuse(path)
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {given[:200]!r}: {_words(error)}") from None

    if is_folder != (kind in ("folder", "store")) and kind != "image":
        wanted = "a folder" if kind in ("folder", "store") else "a file"
        raise SourceError(f"{given} must be {wanted} to be read as {kind}")
    if label_pattern is not None and kind not in ("folder", "image"):
        raise UsageError(f"label_pattern works on a folder of images, but {given} is read as {kind}")
    try:
        if kind == "folder":
            return open_folder(path, given, class_names=class_names, label_pattern=label_pattern)
        if kind == "image":
            return open_single(path, given)
        if kind == "store":
            return open_packed(path, given, class_names=class_names)
        if kind == "manifest":
            return open_manifest(path, given, class_names=class_names)
        return open_npz(path, given, class_names=class_names, kind=format)
    except PermissionError:
        raise SourceError(f"no permission to read {given}") from None
    except OSError as error:
        raise SourceError(f"cannot read {given}: {error.strerror or error}") from None


def _words(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _absent(path: Path) -> str:
    """Why there is nothing at ``path``, and the nearest name that is there."""
    if path.is_symlink():
        return "is a link that leads to nothing, so it does not exist; give the file itself"
    try:
        near = get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    except OSError:
        near = []
    return f"does not exist; did you mean '{path.parent / near[0]}'?" if near else "does not exist; check the path"


def _refuse(path: Path) -> NoReturn:
    raise SourceError(
        f"{path} is of no known format; give a folder of images, an npz file, a manifest (.csv, .tsv, .parquet), "
        f"a packed store or an image, or force one with --format ({', '.join(FORMATS)})"
    )


def kind_of(path: Path) -> str | None:
    """What ``path`` is by its name and place: one of FORMATS or ``image``; None where nothing is known of it."""
    if path.is_dir():
        return "store" if (path / "store.json").is_file() else "folder"
    suffix = path.suffix.lower()
    for kind, suffixes in (("npz", {".npz"}), ("manifest", {".csv", ".tsv", ".parquet"}), ("image", SUFFIXES)):
        if suffix in suffixes:
            return kind
    return None
