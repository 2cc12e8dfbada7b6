"""Inputs of every kind, recognised, read and refused."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemascope.config import Preparation, Resize
from hemascope.data import load, open_source, stream_images
from hemascope.errors import ImageError, SourceError, UsageError

SMALL = Preparation(resizes=(Resize(size=8),))


def write_cell(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return path


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def test_folder_per_class(tmp_path: Path) -> None:
    """First-level folders are the classes, nested files count, endings in any case, hidden files do not."""
    for name in ("ig/a.JPG", "ig/deep/er/b.png", "mono/c.tif", "mono/d.WebP", "mono/.hidden.png", ".git/x.png"):
        write_cell(tmp_path / name)
    write_cell(tmp_path / "loose.png")
    source = open_source(tmp_path)
    assert source.kind == "folder" and source.class_names == ("ig", "mono") and source.split is None
    assert list(source.names) == ["ig/a.JPG", "ig/deep/er/b.png", "loose.png", "mono/c.tif", "mono/d.WebP"]
    assert source.labels.tolist() == [0, 0, -1, 1, 1]
    assert source.ids[0] == f"{tmp_path}/ig/a.JPG"
    assert source.notes == {"images outside any class folder, unlabelled": 1}
    assert open_source(f"{tmp_path}/").ids == source.ids
    assert source.read(1).pixels.shape == (8, 8, 3)


def test_folder_with_own_split(tmp_path: Path) -> None:
    """Folders called train, val, test hold class folders: the source's own split."""
    for part in ("train", "Val", "test"):
        write_cell(tmp_path / part / "ig" / "a.png")
        write_cell(tmp_path / part / "mono" / "b.png")
    source = open_source(tmp_path)
    assert source.class_names == ("ig", "mono")
    assert dict(zip(source.names, source.split, strict=True))["Val/ig/a.png"] == "validation"
    write_cell(tmp_path / "ig" / "c.png")
    assert open_source(tmp_path).class_names == ("Val", "ig", "test", "train")


def test_label_pattern(tmp_path: Path) -> None:
    """A pattern labels by file name; names that do not match are unlabelled and counted."""
    for name in ("BA_1.png", "x/EO_2.png", "nothing.png"):
        write_cell(tmp_path / name)
    source = open_source(tmp_path, label_pattern=r"^(?P<label>[A-Z]+)_")
    assert source.class_names == ("BA", "EO") and source.labels.tolist() == [0, -1, 1]
    assert list(source.notes.values()) == [1]
    for pattern, message in (("(", "not a regular expression"), ("[A-Z]+", "group named label")):
        with pytest.raises(UsageError, match=message):
            open_source(tmp_path, label_pattern=pattern)


def test_folder_class_names(tmp_path: Path) -> None:
    """Given class names fix the order and refuse a class that is not among them, with the nearest."""
    write_cell(tmp_path / "ig" / "a.png")
    write_cell(tmp_path / "monocyte" / "a.png")
    assert open_source(tmp_path, class_names=["monocyte", "ig"]).labels.tolist() == [1, 0]
    with pytest.raises(SourceError, match=r"'monocyte' .* did you mean 'monocytes'"):
        open_source(tmp_path, class_names=["monocytes", "ig"])
    with pytest.raises(SourceError, match="different"):
        open_source(tmp_path, class_names=["ig", "ig"])


def test_links_that_leave_are_not_followed(tmp_path: Path) -> None:
    """Links to files outside and links to folders are left out and counted; links inside are read."""
    outside = write_cell(tmp_path / "secret" / "x.png")
    inside = write_cell(tmp_path / "set" / "ig" / "a.png")
    (tmp_path / "set" / "ig" / "out.png").symlink_to(outside)
    (tmp_path / "set" / "ig" / "in.png").symlink_to(inside)
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
    source = open_source(tmp_path / "set")
    assert list(source.names) == ["ig/a.png", "ig/in.png"]
    assert source.notes == {"links that leave the folder not followed": 1, "links to folders not followed": 1}


