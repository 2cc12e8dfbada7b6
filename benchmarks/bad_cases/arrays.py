"""npz files that are damaged, hostile, or hold something else than images and their labels."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bad_cases.case import Case, Ground, spoil_byte, write

TRAIN = "train cells.npz -o new --config tiny.toml"
INSPECT = "inspect cells.npz"
Change = Callable[[dict[str, Any]], dict[str, Any] | None]


class Payload:
    """An object whose unpickling would make a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path("code-was-run").touch, ()


def saved(change: Change) -> Callable[[Path, Ground], None]:
    """``cells.npz`` with good arrays after ``change``."""

    def make(here: Path, ground: Ground) -> None:
        images, labels = ground.arrays()
        arrays: dict[str, Any] = {"images": images, "labels": labels}
        np.savez(here / "cells.npz", **(change(arrays) or arrays))

    return make


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[Path, Ground], None]:
    """``cells.npz`` with one of its arrays changed."""
    return saved(lambda arrays: arrays | {name: change(arrays[name])})


def _objects(images: Any) -> Any:
    held = np.empty(len(images), dtype=object)
    held[:] = [Payload() for _ in images]
    return held


def _truncated(here: Path, ground: Ground) -> None:
    saved(lambda arrays: None)(here, ground)
    content = (here / "cells.npz").read_bytes()
    (here / "cells.npz").write_bytes(content[: len(content) // 2])


def _spoilt_middle(here: Path, ground: Ground) -> None:
    images, labels = ground.arrays()
    np.savez_compressed(here / "cells.npz", images=images, labels=labels)
    content = bytearray((here / "cells.npz").read_bytes())
    content[4000:4100] = bytes(100)
    (here / "cells.npz").write_bytes(bytes(content))


def _spoilt_byte(here: Path, ground: Ground) -> None:
    saved(lambda arrays: None)(here, ground)
    spoil_byte(here / "cells.npz", 5000)


def _npy(array: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _bomb(here: Path, ground: Ground) -> None:
    header = io.BytesIO()
    shape = (12_000, 100, 100, 3)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with (
        zipfile.ZipFile(here / "cells.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("images.npy", "w") as member,
    ):
        member.write(header.getvalue())
        for _ in range(120):
            member.write(bytes(3_000_000))


def _zip(entries: dict[str, bytes]) -> Callable[[Path, Ground], None]:
    def make(here: Path, ground: Ground) -> None:
        with zipfile.ZipFile(here / "cells.npz", "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)

    return make


ARRAYS = (
    Case("array of Python objects", INSPECT, ("Python objects", "refused", "numpy.stack"), changed("images", _objects)),
    Case(
        "pickle as a member",
        INSPECT,
        ("images.npy is not an array", "numpy.savez"),
        _zip({"images.npy": pickle.dumps(Payload())}),
    ),
    Case(
        "no array called images",
        INSPECT,
        ("must hold the arrays images and labels", "found pictures, labels"),
        saved(lambda arrays: {"pictures": arrays["images"], "labels": arrays["labels"]}),
    ),
    Case(
        "images of shape (N, 96)",
        INSPECT,
        ("must have shape (N, height, width, 3)", "found (30, 96)"),
        changed("images", lambda images: images.reshape(30, 32, 96)[:, 0]),
    ),
    Case(
        "channels first",
        INSPECT,
        ("must have shape (N, height, width, 3)", "found (30, 3, 32, 32)"),
        changed("images", lambda images: images.transpose(0, 3, 1, 2)),
    ),
    Case(
        "no image in it",
        INSPECT,
        ("holds no image",),
        saved(lambda arrays: {name: array[:0] for name, array in arrays.items()}),
    ),
    Case(
        "complex numbers as images",
        INSPECT,
        ("must hold numbers", "complex64"),
        changed("images", lambda images: images.astype(np.complex64)),
    ),
    Case(
        "fewer labels than images",
        INSPECT,
        ("one label an image", "found (29,)"),
        changed("labels", lambda labels: labels[:-1]),
    ),
    Case(
        "one-hot labels",
        INSPECT,
        ("one label an image", "found (30, 3)"),
        changed("labels", lambda labels: np.eye(3)[labels]),
    ),
    Case(
        "label -7",
        INSPECT,
        ("must lie in 0 to 9999", "found -7 to 2"),
        changed("labels", lambda labels: np.where(labels == 0, -7, labels)),
    ),
    Case(
        "label 1,000,000",
        INSPECT,
        ("must lie in 0 to 9999", "found 0 to 1000000"),
        changed("labels", lambda labels: np.where(labels == 1, 1_000_000, labels)),
    ),
    Case(
        "label 0.5",
        INSPECT,
        ("must hold whole numbers or text", "float64"),
        changed("labels", lambda labels: labels + 0.5),
    ),
    Case(
        "label NaN",
        INSPECT,
        ("must hold whole numbers or text", "float64"),
        changed("labels", lambda labels: np.where(labels == 1, np.nan, labels)),
    ),
    Case(
        "fewer --names than labels",
        f"{INSPECT} --names a,b",
        ("labels go up to 2", "2 class names (a, b)"),
        saved(lambda arrays: None),
    ),
    Case(
        "NaN pixels",
        TRAIN,
        ("30 of 30 images", "NaN or infinity", "max_unreadable"),
        changed("images", lambda images: np.where(images < 9, np.nan, images.astype(np.float32))),
    ),
    Case(
        "float pixels from -3 to 3",
        TRAIN,
        ("30 of 30 images", "found -3", "must be in 0 to 1"),
        changed("images", lambda images: (images / 42.5 - 3).astype(np.float32)),
    ),
    Case(
        "16-bit levels without a scale",
        TRAIN,
        ("30 of 30 images", "no known scale", "save as 8-bit"),
        changed("images", lambda images: images.astype(np.int32) * 70_000),
    ),
    Case("zip bomb: 360 MB of zeros in 360 KB", INSPECT, ("decompression bomb", "refused"), _bomb),
    Case(
        "zip that holds no array",
        INSPECT,
        ("must hold the arrays images and labels", "found no array"),
        _zip({"readme.txt": b"hello"}),
    ),
    Case("text named .npz", INSPECT, ("is not a readable npz file", "not a zip file"), write("cells.npz", "images\n")),
    Case("npz cut off half-way", INSPECT, ("is not a readable npz file",), _truncated),
    Case(
        "compressed npz with 100 bytes zeroed",
        TRAIN,
        ("images.npy is damaged (its checksum is wrong)", "copy the file again"),
        _spoilt_middle,
    ),
    Case(
        "uncompressed npz with one changed byte",
        TRAIN,
        ("images.npy is damaged (its checksum is wrong)", "copy the file again"),
        _spoilt_byte,
    ),
    Case(
        "300 class names, and a label beyond them",
        INSPECT,
        ("labels go up to 300, but there are 300 class names", "(300 in all)"),
        saved(lambda arrays: arrays | {"labels": arrays["labels"] + 298, "class_names": [f"c{i}" for i in range(300)]}),
    ),
    Case(
        "member with a path out of the folder",
        INSPECT,
        ("must hold the arrays images", "found ../../images"),
        _zip({"../../images.npy": _npy(np.zeros(3))}),
    ),
    Case(
        "npz without images, to predict",
        "predict run cells.npz -o out.csv",
        ("must hold the arrays images",),
        saved(lambda arrays: {"labels": arrays["labels"]}),
    ),
)
