"""One image, from bytes or an array row to RGB pixels. Every conversion on the way is said, never silent.

Colour profiles (ICC) are not applied: microscopes' cameras write device colours, and two readers that
disagree about a profile would give one file two sets of pixels.
"""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from hemascope.errors import ImageError

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
"""The only decoders that outside bytes ever reach."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
"""Endings, in lower case, by which image files are found in folders."""

MIN_SIDE = 4
"""Smallest side in pixels: less is a placeholder, not a cell."""

MAX_PIXELS = 64_000_000
MAX_BYTES = 256 * 2**20

EXIF_ORIENTATION = 0x0112

# What Pillow's decoders raise on damaged or hostile bytes. Listed rather than caught as Exception, so that
# a mistake of this package still shows.
DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

# The size is checked below, against a lower limit; damaged tags are said as conversions or errors.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@dataclass(frozen=True)
class DecodedImage:
    """RGB pixels and what was done to get them.

    pixels        uint8 (H, W, 3), read-only
    conversions   what was changed on the way, in order, such as ("greyscale made RGB",)
    content_hash  32 hex digits of BLAKE2b over shape and RGB pixels: equal means pixel-exact duplicate
    """

    pixels: NDArray[np.uint8]
    conversions: tuple[str, ...]
    content_hash: str


def decode_image(data: bytes | Path, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> DecodedImage:
    """Decode a JPEG, PNG, TIFF, BMP or WEBP image, from bytes or a file, to RGB. Safe to call from many threads.

    Greyscale, palette and CMYK images become RGB, alpha is laid on white, EXIF rotation is applied, of
    several frames the first is taken. 16-bit levels are divided by 257; float levels in 0 to 1 are
    multiplied by 255. Raises ImageError, with one reason, for everything that cannot be read.
    """
    content = read_bytes(data, max_bytes) if isinstance(data, Path) else data
    if not content:
        raise ImageError("the file is empty (0 bytes)")
    if len(content) > max_bytes:
        raise ImageError(f"the file has {len(content):,} bytes, more than the limit of {max_bytes:,}")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_size(image.width, image.height, max_pixels)
            conversions: list[str] = []
            if getattr(image, "is_animated", False):
                conversions.append("first of several frames taken")
            if _stored_in_16_bits(image):
                conversions.append("16-bit made 8-bit")
            # Pillow's TIFF decoder turns the image while loading and forgets the tag, so it is read before. Its PNG
            # decoder loads the image to find the tag, and damage found then would look like damaged EXIF data.
            orientation = _orientation(image, conversions) if image.format == "TIFF" else None
            image.load()
            if orientation is None:
                orientation = _orientation(image, conversions)
            if orientation != 1:
                ImageOps.exif_transpose(image, in_place=True)
                conversions.append("EXIF rotation applied")
            pixels = _to_rgb(image, conversions)
    except UnidentifiedImageError:
        raise ImageError("not a JPEG, PNG, TIFF, BMP or WEBP image, or damaged at its beginning") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"far too many pixels: the limit is {max_pixels:,}") from None
    except DECODER_ERRORS as error:
        raise ImageError(f"damaged or truncated image ({_short(error)})") from None
    return _decoded(pixels, conversions)


def array_to_rgb(row: NDArray[Any]) -> DecodedImage:
    """One image given as an array, made RGB.

    Shapes: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). Levels: uint8; uint16, divided by 257; floats in
    0 to 1, multiplied by 255; floats or other integers that hold whole numbers in 0 to 255, as they are.
    Raises ImageError for other shapes and levels, and for NaN and infinity.
    """
    channels = {2: 1, 3: row.shape[-1]}.get(row.ndim, 0) if row.ndim else 0
    if channels not in (1, 3, 4):
        raise ImageError(
            f"an image must have shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), found {tuple(row.shape)}"
        )
    _check_size(row.shape[1], row.shape[0], MAX_PIXELS)
    conversions: list[str] = []
    levels = _levels_to_8_bits(row, conversions, whole_numbers=True)
    if channels == 4:
        return _decoded(_lay_on_white(Image.fromarray(levels, "RGBA"), conversions), conversions)
    if channels == 1:
        conversions.append("greyscale made RGB")
        levels = np.repeat(levels.reshape(*row.shape[:2], 1), 3, axis=2)
    return _decoded(np.ascontiguousarray(levels), conversions)


def image_header(data: bytes | Path) -> tuple[str, str]:
    """Format and mode as Pillow names them, ("JPEG", "RGB"), without decoding. Raises ImageError."""
    try:
        with Image.open(data if isinstance(data, Path) else io.BytesIO(data), formats=FORMATS) as image:
            return image.format or "", image.mode
    except DECODER_ERRORS as error:
        raise ImageError(f"no readable image header ({_short(error)})") from None


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """A regular file's content. Pipes and devices are refused before they are opened: they may never end.

    Raises ImageError, with one reason, for what cannot be read or has more than ``max_bytes``.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("this is a folder, not an image")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("this is not a regular file")
        if status.st_size > max_bytes:
            raise ImageError(f"the file has {status.st_size:,} bytes, more than the limit of {max_bytes:,}")
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError("the file does not exist") from None
    except PermissionError:
        raise ImageError("no permission to read the file") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"the file cannot be read ({_short(error)})") from None


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(f"{width} x {height} pixels are more than the limit of {max_pixels:,}")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width} x {height} pixels are too few to hold a cell (at least {MIN_SIDE} a side)")