def test_odd_file_names(tmp_path: Path) -> None:
    """Spaces, newlines, other scripts, 200 letters and bytes that are no UTF-8 are read and loaded."""
    for name in ("a b.png", "line\nbreak.png", "célula 血.png", "n" * 200 + ".png", "#12.png"):
        write_cell(tmp_path / "ig" / name)
    broken = os.fsencode(tmp_path / "ig") + b"/\xff.png"
    Path(os.fsdecode(broken)).write_bytes((tmp_path / "ig" / "a b.png").read_bytes())
    cells = load(tmp_path, preparation=SMALL, cache_dir=tmp_path / ".cache")
    assert len(cells) == 6 and len(set(cells.ids)) == 6
    assert "ig/line\nbreak.png" in cells.ids and "ig/\\xff.png" in cells.ids
    assert len(cells.fingerprint()) == 64


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("fortran", [False, True])
def test_contest_npz(tmp_path: Path, save: object, fortran: bool) -> None:
    """images and labels of either shape are read row by row, mapped or streamed, in any order."""
    images = rows(7)
    stored = np.asfortranarray(images) if fortran else images
    save(tmp_path / "c.npz", images=stored, labels=np.arange(7).reshape(7, 1) % 3)  # type: ignore[operator]
    source = open_source(tmp_path / "c.npz")
    assert source.kind == "npz" and source.class_names == ("0", "1", "2")
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert source.ids[6] == f"{tmp_path}/c.npz#6"
    for index in (3, 6, 0, 1, 1):
        assert (source.read(index).pixels == images[index]).all()
    named = open_source(tmp_path / "c.npz", class_names=["a", "b", "c", "d"])
    assert named.class_names == ("a", "b", "c", "d")


def test_npz_labels(tmp_path: Path) -> None:
    """Text labels, float labels, names inside the file and missing labels are understood."""
    path = tmp_path / "c.npz"
    np.savez(path, images=rows(3), labels=np.array(["ig", "", "ba"]))
    assert open_source(path).class_names == ("ba", "ig") and open_source(path).labels.tolist() == [1, -1, 0]
    np.savez(path, images=rows(3), labels=np.array([0.0, 1.0, -1.0]), class_names=np.array(["x", "y"]))
    assert open_source(path).class_names == ("x", "y") and open_source(path).labels.tolist() == [0, 1, -1]
    np.savez(path, images=rows(3)[..., 0])
    assert open_source(path).labels.tolist() == [-1] * 3 and open_source(path).read(0).pixels.shape == (8, 8, 3)


def test_medmnist(tmp_path: Path) -> None:
    """The six arrays keep their split, and bloodmnist its eight names; part of them is enough."""
    arrays = {f"{part}_images": rows(2, seed) for seed, part in enumerate(("train", "val", "test"))}
    labels = {f"{part}_labels": np.array([[0], [7]], dtype=np.uint8) for part in ("train", "val", "test")}
    np.savez_compressed(tmp_path / "bloodmnist_64.npz", **arrays, **labels)
    source = open_source(tmp_path / "bloodmnist_64.npz")
    assert source.kind == "medmnist" and source.class_names[3] == "ig" and len(source.class_names) == 8
    assert source.split.tolist() == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    assert source.names[2] == "val/0"
    for index, part in ((4, "test"), (0, "train"), (2, "val")):
        assert (source.read(index).pixels == arrays[f"{part}_images"][0]).all()
    with pytest.raises(SourceError, match="must hold the arrays images"):
        open_source(tmp_path / "bloodmnist_64.npz", format="npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.array([{}, {}], dtype=object)}, "Python objects"),
        ({"images": rows(2), "labels": np.array([0, None], dtype=object)}, "Python objects"),
        ({"pictures": rows(2)}, "found pictures"),
        ({"images": rows(2)[0, 0]}, "must have shape"),
        ({"images": np.zeros((2, 8, 8, 5))}, "must have shape"),
        ({"images": np.array([["a"]] * 2).reshape(2, 1, 1)}, "must hold numbers"),
        ({"images": rows(2), "labels": np.zeros(3, int)}, "one label an image"),
        ({"images": rows(2), "labels": np.eye(2, dtype=int)}, "one label an image"),
        ({"images": rows(2), "labels": np.array([0, -2])}, "found -2 to 0"),
        ({"images": rows(2), "labels": np.array([0, 2**40])}, "must lie in 0"),
        ({"images": rows(2), "labels": np.array([0.5, 0])}, "whole numbers"),
        ({"images": rows(2), "labels": np.array([np.nan, 0])}, "whole numbers"),
        ({"images": rows(2), "labels": np.array([0, 3]), "class_names": np.array(["a", "b"])}, "go up to 3"),
        ({"images": rows(0)}, "no image"),
    ],
)
def test_npz_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    """An npz file with wrong arrays is refused in one sentence that says what was found."""
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "c.npz")


