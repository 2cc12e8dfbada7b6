"""A folder of images: one folder a class, with or without a folder a part; or files whose names say the class."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hemascope.data.read_image import SUFFIXES
from hemascope.data.sources.source import SPLIT_ALIASES, Source, encode_labels
from hemascope.errors import SourceError, UsageError

MAX_DEPTH = 32
"""Folders inside folders that are still entered."""


@dataclass(frozen=True)
class _Found:
    parts: tuple[str, ...]  # names of the folders and the file, below the root
    file: str  # the path to open
    size: int
    state: str


def open_folder(
    path: Path, given: str, *, class_names: Sequence[str] | None = None, label_pattern: str | None = None
) -> Source:
    """The images below ``path``; ``given`` is the path as the user wrote it and begins every id.

    The first-level folder is the class, at any depth below it. Where every first-level folder with images
    is called train, validation (val), calibration or test, these are parts and the second level is the
    class. ``label_pattern``, searched in the file name, says the class by its group ``label`` instead; a
    name that does not match is unlabelled. Images beside the class folders are unlabelled too.

    Hidden files are skipped, symbolic links to folders and links that leave the folder are not followed
    (counted in the notes), class folders without an image are dropped (noted). Raises SourceError.
    """
    pattern = _compile(label_pattern)
    notes: Counter[str] = Counter()
    folders: list[tuple[str, ...]] = []
    try:
        found = sorted(_walk(path, notes, folders), key=lambda item: item.parts)
    except OSError as error:
        raise SourceError(f"cannot read the folder {given}: {error.strerror}") from None
    if not found:
        raise SourceError(f"{given} holds no image ({', '.join(sorted(SUFFIXES))}), at any depth")

    tops = {item.parts[0] for item in found if len(item.parts) > 1}
    loose = any(len(item.parts) == 1 for item in found)
    has_split = bool(tops) and not loose and all(top.lower() in SPLIT_ALIASES for top in tops)
    if has_split and pattern is None:
        has_split = any(len(item.parts) > 2 for item in found)
    level = 1 if has_split else 0
    labels = [_label(item.parts, level, pattern) for item in found]
    indices, known = encode_labels(labels, class_names, str(given))

    if pattern is None:
        with_images = {item.parts[level] for item in found if len(item.parts) > level + 1}
        empty = {f[level] for f in folders if len(f) == level + 1} - with_images
        for name in sorted(empty):
            notes[f"class folder {printable(name)!r} without an image dropped"] += 1
        stray = labels.count("")
        if stray and known:
            notes["images outside any class folder, unlabelled"] += stray
    elif "" in labels:
        notes["file names that do not match the label pattern, unlabelled"] += labels.count("")

    names = ["/".join(map(printable, item.parts)) for item in found]
    files = [item.file for item in found]
    return Source(
        kind="folder",
        path=path,
        class_names=known,
        prefix=given.rstrip("/") + "/",
        names=names,
        labels=indices,
        fetch=lambda index: Path(files[index]),
        signature=signature_of((n, item.size, item.state) for n, item in zip(names, found, strict=True)),
        split=np.array([SPLIT_ALIASES[item.parts[0].lower()] for item in found]) if has_split else None,
        notes=dict(notes),
        bytes_on_disk=sum(item.size for item in found),
    )


def open_single(path: Path, given: str) -> Source:
    """One image file as an unlabelled source of one."""
    status = path.stat()
    return Source(
        kind="folder",
        path=path,
        class_names=(),
        prefix="",
        names=[printable(given)],
        labels=np.array([-1], dtype=np.int64),
        fetch=lambda index: path,
        signature=signature_of([(given, status.st_size, state_of(status))]),
        bytes_on_disk=status.st_size,
    )


def printable(name: str) -> str:
    """A name that can be written as UTF-8: bytes of another encoding are shown as ``\\xNN``."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name


def state_of(status: os.stat_result) -> str:
    """What tells a file from any other and from itself after a change, without reading it.

    The time of modification can be set at will, and copies keep it; the time of the last change of any kind and the
    file's own number cannot. So two folders that look alike are told apart, and a repaired permission is noticed.
    """
    return f"{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_dev}-{status.st_ino}"


def signature_of(entries: Iterator[tuple[str, int, str]] | Sequence[tuple[str, int, str]]) -> str:
    """A digest of names, sizes and ``state_of`` each file. Contents are not read."""
    digest = hashlib.sha256()
    digest.update("\x1e".join(f"{n}\x1f{size}\x1f{state}" for n, size, state in entries).encode("utf-8", "replace"))
    return digest.hexdigest()


def _compile(label_pattern: str | None) -> re.Pattern[str] | None:
    if label_pattern is None:
        return None
    try:
        pattern = re.compile(label_pattern)
    except re.error as error:
        raise UsageError(f"the label pattern {label_pattern!r} is not a regular expression: {error}") from None
    if "label" not in pattern.groupindex:
        raise UsageError(f"the label pattern {label_pattern!r} needs a group named label, such as (?P<label>[A-Z]+)_")
    return pattern


def _label(parts: tuple[str, ...], level: int, pattern: re.Pattern[str] | None) -> str:
    if pattern is not None:
        match = pattern.search(parts[-1])
        return printable((match.group("label") if match else "") or "")
    return printable(parts[level]) if len(parts) > level + 1 else ""


def _walk(root: Path, notes: Counter[str], folders: list[tuple[str, ...]]) -> Iterator[_Found]:
    """Every image below ``root``; the folders seen are added to ``folders``."""
    inside = os.path.realpath(root) + os.sep
    pending: list[tuple[str, tuple[str, ...]]] = [(str(root), ())]
    while pending:
        folder, parts = pending.pop()
        try:
            entries = os.scandir(folder)
        except PermissionError:
            if not parts:
                raise
            notes["folders without permission to read left out"] += 1
            continue
        with entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                below = (*parts, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    if len(below) > MAX_DEPTH:
                        notes[f"folders deeper than {MAX_DEPTH} left out"] += 1
                        continue
                    folders.append(below)
                    pending.append((entry.path, below))
                elif Path(entry.name).suffix.lower() not in SUFFIXES:
                    reason = "links to folders not followed" if entry.is_dir() else "files that are not images left out"
                    notes[reason] += 1
                elif entry.is_symlink() and not os.path.realpath(entry.path).startswith(inside):
                    notes["links that leave the folder not followed"] += 1
                else:
                    yield _found(entry, below)


def _found(entry: os.DirEntry[str], parts: tuple[str, ...]) -> _Found:
    try:
        status = entry.stat()
    except OSError:  # a link to nothing: reading it will say so
        return _Found(parts, entry.path, -1, "")
    return _Found(parts, entry.path, status.st_size, state_of(status))