def _orientation(image: Image.Image, conversions: list[str]) -> int:
    """EXIF orientation, 1 to 8. Damaged EXIF data must not cost the image: said, and taken as upright."""
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except DECODER_ERRORS:
        conversions.append("damaged EXIF data ignored")
        return 1
    return orientation if orientation in range(1, 9) else 1


def _stored_in_16_bits(image: Image.Image) -> bool:
    """Colour images of 16 bits a channel, which Pillow reduces to their high bytes while decoding."""
    if not image.mode.startswith(("RGB", "LA")):
        return False
    # ``tile`` is Pillow's list of what to decode and how; only files have it, and its types leave it out.
    for tile in getattr(image, "tile", ()):
        layout = tile.args if isinstance(tile.args, str) else tile.args and tile.args[0]
        if ";16" in str(layout):
            return True
    return False


def _to_rgb(image: Image.Image, conversions: list[str]) -> NDArray[np.uint8]:
    """The pixels of a loaded image of any mode: uint8 (H, W, 3)."""
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if mode.startswith("I") or mode == "F":
        levels = _levels_to_8_bits(np.asarray(image), conversions, whole_numbers=False)
        conversions.append("greyscale made RGB")
        return np.repeat(levels[:, :, None], 3, axis=2)
    if mode in ("P", "PA"):
        conversions.append("palette made RGB")
    elif mode in ("1", "L", "LA", "La"):
        conversions.append("greyscale made RGB")
    elif mode not in ("RGB", "RGBA", "RGBa", "RGBX"):
        conversions.append(f"{mode} made RGB")
    if mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        premultiplied = {"La": "LA", "RGBa": "RGBA"}.get(mode)
        opaque = image.convert(premultiplied) if premultiplied else image
        return _lay_on_white(opaque.convert("RGBA"), conversions)
    return np.asarray(image.convert("RGB"))


def _lay_on_white(image: Image.Image, conversions: list[str]) -> NDArray[np.uint8]:
    conversions.append("alpha laid on white")
    ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(ground, image).convert("RGB"))


def _levels_to_8_bits(levels: NDArray[Any], conversions: list[str], *, whole_numbers: bool) -> NDArray[np.uint8]:
    """Levels of any number type as uint8, by the type's own range and never by what this image happens to hold.

    Stretching each image to its own brightest pixel would give two images of one cell two exposures.
    A 16-bit image from a 12-bit camera therefore comes out dark, and that is said.
    """
    kind = levels.dtype.kind
    if levels.dtype == np.uint8:
        return np.ascontiguousarray(levels)
    if kind == "b":
        conversions.append("black and white scaled to 0 to 255")
        return np.where(levels, 255, 0).astype(np.uint8)
    if kind not in "uif":
        raise ImageError(f"levels must be numbers, found {levels.dtype}")
    low, high = (levels.min(), levels.max()) if levels.size else (0, 0)
    if kind == "f":
        return _float_levels(levels, float(low), float(high), conversions, whole_numbers=whole_numbers)
    if whole_numbers and levels.dtype.itemsize != 2 and low >= 0 and high <= 255:
        conversions.append(f"{levels.dtype.itemsize * 8}-bit integers in 0 to 255 taken as 8-bit")
        return levels.astype(np.uint8)
    if low < 0 or high > 65535 or (whole_numbers and levels.dtype != np.uint16):
        if whole_numbers and kind == "i" and low >= 0 and high <= 255:
            conversions.append("16-bit integers in 0 to 255 taken as 8-bit")
            return levels.astype(np.uint8)
        raise ImageError(f"{levels.dtype} levels from {low} to {high} have no known scale; save as 8-bit or 16-bit")
    conversions.append("16-bit made 8-bit")
    if high <= 4095:
        conversions.append("16-bit levels of at most 12 bits, left dark")
    return np.asarray((levels.astype(np.uint32) + 128) // 257, dtype=np.uint8)


def _float_levels(
    levels: NDArray[Any], low: float, high: float, conversions: list[str], *, whole_numbers: bool
) -> NDArray[np.uint8]:
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("the pixels hold NaN or infinity")
    if low >= 0 and high <= 1:
        conversions.append("floats in 0 to 1 scaled by 255")
        return np.rint(levels.astype(np.float64) * 255).astype(np.uint8)
    if whole_numbers and low >= 0 and high <= 255 and bool((levels == np.rint(levels)).all()):
        conversions.append("floats in 0 to 255 taken as 8-bit")
        return levels.astype(np.uint8)
    expected = "in 0 to 1, or whole numbers in 0 to 255" if whole_numbers else "in 0 to 1"
    raise ImageError(f"float levels must be {expected}, found {low:.4g} to {high:.4g}")


def _decoded(pixels: NDArray[np.uint8], conversions: list[str]) -> DecodedImage:
    digest = hashlib.blake2b(f"{pixels.shape[0]}x{pixels.shape[1]}:".encode(), digest_size=16)
    digest.update(pixels.data)  # hashlib lets other threads run while it reads
    return DecodedImage(pixels, tuple(conversions), digest.hexdigest())


def _short(error: BaseException) -> str:
    """An error's own words on one line, at most 120 characters."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split())[:120]