def test_hostile_npz(tmp_path: Path) -> None:
    """Bombs, false sizes, damage, doubled and too many members are refused before arrays are made."""
    path = tmp_path / "c.npz"
    np.savez_compressed(path, images=np.zeros((8000, 100, 100, 3), dtype=np.uint8))
    with pytest.raises(SourceError, match="bomb"):
        open_source(path)

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 99, 99, 3)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(100))
    with pytest.raises(SourceError, match="truncated or damaged"):
        open_source(path)

    with zipfile.ZipFile(path, "w") as archive:
        for index in range(100):
            archive.writestr(f"{index}.npy", b"")
    with pytest.raises(SourceError, match="100 members"):
        open_source(path)

    np.savez(path, images=rows(5))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"text", whole[100:]):
        path.write_bytes(content)
        with pytest.raises(SourceError, match="not a readable npz"):
            open_source(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_array_is_not_trusted(tmp_path: Path, save: Callable[..., None]) -> None:
    """An array whose checksum is wrong gives no unnoticed wrong pixels: the file is refused by name."""
    path = tmp_path / "c.npz"
    save(path, images=rows(400))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    source = open_source(path)
    with pytest.raises(SourceError, match=r"images\.npy is damaged \(its checksum is wrong\)"):
        for index in range(400):
            source.read(index)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_manifest(tmp_path: Path, delimiter: str) -> None:
    """Columns in any order and case, any of three delimiters, a byte-order mark, empty cells."""
    for name in ("a.png", "sub/b.png", "c.png"):
        write_cell(tmp_path / name)
    lines = [["Label", "PATH", "split", "group", "age"], ["ig", "a.png", "val", "p1", "3"]]
    lines += [["", "sub/b.png", "train", "", "4"], ["ba", '"c.png"', "", "p1", "5"], []]
    (tmp_path / "l.csv").write_text("\n".join(map(delimiter.join, lines)), encoding="utf-8-sig")
    source = open_source(tmp_path / "l.csv")
    assert source.class_names == ("ba", "ig") and source.labels.tolist() == [1, -1, 0]
    assert (
        source.split.tolist() == ["validation", "train", "unused"] and source.notes["rows without a split, unused"] == 1
    )
    assert source.groups.tolist() == ["p1", "", "p1"]
    assert source.ids[1] == f"{tmp_path}/sub/b.png" and source.read(1).pixels.shape == (8, 8, 3)


def test_parquet_manifest(tmp_path: Path) -> None:
    """A Parquet table is read like a CSV; numeric labels are ordered as numbers."""
    import pyarrow as pa
    from pyarrow import parquet

    for name in ("a.png", "b.png", "c.png"):
        write_cell(tmp_path / name)
    table = pa.table({"path": ["a.png", "b.png", "c.png"], "label": [10, 9, None]})
    parquet.write_table(table, tmp_path / "l.parquet")
    source = open_source(tmp_path / "l.parquet")
    assert source.class_names == ("9", "10") and source.labels.tolist() == [1, 0, -1]
    (tmp_path / "l.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(SourceError, match="not a readable Parquet"):
        open_source(tmp_path / "l.parquet")


def test_manifest_stays_in_its_folder(tmp_path: Path) -> None:
    """A relative path may not leave the folder, by dots or by a link, whether the file exists or not."""
    secret = write_cell(tmp_path / "secret.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link.png").symlink_to(secret)
    (tmp_path / "set" / "up").symlink_to(tmp_path)
    for name in ("../secret.png", "link.png", "up/secret.png", "x/../../missing.png", "../" * 30 + "etc/passwd"):
        (tmp_path / "set" / "l.csv").write_text(f"path\n{name}\n")
        with pytest.raises(SourceError, match=r"image 1 .* leads out"):
            open_source(tmp_path / "set" / "l.csv")
    (tmp_path / "set" / "l.csv").write_text(f"path\n{secret}\n")
    assert open_source(tmp_path / "set" / "l.csv").ids == [str(secret)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na.png,ig", "needs a column named path"),
        ("", "needs a column named path"),
        ("path,label", "lists no image"),
        ("path,path\na.png,b.png", "two columns"),
        ("path\na.png\n./a.png", "2 times"),
        ("path,label\n,ig", "no usable path"),
        ("path,split\na.png,dev", "use one of train, validation, calibration, test, unused"),
        ('path,label\n"a.png,ig', "not a readable CSV"),
    ],
)
def test_manifest_refused(tmp_path: Path, text: str, message: str) -> None:
    """A malformed manifest is refused in one sentence."""
    write_cell(tmp_path / "a.png")
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "l.csv")


