"""Pictures of a run folder as small ``data:`` addresses, each decoded and encoded anew.

The folder may come from anywhere, so nothing of a file reaches the page as it was: no metadata, no trailing
bytes, no file from outside the run.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

SIDE = 192
"""Longest side in pixels of an embedded picture: sharp at 96 CSS pixels on a dense screen."""

MAX_FILE_BYTES = 20_000_000
MAX_PIXELS = 16_000_000
MAX_GALLERY = 400
SAMPLES_A_CLASS = 4
"""Shown of each class, as they are and as training saw them."""

_SAMPLE = re.compile(r"(?P<augmented>augmented_)?(?P<name>.+)_(?P<number>\d{1,6})\.png", re.DOTALL)


@dataclass(frozen=True)
class SampleRow:
    """Example cells of one class as ``data:`` addresses, and how training saw them."""

    name: str
    originals: tuple[str, ...] = field(default=())
    augmented: tuple[str, ...] = field(default=())


def gallery_pictures(run: Path, names: Iterable[str]) -> dict[str, str]:
    """The named pictures of ``predictions/gallery`` by name; those missing, unsafe or unreadable are absent."""
    folder = run / "predictions" / "gallery"
    found = {}
    for name in list(dict.fromkeys(names))[:MAX_GALLERY]:
        address = picture_address(run, folder, name)
        if address is not None:
            found[name] = address
    return found


def sample_rows(run: Path, class_names: Sequence[str]) -> tuple[SampleRow, ...]:
    """The examples in ``samples/``, a row a class: known classes in their order, then others by name.

    A file is called ``<class>_<i>.png`` or ``augmented_<class>_<i>.png``; the class is its number or its name.
    """
    folder = run / "samples"
    files: dict[tuple[str, bool], list[tuple[int, str]]] = {}
    try:
        names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    except OSError:
        return ()
    for name in names:
        match = _SAMPLE.fullmatch(name)
        if match:
            title = match["name"]
            if re.fullmatch(r"[0-9]{1,4}", title) and int(title) < len(class_names):
                title = class_names[int(title)]
            key = (title, match["augmented"] is not None)
            files.setdefault(key, []).append((int(match["number"]), name))
    rows = []
    known = {name: place for place, name in enumerate(class_names)}
    for title in sorted({title for title, _ in files}, key=lambda title: (known.get(title, len(known)), title))[:64]:
        shown = []
        for augmented in (False, True):
            chosen = sorted(files.get((title, augmented), []))[:SAMPLES_A_CLASS]
            addresses = (picture_address(run, folder, name) for _, name in chosen)
            shown.append(tuple(address for address in addresses if address is not None))
        if shown[0] or shown[1]:
            rows.append(SampleRow(title, *shown))
    return tuple(rows)


def picture_address(run: Path, folder: Path, name: str, side: int = SIDE) -> str | None:
    """The picture ``folder / name`` as a ``data:`` address, its longest side at most ``side`` pixels, or None.

    None where ``name`` is no plain file name, where it or its folder leads out of the run, or where the file is
    missing, too large or no picture.
    """
    if not name or name in {".", ".."} or re.search(r"[/\\\x00:]", name):
        return None
    try:
        path = (folder / name).resolve(strict=True)
        inside = folder.resolve(strict=True)
        if path.parent != inside or not inside.is_relative_to(run.resolve(strict=True)) or not path.is_file():
            return None
        if path.stat().st_size > MAX_FILE_BYTES:
            return None
        data = path.read_bytes()
    except (OSError, RuntimeError, ValueError):  # RuntimeError: links in a circle; ValueError: an impossible name
        return None
    return _encode(data, side)


def _encode(data: bytes, side: int) -> str | None:
    """A small WebP of a PNG. Lossy at a quality where cells show no difference, a tenth of the bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=["PNG"]) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    return None
                picture = opened.convert("RGB")
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=88, method=4)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises for bad files
        return None
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
