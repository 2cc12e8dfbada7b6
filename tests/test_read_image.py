"""One image to RGB pixels, and to the prepared square."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from hemascope.config import PREPARATIONS, Preparation, Resize
from hemascope.data import array_to_rgb, decode_image, prepare
from hemascope.errors import ImageError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pytest undoes the filters set when importing


def cell(height: int = 12, width: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, format: str = "PNG", **options: object) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@given(hnp.arrays(np.uint8, st.tuples(st.integers(4, 20), st.integers(4, 20), st.just(3))))
def test_lossless_formats_return_the_very_pixels(pixels: np.ndarray) -> None:
    """What was saved as PNG, BMP, TIFF or lossless WEBP is read back bit for bit, with one hash for all."""
    hashes = {array_to_rgb(pixels).content_hash}
    for format, options in (("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        decoded = decode_image(encoded(pixels, format, **options))
        assert (decoded.pixels == pixels).all() and decoded.conversions == ()
        hashes.add(decoded.content_hash)
    assert len(hashes) == 1


def test_hash_tells_shape_and_pixels() -> None:
    """The hash differs for one changed level and for the same bytes in another shape."""
    flat = np.full((6, 8, 3), 7, dtype=np.uint8)
    changed = flat.copy()
    changed[0, 0, 0] = 8
    hashes = {array_to_rgb(p).content_hash for p in (flat, changed, flat.reshape(8, 6, 3))}
    assert len(hashes) == 3 and all(len(h) == 32 for h in hashes)


def test_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    """A plain JPEG, from bytes or a file, gives Pillow's own pixels and no conversion."""
    data = encoded(cell(40, 40), "JPEG")
    (tmp_path / "a.jpg").write_bytes(data)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    for source in (data, tmp_path / "a.jpg"):
        decoded = decode_image(source)
        assert (decoded.pixels == expected).all() and decoded.conversions == ()


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_exif_rotation_is_applied_and_said(orientation: int, format: str) -> None:
    """Every EXIF orientation turns the pixels upright once, as the EXIF standard says."""
    image = Image.fromarray(cell())
    exif = Image.Exif()
    exif[0x0112] = orientation
    p = cell()
    upright = {
        2: p[:, ::-1],
        3: p[::-1, ::-1],
        4: p[::-1],
        5: p.transpose(1, 0, 2),
        6: np.rot90(p, -1),
        7: p[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(p),
    }[orientation]
    decoded = decode_image(encoded(image, format, exif=exif))
    assert decoded.conversions == ("EXIF rotation applied",)
    assert (decoded.pixels == upright).all()


def test_modes_are_converted_and_said() -> None:
    """Greyscale, palette, alpha, black-and-white and CMYK become the RGB a person would see."""
    grey = Image.new("L", (8, 8), 90)
    palette = Image.new("RGB", (8, 8), (10, 20, 30)).quantize(4)
    alpha = Image.new("RGBA", (8, 8), (200, 0, 0, 51))
    cases = [
        (encoded(grey), (90, 90, 90), ("greyscale made RGB",)),
        (encoded(palette), (10, 20, 30), ("palette made RGB",)),
        (encoded(alpha), (244, 204, 204), ("alpha laid on white",)),
        (encoded(Image.new("LA", (8, 8), (0, 0))), (255, 255, 255), ("greyscale made RGB", "alpha laid on white")),
        (encoded(Image.new("1", (8, 8), 1)), (255, 255, 255), ("greyscale made RGB",)),
        (encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), (255, 0, 0), ("CMYK made RGB",)),
        (encoded(palette, transparency=0), (255, 255, 255), ("palette made RGB", "alpha laid on white")),
    ]
    for data, colour, said in cases:
        decoded = decode_image(data)
        assert decoded.conversions == said
        assert np.abs(decoded.pixels.astype(int) - colour).max() <= 1, said