def test_manifest_missing_file_and_encoding(tmp_path: Path) -> None:
    """A file that is missing is an unreadable image; text that is not UTF-8 is refused."""
    (tmp_path / "l.csv").write_text("path\nmissing.png\n" + "x" * 300 + ".png\n")
    source = open_source(tmp_path / "l.csv")
    with pytest.raises(ImageError, match="does not exist"):
        source.read(0)
    with pytest.raises(ImageError, match="cannot be read"):
        source.read(1)
    (tmp_path / "l.csv").write_bytes(b"path\n\xff\xfe.png\n")
    with pytest.raises(SourceError, match="UTF-8"):
        open_source(tmp_path / "l.csv")


def test_unknown_inputs(tmp_path: Path) -> None:
    """Missing paths, empty folders, unknown files and wrong options are each one sentence."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.xyz").write_text("x")
    (tmp_path / "a.csv").write_text("path\n")
    for call, error, message in (
        (lambda: open_source(tmp_path / "no"), SourceError, "does not exist"),
        (lambda: open_source(tmp_path / "empty"), SourceError, "holds no image"),
        (lambda: open_source(tmp_path / "a.xyz"), SourceError, "no known format"),
        (lambda: open_source(tmp_path / "a.xyz", format="zip"), UsageError, "use one of folder"),
        (lambda: open_source(tmp_path / "a.xyz", format="npz"), SourceError, "not a readable npz"),
        (lambda: open_source(tmp_path / "a.xyz", format="folder"), SourceError, "must be a folder"),
        (lambda: open_source(tmp_path, format="npz"), SourceError, "must be a file"),
        (lambda: open_source("x" * 5000), SourceError, "cannot read"),
        (lambda: open_source("nul\0"), SourceError, "cannot read|does not exist"),
        (lambda: open_source(tmp_path / "a.csv", label_pattern="(?P<label>x)"), UsageError, "works on a folder"),
        (lambda: open_source(tmp_path, class_names="ig"), UsageError, "list of names"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_signature_follows_changes(tmp_path: Path) -> None:
    """The signature is the same for the same files and differs after any change of them."""
    path = write_cell(tmp_path / "ig" / "a.png")
    first = open_source(tmp_path).signature
    assert open_source(str(tmp_path) + "/").signature == first
    os.utime(path, ns=(1, 1))
    second = open_source(tmp_path).signature
    path.rename(tmp_path / "ig" / "b.png")
    assert len({first, second, open_source(tmp_path).signature}) == 3


def test_stream_keeps_order_and_errors(tmp_path: Path) -> None:
    """Files, folders and arrays stream in the order given, in full batches; bad images are zero rows with reasons."""
    for seed in range(20):
        write_cell(tmp_path / "dir" / f"{seed:02}.png", seed)
    (tmp_path / "dir" / "05.png").write_bytes(b"")
    single = write_cell(tmp_path / "one.png", 99)
    np.savez_compressed(tmp_path / "c.npz", images=rows(30))
    batches = list(stream_images([tmp_path / "c.npz", single, tmp_path / "dir"], SMALL, batch_size=16, threads=3))
    assert [len(batch) for batch in batches] == [16, 16, 16, 3]
    ids = [name for batch in batches for name in batch.ids]
    assert ids[:2] == [f"{tmp_path}/c.npz#0", f"{tmp_path}/c.npz#1"] and ids[30] == str(single)
    assert ids[31:] == [f"{tmp_path}/dir/{seed:02}.png" for seed in range(20)]
    images = np.concatenate([batch.images for batch in batches])
    assert (images[:30] == rows(30)).all()
    assert (images[32] == np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)).all()
    errors = [error for batch in batches for error in batch.errors]
    assert errors[36] == "the file is empty (0 bytes)" and errors.count("") == 50 and not images[36].any()


def test_stream_refuses_before_decoding(tmp_path: Path) -> None:
    """A missing path among the inputs is an error at once, before the first batch is asked for."""
    single = write_cell(tmp_path / "one.png")
    with pytest.raises(SourceError, match="does not exist"):
        stream_images([single, tmp_path / "no.png"], SMALL)
    with pytest.raises(UsageError, match="no image was given"):
        stream_images([], SMALL)


@pytest.mark.parametrize("shape", [(-2, 4, 4, 3), (3_000_000, 0, 0, 3), (2, 12_000, 12_000, 3)])
def test_arrays_whose_header_lies_are_refused_before_a_row_is_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Sides below 1 and images past the limit of pixels are one sentence, whatever few bytes the file holds."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(SourceError):
        open_source(tmp_path / "x.npz")


def test_a_table_of_millions_of_rows_in_kilobytes_is_refused(tmp_path: Path) -> None:
    """A Parquet file that repeats one path a million times is refused by what it announces."""
    import pyarrow as pa
    from pyarrow import parquet

    repeated = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1_000_000, dtype=np.int32)), pa.array(["a.png"]))
    parquet.write_table(pa.table({"path": repeated}), tmp_path / "m.parquet")
    with pytest.raises(SourceError, match="claims 1,000,000 rows"):
        open_source(tmp_path / "m.parquet")


def test_a_table_that_repeats_a_long_text_is_refused_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text is measured as it would be unpacked, whatever the file announces, and nested columns are refused."""
    import pyarrow as pa
    from pyarrow import parquet

    paths = [f"{i}.png" for i in range(1000)]
    parquet.write_table(pa.table({"path": paths, "label": ["x" * 10_000] * 1000}), tmp_path / "m.parquet")
    monkeypatch.setattr("hemascope.data.parquet_table.MAX_TEXT_BYTES", 1_000_000)
    with pytest.raises(SourceError, match="unpacks to 10,006,890 bytes, more than 1,000,000"):
        open_source(tmp_path / "m.parquet")
    parquet.write_table(pa.table({"path": ["a.png"], "label": [["x", "y"]]}), tmp_path / "n.parquet")
    with pytest.raises(SourceError, match="label must hold text or numbers, found list"):
        open_source(tmp_path / "n.parquet")


