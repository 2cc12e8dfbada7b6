"""What an image's file says besides its pixels: how it was stored and by what."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from hemascope.data.read_image import DECODER_ERRORS, FORMATS
from hemascope.errors import ImageError

EXIF_SOFTWARE = 0x0131
_LONGEST = 60  # characters kept of what a file says in words


@dataclass(frozen=True)
class FileFacts:
    """Of one file; the fields are those of ``Measures``, which says what each is."""

    format: str
    mode: str
    file_bytes: int
    file_hash: str
    metadata: str


def file_facts(content: bytes) -> FileFacts:
    """Read the header of an image file's ``content``; the pixels are not decoded. Raises ImageError."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            kind, mode, metadata = image.format or "", image.mode, _metadata(image)
    except DECODER_ERRORS as error:
        raise ImageError(f"no readable image header ({type(error).__name__})") from None
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    return FileFacts(kind, mode, len(content), digest, metadata)


def _metadata(image: Image.Image) -> str:
    """One line such as "quantisation 5f2a91c3; density 72 x 72; software ACDSee"; "" where the file says nothing."""
    said = []
    if tables := getattr(image, "quantization", None):
        levels = repr(sorted((key, tuple(table)) for key, table in tables.items()))
        said.append(f"quantisation {hashlib.blake2b(levels.encode(), digest_size=4).hexdigest()}")
    if isinstance(density := image.info.get("dpi"), tuple):
        said.append(f"density {' x '.join(_number(side) for side in density[:2])}")
    if software := _words(_software(image)):
        said.append(f"software {software}")
    if image.info.get("progressive"):
        said.append("progressive")
    if image.info.get("icc_profile"):
        said.append("colour profile")
    return "; ".join(said)


def _software(image: Image.Image) -> Any:
    """What the file names as its maker. Damaged EXIF data says nothing here; reading the image reports it."""
    if "Software" in image.info:
        return image.info["Software"]
    if image.format == "PNG" and "exif" not in image.info:
        return ""  # Pillow would decode the whole image to look for it
    try:
        return image.getexif().get(EXIF_SOFTWARE, "")
    except DECODER_ERRORS:
        return ""


def _number(value: Any) -> str:
    try:
        return f"{float(value):.4g}"
    except DECODER_ERRORS:
        return "?"


def _words(value: Any) -> str:
    """Text from a file, made fit for a table: one line, printable, short."""
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:_LONGEST]