def test_16_bit_levels_are_divided_by_257() -> None:
    """16-bit levels are scaled by the type's range, rounded; a 12-bit image is left dark and that is said."""
    levels = np.full((8, 8), 65535, dtype=np.uint16)
    levels[0, 0] = 128  # 0.498 of a level
    levels[0, 1] = 129  # 0.502 of a level
    decoded = decode_image(encoded(Image.fromarray(levels)))
    assert decoded.conversions == ("16-bit made 8-bit", "greyscale made RGB")
    assert decoded.pixels[0, :3, 0].tolist() == [0, 1, 255]
    dark = decode_image(encoded(Image.fromarray(np.full((8, 8), 4095, dtype=np.uint16)), "TIFF"))
    assert dark.pixels.max() == 16 and "16-bit levels of at most 12 bits, left dark" in dark.conversions
    assert array_to_rgb(np.full((8, 8, 3), 65535, dtype=np.uint16)).pixels.min() == 255


def test_float_and_32_bit_levels() -> None:
    """Floats in 0 to 1 are scaled; NaN, infinity, other ranges and 32-bit integers without a scale are refused."""
    tiff = lambda value, kind: encoded(Image.fromarray(np.full((8, 8), value, dtype=kind)), "TIFF")  # noqa: E731
    assert decode_image(tiff(0.5, np.float32)).pixels.max() == 128
    assert decode_image(tiff(65535, np.int32)).pixels.min() == 255
    for value, kind, reason in (
        (np.nan, np.float32, "NaN"),
        (np.inf, np.float32, "NaN or infinity"),
        (1.5, np.float32, "in 0 to 1"),
        (-0.1, np.float32, "in 0 to 1"),
        (70000, np.int32, "no known scale"),
        (-1, np.int32, "no known scale"),
    ):
        with pytest.raises(ImageError, match=reason):
            decode_image(tiff(value, kind))


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3), (6, 5, 4)])
def test_array_rows(kind: type, shape: tuple[int, ...]) -> None:
    """Whole numbers in 0 to 255 of any type, in any image shape, become the same RGB pixels."""
    levels = np.random.default_rng(1).integers(2, 256, shape)
    if shape[-1] == 4:
        levels[..., 3] = 255
    decoded = array_to_rgb(levels.astype(kind))
    expected = levels[..., :3] if len(shape) == 3 and shape[2] > 1 else np.repeat(levels.reshape(6, 5, 1), 3, axis=2)
    assert decoded.pixels.dtype == np.uint8 and (decoded.pixels == expected).all()
    assert bool(decoded.conversions) == (kind is not np.uint8 or shape[-1] != 3)