def test_images_past_the_limit_of_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound array of images that are too large is refused by its shape."""
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 20, 20, 3), np.uint8))
    assert len(open_source(tmp_path / "x.npz")) == 2
    monkeypatch.setattr("hemascope.data.sources.arrays.MAX_PIXELS", 399)
    with pytest.raises(SourceError, match="must have 1 to 399 pixels"):
        open_source(tmp_path / "x.npz")


def test_folders_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    """Equal names, sizes and times of modification do not make two folders one."""
    for folder in ("a", "b"):
        write_cell(tmp_path / folder / "ig" / "1.png")
        os.utime(tmp_path / folder / "ig" / "1.png", (0, 0))
    assert open_source(tmp_path / "a").signature != open_source(tmp_path / "b").signature


def test_a_stray_file_among_several_is_a_row_with_its_reason(tmp_path: Path) -> None:
    """``folder/*`` may hold a file of another kind: the others are read; alone, or missing, it stops the call."""
    write_cell(tmp_path / "a.png")
    (tmp_path / "Thumbs.db").write_bytes(b"not a picture")
    (batch,) = stream_images([tmp_path / "a.png", tmp_path / "Thumbs.db"], SMALL)
    assert batch.errors[0] == "" and batch.errors[1]
    with pytest.raises(SourceError, match="no known format"):
        stream_images([tmp_path / "Thumbs.db"], SMALL)
    with pytest.raises(SourceError, match="does not exist"):
        stream_images([tmp_path / "a.png", tmp_path / "missing.png"], SMALL)
