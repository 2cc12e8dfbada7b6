"""Sets of images on disk: real cells without their exact duplicates, and the same with planted images beside them."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.cells import CellDataset
from hemascope.config import PREPARATIONS
from hemascope.data.load import load

PREPARATION = PREPARATIONS["contest"]


HALVES_SEED = 123
"""Settings of the duplicate check were chosen on copies of the first half of all cells (``audit_duplicates.py``)."""


@dataclass(frozen=True)
class Base:
    """Real cells, no two of equal pixels, no two known to show one cell of one photograph.

    folder  with one folder a class
    names   paths inside it, N
    unseen  indices of those of the half that no setting was chosen on
    """

    folder: Path
    names: list[str]
    unseen: NDArray[np.intp]

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """One image as it is stored: uint8 (H, W, 3)."""
        with Image.open(self.folder / self.names[index]) as image:
            return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class Added:
    """An image to be planted: its path inside the folder, the file's content, and what is to be known of it."""

    name: str
    content: bytes
    known: dict[str, Any]


@dataclass(frozen=True)
class PlantedSet:
    """Base cells and planted images in one folder; ``planted`` maps the path of each planted one to what is known."""

    folder: Path
    planted: dict[str, dict[str, Any]]


def make_base(
    data: Path, folder: Path, count: int | None, seed: int, cache: Path, copies: Iterable[frozenset[str]]
) -> tuple[Base, CellDataset]:
    """``count`` of the cells at ``data`` (None: all), by lot, in ``folder``.

    Of equal pixels the first stays, and of ``copies`` (pairs of paths inside ``data``) one.
    """
    if folder.exists():
        shutil.rmtree(folder)
    files = sorted(path for path in data.glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    second_half = np.array_split(np.random.default_rng(HALVES_SEED).permutation(len(files)), 2)[1]
    unseen = {f"{files[index].parent.name}/{files[index].name}" for index in second_half.tolist()}
    if count is not None:
        chosen = np.random.default_rng(seed).permutation(len(files))[:count]
        files = [files[index] for index in sorted(chosen.tolist())]
    left_out = {max(pair) for pair in copies}
    for file in files:
        name = f"{file.parent.name}/{file.name}"
        if name not in left_out:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
    found = load(folder, preparation=PREPARATION, cache_dir=cache)
    first = np.unique(np.array(found.content_hash), return_index=True)[1]
    for row in set(range(len(found))) - set(first.tolist()):
        (folder / found.ids[row]).unlink()
    kept = load(folder, preparation=PREPARATION, cache_dir=cache)
    names = list(kept.ids)
    return Base(folder, names, np.array([row for row, name in enumerate(names) if name in unseen])), kept


def make_set(base: Base, folder: Path, added: Iterable[Added], *, without: Iterable[str] = ()) -> PlantedSet:
    """A folder of the base cells, less those named, and the images added. The cells are hard links."""
    if folder.exists():
        shutil.rmtree(folder)
    left_out = set(without)
    for name in base.names:
        if name not in left_out:
            link(base.folder / name, folder / name)
    planted = {}
    for image in added:
        path = folder / image.name
        if path.exists():
            raise ValueError(f"{image.name} is there already")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.content)
        planted[image.name] = image.known
    (folder.parent / f"{folder.name}.planted.json").write_text(json.dumps(planted, indent=1), encoding="utf-8")
    return PlantedSet(folder, planted)


def link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system knows no such thing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A file that holds exactly these pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def jpeg(pixels: NDArray[np.uint8], quality: int = 95) -> bytes:
    """A file as a camera's program writes it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