def test_array_rows_refused() -> None:
    """Shapes and levels that are no image are refused with a reason."""
    for row, reason in (
        (np.zeros(5), "shape"),
        (np.array(3), "shape"),
        (np.zeros((4, 4, 2)), "shape"),
        (np.zeros((2, 9, 3)), "too few"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (np.full((4, 4, 3), 1.5), "float levels"),
        (np.full((4, 4, 3), 256), "no known scale"),
        (np.full((4, 4, 3), -1), "no known scale"),
        (np.full((4, 4, 3), 1j), "numbers"),
    ):
        with pytest.raises(ImageError, match=reason):
            array_to_rgb(row)


def test_unreadable_files_give_one_reason(tmp_path: Path) -> None:
    """Truncated, empty, text, folder, pipe, missing, too long a name, too large: an ImageError each, nothing else."""
    jpeg = encoded(cell(64, 64), "JPEG")
    png = encoded(cell(64, 64))
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    files = {"half.jpg": jpeg[: len(jpeg) // 2], "half.png": png[: len(png) // 2], "head.jpg": jpeg[:10]}
    files |= {"empty.png": b"", "text.jpg": b"not an image", "gif.png": encoded(cell(), "GIF"), "tiny.png": b""}
    files["tiny.png"] = encoded(cell(1, 1))
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    reasons = {
        "half.jpg": "truncated",
        "half.png": "truncated",
        "head.jpg": "truncated",
        "empty.png": "empty",
        "text.jpg": "not a JPEG",
        "gif.png": "not a JPEG",
        "tiny.png": "too few",
        "folder.jpg": "folder",
        "pipe.jpg": "not a regular file",
        "missing.jpg": "does not exist",
        "x" * 300 + ".jpg": "cannot be read",
        "nul\0.jpg": "cannot be read",
    }
    for name, reason in reasons.items():
        with pytest.raises(ImageError, match=reason) as caught:
            decode_image(tmp_path / name)
        assert "\n" not in caught.value.reason


def test_bombs_are_refused_before_decoding(tmp_path: Path) -> None:
    """An image of too many pixels or bytes is refused by its header, at Pillow's own limit and below it."""
    for side in (9000, 20000):
        with pytest.raises(ImageError, match="pixels"):
            decode_image(encoded(Image.new("1", (side, side))))
    with pytest.raises(ImageError, match="limit of 100"):
        decode_image(encoded(cell(20, 20)), max_pixels=100)
    (tmp_path / "a.png").write_bytes(encoded(cell(20, 20)))
    for source in (tmp_path / "a.png", encoded(cell(20, 20))):
        with pytest.raises(ImageError, match="bytes, more than"):
            decode_image(source, max_bytes=100)


@given(st.binary(max_size=200), st.integers(0, 3))
def test_noise_never_escapes_as_another_error(noise: bytes, kind: int) -> None:
    """Random bytes, also behind a true beginning, give pixels or an ImageError."""
    start = [b"", encoded(cell())[:60], encoded(cell(), "JPEG")[:200], encoded(cell(), "TIFF")[:40]][kind]
    try:
        assert decode_image(start + noise).pixels.ndim == 3
    except ImageError as error:
        assert error.reason


def test_first_of_several_frames() -> None:
    """Of a file with several frames the first is taken, and that is said."""
    data = encoded(Image.fromarray(cell()), "TIFF", save_all=True, append_images=[Image.new("RGB", (10, 12))])
    decoded = decode_image(data)
    assert (decoded.pixels == cell()).all() and decoded.conversions == ("first of several frames taken",)


def test_threads_agree() -> None:
    """Decoding in threads gives what decoding in turn gives."""
    data = [encoded(cell(30, 30, seed), "JPEG") for seed in range(20)]
    alone = [decode_image(d).content_hash for d in data]
    with ThreadPoolExecutor(4) as pool:
        assert [d.content_hash for d in pool.map(decode_image, data)] == alone


def test_centre_crop_rounds_to_the_upper_left() -> None:
    """An odd margin puts the square half a pixel to the upper left; a small image gives its largest square."""
    pixels = cell(13, 20)
    to_8 = Preparation(crop=8, resizes=(Resize(size=8),))
    assert (prepare(pixels, to_8) == pixels[2:10, 6:14]).all()
    assert (prepare(cell(9, 8), to_8) == cell(9, 8)[0:8]).all()
    assert prepare(cell(5, 30), to_8).shape == (8, 8, 3)


def test_contest_preparation_is_two_resizes() -> None:
    """The contest's preparation is the centre 200, bilinear to 224, then Lanczos to 96, and nothing else."""
    pixels = cell(363, 360)
    image = Image.fromarray(pixels[81:281, 80:280])
    expected = image.resize((224, 224), Image.Resampling.BILINEAR).resize((96, 96), Image.Resampling.LANCZOS)
    assert (prepare(pixels, PREPARATIONS["contest"]) == np.asarray(expected)).all()


def test_shrinking_is_antialiased() -> None:
    """A fine chequerboard shrinks to its mean grey, not to an alias of itself."""
    board = np.indices((96, 96)).sum(axis=0)[:, :, None].repeat(3, axis=2) % 2 * 255
    small = prepare(board.astype(np.uint8), Preparation(resizes=(Resize(size=16),)))
    assert np.abs(small[2:-2, 2:-2].astype(int) - 128).max() <= 2


def test_16_bit_colour_is_said() -> None:
    """A PNG of 16 bits a channel, which Pillow reduces while decoding, is read and said."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + struct.pack(">3H", 0x8000, 0xFFFF, 0) * 4) * 4
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 4, 4, 16, 2, 0, 0, 0))
    decoded = decode_image(png + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    assert decoded.conversions == ("16-bit made 8-bit",)
    assert decoded.pixels[0, 0].tolist() == [128, 255, 0]
