"""WBCAtt's tables: which file of which class has which value of each attribute.

One CSV a part (names ending in ``_train.csv``, ``_val.csv``, ``_test.csv``), with a column ``img_name``, one ``label``
and one for each attribute.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hemascope.errors import SourceError
from hemascope.morphology.attributes import ATTRIBUTES
from hemascope.names import listed

PARTS = ("train", "val", "test")
MAX_BYTES = 64 * 2**20
MAX_ROWS = 1_000_000
_NEEDED = ("img_name", "label", *ATTRIBUTES)


@dataclass(frozen=True)
class Annotation:
    """One described cell.

    image   its file's name, without folders
    label   its class, as written
    part    one of PARTS: the authors' own split
    values  the value of each of ATTRIBUTES, by name
    """

    image: str
    label: str
    part: str
    values: Mapping[str, str]


def read_wbcatt(folder: str | Path) -> dict[str, Annotation]:
    """The annotations in a folder, by the name of the image.

    Raises SourceError where a part is missing or there are two of it, an image is described twice, or a file cannot be
    read; see ``read_table``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}; give the one with WBCAtt's CSV files")
    annotations: dict[str, Annotation] = {}
    for part in PARTS:
        files = sorted(folder.glob(f"*_{part}.csv"))
        if len(files) != 1:
            found = "none" if not files else listed([file.name for file in files])
            raise SourceError(f"{folder} must hold one file whose name ends in _{part}.csv, found {found}")
        for annotation in read_table(files[0], part):
            if annotation.image in annotations:
                other = annotations[annotation.image].part
                raise SourceError(f"{files[0]}: {annotation.image} is described already, in the part {other}")
            annotations[annotation.image] = annotation
    return annotations


def read_table(path: str | Path, part: str) -> list[Annotation]:
    """The rows of one file, UTF-8 with or without a mark of byte order. Other columns are not looked at.

    Raises SourceError, with the row where there is one: no such file, too large, not UTF-8, no CSV, a column missing
    or named twice, a row of another length, an image without a name, or a value that is not in the vocabulary.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SourceError(f"{path} has {size:,} bytes; a table of attributes has at most {MAX_BYTES:,}")
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _rows(csv.reader(file, strict=True), path, part)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}; check the path") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not UTF-8 text; save it again as CSV UTF-8") from None
    except csv.Error as error:
        raise SourceError(f"{path} is no CSV: {error}; download it again") from None


def _rows(reader: Iterator[list[str]], path: Path, part: str) -> list[Annotation]:
    header = next(reader, None)
    if header is None:
        raise SourceError(f"{path} is empty; a table of attributes begins with a row of column names")
    for name in _NEEDED:
        if header.count(name) != 1:
            raise SourceError(f"{path} must have one column {name!r}, found {header.count(name)}")
    places = {name: header.index(name) for name in _NEEDED}
    found: list[Annotation] = []
    for number, row in enumerate(reader, 2):
        if not any(row):
            continue
        if len(row) != len(header):
            raise SourceError(f"{path}, row {number}: {len(row)} cells where the header has {len(header)} columns")
        if len(found) >= MAX_ROWS:
            raise SourceError(f"{path} has more than {MAX_ROWS:,} rows; it is no table of attributes")
        cells = {name: row[place].strip() for name, place in places.items()}
        image, label = cells.pop("img_name"), cells.pop("label")
        if not image or "/" in image or "\\" in image:
            raise SourceError(f"{path}, row {number}: img_name must be a file's name, found {image[:80]!r}")
        for name, value in cells.items():
            if value not in ATTRIBUTES[name].words:
                raise SourceError(
                    f"{path}, row {number}: {name} is {value[:80]!r}; it must be one of "
                    f"{listed(ATTRIBUTES[name].values)}"
                )
        found.append(Annotation(image, label, part, cells))
    if not found:
        raise SourceError(f"{path} describes no cell")
    return found
