"""Folders that are missing, empty, unlabelled or too small, and options that do not fit them."""

from __future__ import annotations

import shutil
from pathlib import Path

from bad_cases.case import CLASSES, PER_CLASS, Case, Ground, copy_cell, ordinary_user, write

TRAIN = "train {path} -o new --config tiny.toml"


def _empty_folder(here: Path, ground: Ground) -> None:
    (here / "empty").mkdir()


def _loose(here: Path, ground: Ground) -> None:
    for index in range(6):
        copy_cell(here, ground, f"pile/{index}.jpg")


def _one_class(here: Path, ground: Ground) -> None:
    shutil.copytree(ground.cells / CLASSES[0], here / "pile" / CLASSES[0])


def _empty_class(here: Path, ground: Ground) -> None:
    (here / "cells" / "monocyte").mkdir()


def _tiny_class(here: Path, ground: Ground) -> None:
    for index in range(2, PER_CLASS):
        (here / "cells" / CLASSES[0] / f"{CLASSES[0]}_{index:05d}.jpg").unlink()


def _copies_only(here: Path, ground: Ground) -> None:
    first = (here / "cells" / CLASSES[0] / f"{CLASSES[0]}_00000.jpg").read_bytes()
    for index in range(1, PER_CLASS):
        (here / "cells" / CLASSES[0] / f"{CLASSES[0]}_{index:05d}.jpg").write_bytes(first)


def _many_unreadable(here: Path, ground: Ground) -> None:
    for index in range(5):
        (here / "cells" / CLASSES[1] / f"{CLASSES[1]}_{index:05d}.jpg").write_bytes(b"")


def _one_unreadable(here: Path, ground: Ground) -> None:
    (here / "cells" / CLASSES[1] / f"{CLASSES[1]}_00000.jpg").write_bytes(b"")


def _forbidden(here: Path, ground: Ground) -> None:
    copy_cell(here, ground, "pile/good.jpg")
    (here / "pile").chmod(0)


def _other_files(here: Path, ground: Ground) -> None:
    write("pile/notes.txt", "none")(here, ground)
    write("pile/scan.ndpi", "none")(here, ground)


def _escape_sequence(here: Path, ground: Ground) -> None:
    write("pile/\x1b[2Jred.jpg", b"")(here, ground)


FOLDERS = (
    Case(
        "path that does not exist", TRAIN.format(path="cellz"), ("cellz does not exist", "check the path"), process=True
    ),
    Case("empty folder", "inspect empty", ("empty holds no image", ".jpg"), _empty_folder),
    Case("folder of other files", "inspect pile", ("pile holds no image", ".jpg"), _other_files),
    Case("folder without permission to read", "inspect pile", ("pile", "ermission"), _forbidden, around=ordinary_user),
    Case(
        "images without a class",
        TRAIN.format(path="pile"),
        ("no image has a label", "one folder a class"),
        _loose,
    ),
    Case("one class only", TRAIN.format(path="pile"), ("of one class, 'lymphocyte'", "training needs two"), _one_class),
    Case(
        "class folder without an image",
        "inspect cells",
        ("class folder 'monocyte' without an image dropped",),
        _empty_class,
        status=0,
        where="stdout",
    ),
    Case(
        "class of 2 images",
        TRAIN.format(path="cells"),
        ("'lymphocyte' (2 images)", "Add images"),
        _tiny_class,
    ),
    Case(
        "class of 10 copies of one image",
        TRAIN.format(path="cells"),
        ("'lymphocyte' (10 images)", "duplicates", "Add images"),
        _copies_only,
    ),
    Case(
        "more unreadable images than allowed",
        TRAIN.format(path="cells"),
        ("5 of 30 images (16.7%)", "At most 5.0% may be", "max_unreadable"),
        _many_unreadable,
    ),
    Case(
        "one unreadable image of 30",
        "train cells -o new --config tiny.toml",
        ("1 of 30 images (3.3%)", "empty (0 bytes)", "left out"),
        _one_unreadable,
        status=0,
        leaves=("new",),
    ),
    Case(
        "file name that would clear the terminal",
        "inspect pile",
        (r"\x1b[2Jred.jpg",),
        _escape_sequence,
        status=0,
        where="stdout",
    ),
    Case(
        "file of no known kind",
        "inspect cells.xlsx",
        ("cells.xlsx is of no known format", "give a folder of images"),
        write("cells.xlsx", "PK"),
    ),
    Case("unknown --format", "inspect cells --format zip", ("unknown format 'zip'", "folder, npz"), status=2),
    Case("--format of another kind", "inspect cells --format npz", ("cells must be a file", "npz")),
    Case(
        "--names without one of the classes",
        "inspect cells --names lymphocytes,neutrophil,platelet",
        ("the class 'lymphocyte'", "did you mean 'lymphocytes'?"),
    ),
    Case("--names with a gap", "inspect cells --names a,,b", ("--names needs names", "such as a,b,c"), status=2),
    Case("--names with a name twice", "inspect cells --names a,b,a", ("found 'a' twice", "once"), status=2),
    Case(
        "--label-pattern without the group",
        "inspect cells --label-pattern [a-z]+",
        ("needs a group named label", "(?P<label>"),
        status=2,
    ),
    Case(
        "--label-pattern that is no pattern",
        "inspect cells --label-pattern (?P<label>[a-z",
        ("is not a regular expression", "(?P<label>"),
        status=2,
    ),
    Case(
        "--label-pattern that no name matches",
        "inspect cells --label-pattern (?P<label>[0-9]+)[.]png",
        ("do not match the label pattern",),
        status=0,
        where="stdout",
    ),
    Case(
        "training with a label pattern that no name matches",
        "train cells -o new --config tiny.toml --set data.label_pattern='(?P<label>XX)'",
        ("no image has a label", "label pattern"),
    ),
)
