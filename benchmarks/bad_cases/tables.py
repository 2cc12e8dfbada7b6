"""Manifests and packed stores: tables that are malformed, hostile or about files that are not there."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bad_cases.case import CLASSES, PER_CLASS, SIZE, Case, Ground, copy_cell, spoil_byte, write

INSPECT = "inspect cells.csv"


def manifest(rows: str, header: str = "path,label") -> Callable[[Path, Ground], None]:
    """``cells.csv`` beside one good image, ``one.jpg``."""

    def make(here: Path, ground: Ground) -> None:
        copy_cell(here, ground, "one.jpg")
        write("cells.csv", f"{header}\n{rows}")(here, ground)

    return make


def _missing_files(here: Path, ground: Ground) -> None:
    listed = [f"cells/{name}/{name}_{i:05d}.jpg,{name}" for name in CLASSES for i in range(PER_CLASS)]
    gone = [f"cells/{CLASSES[0]}/gone_{i}.jpg,{CLASSES[0]}" for i in range(5)]
    manifest("\n".join([*listed, *gone]))(here, ground)
    import shutil

    shutil.copytree(ground.cells, here / "cells")


def _link_out(here: Path, ground: Ground) -> None:
    manifest("secret.jpg,a")(here, ground)
    (here / "secret.jpg").symlink_to("/etc/passwd")


def _parquet(here: Path, ground: Ground) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"path": ["one.jpg"] * 50, "label": ["a"] * 50}), here / "cells.parquet")
    content = (here / "cells.parquet").read_bytes()
    (here / "cells.parquet").write_bytes(content[:-10])


def _store(here: Path, ground: Ground) -> None:
    from hemascope.config import Preparation, Resize
    from hemascope.data.store import StoreRow, write_store

    images, labels = ground.arrays()
    rows = [StoreRow(f"{i}.png", int(labels[i]), images[i], f"{i:032x}", SIZE, SIZE) for i in range(len(images))]
    preparation = Preparation(resizes=(Resize(size=SIZE),))
    write_store(here / "packed", rows, class_names=CLASSES, preparation=preparation, source="arrays")


def _spoilt_index(here: Path, ground: Ground) -> None:
    _store(here, ground)
    spoil_byte(here / "packed/index.parquet", 10)


def _cut_store(here: Path, ground: Ground) -> None:
    _store(here, ground)
    content = (here / "packed/images.npy").read_bytes()
    (here / "packed/images.npy").write_bytes(content[:-5000])


def _newer_store(here: Path, ground: Ground) -> None:
    _store(here, ground)
    header = json.loads((here / "packed/store.json").read_text())
    (here / "packed/store.json").write_text(json.dumps(header | {"version": 9}))


def _objects_in_store(here: Path, ground: Ground) -> None:
    _store(here, ground)
    content = io.BytesIO()
    np.save(content, np.array([{}], dtype=object), allow_pickle=True)
    (here / "packed/images.npy").write_bytes(content.getvalue())


TABLES = (
    Case(
        "no column path",
        INSPECT,
        ("needs a column named path", "found file, label"),
        manifest("one.jpg,a", header="file,label"),
    ),
    Case(
        "another delimiter",
        INSPECT,
        ("needs a column named path", "found path|label", "comma, semicolon or tab"),
        manifest("one.jpg|a", header="path|label"),
    ),
    Case("column named twice", INSPECT, ("two columns named label",), manifest("one.jpg,a,b", "path,label,label")),
    Case(
        "unknown split",
        INSPECT,
        ("has the split 'holdout'", "use one of train, validation"),
        manifest("one.jpg,a,holdout", header="path,label,split"),
    ),
    Case("image listed twice", INSPECT, ("one.jpg' 2 times", "may be listed once"), manifest("one.jpg,a\none.jpg,b")),
    Case(
        "image listed twice, written differently",
        INSPECT,
        ("2 times", "may be listed once"),
        manifest("one.jpg,a\n./one.jpg,b"),
    ),
    Case("row without a path", INSPECT, ("image 2 has no usable path",), manifest("one.jpg,a\n,b")),
    Case(
        "path out of the manifest's folder",
        INSPECT,
        ("leads out of the manifest's folder", "move the file"),
        manifest("../../../etc/passwd,a"),
    ),
    Case(
        "link out of the manifest's folder", INSPECT, ("leads out of the manifest's folder", "move the file"), _link_out
    ),
    Case(
        "5 of 35 files that are not there",
        "train cells.csv -o new --config tiny.toml",
        ("5 of 35 images (14.3%)", "does not exist", "At most 5.0% may be"),
        _missing_files,
    ),
    Case("empty file", INSPECT, ("cells.csv", "needs a column named path", "found none"), write("cells.csv", "")),
    Case("heading alone", INSPECT, ("lists no image",), manifest("")),
    Case(
        "binary file named .csv",
        INSPECT,
        ("is not UTF-8 text", "save it as UTF-8"),
        write("cells.csv", bytes(range(256)) * 20),
    ),
    Case("zeros named .csv", INSPECT, ("cells.csv is not text", "save it as UTF-8"), write("cells.csv", bytes(500))),
    Case(
        "Latin-1 instead of UTF-8",
        INSPECT,
        ("is not UTF-8 text", "save it as UTF-8"),
        write("cells.csv", "path,label\nblutgefäß.jpg,a\n".encode("latin-1")),
    ),
    Case(
        "quotation mark that never closes",
        INSPECT,
        ("is not a readable CSV file", "save it again"),
        manifest('one.jpg,"a\n'),
    ),
    Case(
        "text named .parquet",
        "inspect cells.parquet",
        ("is not a readable Parquet file", "save it again"),
        write("cells.parquet", "path,label\n"),
    ),
    Case("Parquet cut off", "inspect cells.parquet", ("is not a readable Parquet file", "save it again"), _parquet),
    Case(
        "packed store with a changed byte in its index",
        "inspect packed",
        ("changed or damaged", "pack the images"),
        _spoilt_index,
    ),
    Case(
        "packed store cut off",
        "inspect packed",
        ("packed/images.npy is truncated or damaged", "pack the images again"),
        _cut_store,
    ),
    Case("packed store of version 9", "inspect packed", ("of version 9", "pack the images again"), _newer_store),
    Case(
        "packed store with Python objects",
        "inspect packed",
        ("packed/images.npy must be uint8", "found object", "pack the images again"),
        _objects_in_store,
    ),
    Case(
        "packed store of another size",
        "train packed -o new",
        ("was packed with", "bicubic to 96", "use the store's"),
        _store,
    ),
)
