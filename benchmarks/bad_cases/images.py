"""Single images that are damaged, hostile or not images; each is given beside a good one, which must still be named."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from bad_cases.case import SEED, Case, Ground, copy_cell, ordinary_user

PREDICT = "predict run {name} good.jpg -o out.csv"
SEE_COLUMN = "1 of 2 images could not be read; the column error says why"


def png(width: int, height: int, data: bytes = b"", *, bits: int = 8, colour: int = 2, spoil: bool = False) -> bytes:
    """A PNG file by hand, so that its header may lie and its checksums may be wrong."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body) ^ (0xFFFF if spoil and kind == b"IHDR" else 0)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def rows(width_bytes: int, height: int) -> bytes:
    """The packed rows of a black image."""
    packer = zlib.compressobj(9)
    row = bytes(width_bytes + 1)
    return b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])


def noise(mode: str = "RGB") -> Image.Image:
    """A picture of noise, 32 x 32."""
    levels = np.random.default_rng(SEED).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(levels).convert(mode)


def beside_good(name: str, spoilt: Callable[[bytes], bytes]) -> Callable[[Path, Ground], None]:
    """``name`` made from a good cell's bytes, beside the cell."""

    def make(here: Path, ground: Ground) -> None:
        (here / name).write_bytes(spoilt(copy_cell(here, ground)))

    return make


def bad_row(kind: str, name: str, reason: str, spoilt: Callable[[bytes], bytes]) -> Case:
    """A file that becomes a row with its error."""
    return bad_row_made(kind, name, reason, beside_good(name, spoilt))


def bad_row_made(kind: str, name: str, reason: str, make: Callable[[Path, Ground], None]) -> Case:
    return Case(
        kind, PREDICT.format(name=name), (SEE_COLUMN, reason), make, status=0, where="table", leaves=("out.csv",)
    )


def _changed_pixels(good: bytes) -> bytes:
    content = io.BytesIO()
    noise().save(content, "PNG")
    spoilt = bytearray(content.getvalue())
    spoilt[1000:1010] = bytes(10)
    return bytes(spoilt)


def _folder(here: Path, ground: Ground) -> None:
    copy_cell(here, ground)
    (here / "x.jpg").mkdir()


def _folder_in_pile(here: Path, ground: Ground) -> None:
    for name in ("a/one.jpg", "a/folder.jpg/two.jpg"):
        copy_cell(here, ground, f"pile/{name}")


def _no_permission(here: Path, ground: Ground) -> None:
    copy_cell(here, ground)
    copy_cell(here, ground, "secret.jpg")
    (here / "secret.jpg").chmod(0)


def _dangling(here: Path, ground: Ground) -> None:
    copy_cell(here, ground, "pile/good.jpg")
    (here / "pile/gone.jpg").symlink_to("nowhere.jpg")


def _loop(here: Path, ground: Ground) -> None:
    copy_cell(here, ground)
    (here / "loop.jpg").symlink_to("loop.jpg")


def _pipe(here: Path, ground: Ground) -> None:
    copy_cell(here, ground, "pile/good.jpg")
    os.mkfifo(here / "pile/pipe.jpg")


def _frames(here: Path, ground: Ground) -> None:
    (here / "pile/a").mkdir(parents=True)
    noise().save(here / "pile/a/frames.tif", save_all=True, append_images=[noise("L").convert("RGB")])


def _cmyk(here: Path, ground: Ground) -> None:
    (here / "pile/a").mkdir(parents=True)
    noise("CMYK").save(here / "pile/a/print.jpg")


def _gif(here: Path, ground: Ground) -> None:
    copy_cell(here, ground)
    noise("P").save(here / "moving.png", format="GIF")


def _nothing_readable(here: Path, ground: Ground) -> None:
    for name in ("one.jpg", "two.jpg"):
        (here / name).write_bytes(b"")


IMAGES = (
    bad_row("JPEG cut off half-way", "cut.jpg", "truncated", lambda good: good[: len(good) // 2]),
    bad_row("JPEG of the first 20 bytes", "stub.jpg", "not a JPEG, PNG, TIFF, BMP or WEBP", lambda good: good[:20]),
    bad_row("file of zero bytes", "empty.jpg", "empty (0 bytes)", lambda good: b""),
    bad_row("text named .jpg", "notes.jpg", "not a JPEG, PNG, TIFF, BMP or WEBP", lambda good: b"slide 12, stain ok\n"),
    bad_row(
        "decompression bomb: 32 KB of PNG, 256 million pixels",
        "bomb.png",
        "too many pixels",
        lambda good: png(16_000, 16_000, rows(2_000, 16_000), bits=1, colour=0),
    ),
    bad_row(
        "PNG header that claims 2,147,483,647 pixels a side",
        "huge.png",
        "too many pixels",
        lambda good: png(2**31 - 1, 2**31 - 1),
    ),
    bad_row(
        "PNG just above the pixel limit",
        "large.png",
        "more than the limit of 64,000,000",
        lambda good: png(8_001, 8_000, bits=1, colour=0),
    ),
    bad_row("image of 1 x 1 pixel", "dot.png", "too few", lambda good: png(1, 1, rows(3, 1))),
    bad_row(
        "PNG with a wrong checksum",
        "checksum.png",
        "damaged",
        lambda good: png(32, 32, rows(96, 32), spoil=True),
    ),
    bad_row("PNG with changed bytes in its pixels", "changed.png", "damaged", _changed_pixels),
    bad_row("PNG without its pixels", "hollow.png", "truncated", lambda good: png(32, 32)),
    bad_row("HTML page named .webp", "page.webp", "not a JPEG", lambda good: b"<html><script>alert(1)</script></html>"),
    bad_row_made("GIF named .png", "moving.png", "not a JPEG, PNG, TIFF, BMP or WEBP", _gif),
    replace(
        bad_row_made("file without permission to read", "secret.jpg", "no permission", _no_permission),
        around=ordinary_user,
    ),
    Case(
        "link to a file that is gone",
        "predict run pile -o out.csv",
        ("1 of 2 images could not be read; the column error says why", "does not exist"),
        _dangling,
        status=0,
        where="table",
        leaves=("out.csv",),
    ),
    Case("link to itself", PREDICT.format(name="loop.jpg"), ("loop.jpg is a link that leads", "give the file"), _loop),
    Case(
        "named pipe among the images",
        "predict run pile -o out.csv",
        ("1 of 2 images could not be read; the column error says why", "not a regular file"),
        _pipe,
        status=0,
        where="table",
        leaves=("out.csv",),
    ),
    Case("empty folder named x.jpg", PREDICT.format(name="x.jpg"), ("x.jpg holds no image", ".jpeg"), _folder),
    Case(
        "folder with an image's ending inside a class",
        "inspect pile",
        ("2 images",),
        _folder_in_pile,
        status=0,
        where="stdout",
    ),
    Case("no file of that name", PREDICT.format(name="gone.jpg"), ("gone.jpg does not exist", "check the path")),
    Case(
        "nothing readable at all",
        "predict run one.jpg two.jpg -o out.csv",
        ("2 of 2 images could not be read; the column error says why", "empty (0 bytes)"),
        _nothing_readable,
        where="table",
        leaves=("out.csv",),
    ),
    Case("TIFF of several frames", "inspect pile", ("first of several frames taken",), _frames, 0, "stdout"),
    Case("CMYK JPEG", "inspect pile", ("CMYK made RGB",), _cmyk, 0, "stdout"),
)
