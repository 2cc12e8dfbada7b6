"""Words for attributes, the reader of WBCAtt's tables, and which cells may be fitted on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hemascope.cells import CellDataset
from hemascope.errors import DataError, SourceError
from hemascope.morphology import read_wbcatt as reading
from hemascope.morphology.attributes import ATTRIBUTES, describe, words_for
from hemascope.morphology.collect import collect
from hemascope.morphology.read_wbcatt import Annotation, read_table, read_wbcatt

EOSINOPHIL = {
    "cell_size": "big",
    "cell_shape": "round",
    "nucleus_shape": "segmented-bilobed",
    "nuclear_cytoplasmic_ratio": "low",
    "chromatin_density": "densely",
    "cytoplasm_vacuole": "no",
    "cytoplasm_texture": "clear",
    "cytoplasm_colour": "light blue",
    "granule_type": "round",
    "granule_colour": "red",
    "granularity": "yes",
}
MONOCYTE = EOSINOPHIL | {
    "cell_shape": "irregular",
    "nucleus_shape": "unsegmented-indented",
    "chromatin_density": "loosely",
    "cytoplasm_vacuole": "yes",
    "cytoplasm_texture": "frosted",
    "cytoplasm_colour": "purple blue",
    "granule_type": "nil",
    "granule_colour": "nil",
    "granularity": "no",
}
HEADER = ("img_name", "label", *ATTRIBUTES, "path")


def line(image: str, label: str = "Eosinophil", values: dict[str, str] = EOSINOPHIL) -> str:
    return ",".join([image, label, *(values[name] for name in ATTRIBUTES), f"somewhere/{image}"])


def table(path: Path, *lines: str, header: str = ",".join(HEADER)) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def folder(place: Path) -> Path:
    table(place / "v1_train.csv", line("EO_1.jpg"), line("MO_1.jpg", "Monocyte", MONOCYTE))
    table(place / "v1_val.csv", line("EO_2.jpg"))
    table(place / "v1_test.csv", line("EO_3.jpg"))
    return place


def cells_of(ids: list[str], labels: list[int]) -> CellDataset:
    return CellDataset(
        images=np.zeros((len(ids), 2, 2, 3), np.uint8),
        labels=np.array(labels),
        class_names=("Eosinophil", "monocyte", "platelet"),
        ids=ids,
        content_hash=[f"{k:032x}" for k in range(len(ids))],
    )


def test_a_cell_is_described_in_the_order_of_a_report() -> None:
    """Nucleus, chromatin, granules, cytoplasm, ratio, cell come in this order; vacuoles only where there are some."""
    assert describe(EOSINOPHIL) == (
        "bilobed nucleus, dense chromatin, round red granules, clear pale blue cytoplasm, low N:C ratio, "
        "large round cell"
    )
    assert describe(MONOCYTE) == (
        "indented nucleus, loose chromatin, no granules, vacuolated frosted purple-blue cytoplasm, low N:C ratio, "
        "large irregular cell"
    )


def test_every_value_has_words_of_its_own() -> None:
    """Each value alone gives a phrase, no two of one attribute the same, and it is in the description of a cell."""
    for name, attribute in ATTRIBUTES.items():
        words = [words_for(name, value) for value in attribute.values]
        assert all(words) and len(set(words)) == len(words)
        if name not in ("cytoplasm_vacuole", "granularity"):
            for value, said in attribute.words.items():
                assert describe({name: value}) == said
    assert describe({"cytoplasm_vacuole": "yes"}) == "vacuolated cytoplasm"
    assert describe({"cytoplasm_vacuole": "no"}) == ""
    assert describe({"granularity": "yes"}) == "granules"
    assert describe({"granularity": "no"}) == "no granules"
    assert describe({}) == ""


def test_every_cell_of_the_vocabulary_can_be_described() -> None:
    """A thousand random combinations, contradicting ones too, each give words without doubled spaces or commas."""
    rng = np.random.default_rng(0)
    for _ in range(1000):
        said = describe({name: str(rng.choice(each.values)) for name, each in ATTRIBUTES.items()})
        assert said and "  " not in said and ", ," not in said and said.count("granules") == 1


@pytest.mark.parametrize(
    ("kind", "colour", "there", "said"),
    [
        ("coarse", "red", "no", "no granules"),
        ("nil", "red", "yes", "red granules"),
        ("small", "nil", "yes", "fine granules"),
        ("nil", "nil", "yes", "granules"),
    ],
)
def test_granularity_stands_where_attributes_of_granules_contradict(
    kind: str, colour: str, there: str, said: str
) -> None:
    """The three attributes are told apart from each other, so they may clash; the best told one decides."""
    assert describe({"granule_type": kind, "granule_colour": colour, "granularity": there}) == said


def test_unknown_words_are_refused() -> None:
    """An unknown attribute gets the nearest name, an unknown value the list of values."""
    with pytest.raises(DataError, match="did you mean 'cell_size'"):
        describe({"cell_sise": "big"})
    with pytest.raises(DataError, match=r"'huge'; its values are small, big"):
        words_for("cell_size", "huge")


def test_tables_are_read_with_their_parts(tmp_path: Path) -> None:
    """Rows of three files come back by image, with label, part and values; byte-order mark and blank rows pass."""
    path = folder(tmp_path) / "v1_val.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\n\n")
    found = read_wbcatt(tmp_path)
    assert {name: each.part for name, each in found.items()} == {
        "EO_1.jpg": "train",
        "MO_1.jpg": "train",
        "EO_2.jpg": "val",
        "EO_3.jpg": "test",
    }
    assert found["MO_1.jpg"] == Annotation("MO_1.jpg", "Monocyte", "train", MONOCYTE)


@pytest.mark.parametrize(
    ("lines", "header", "sentence"),
    [
        ([line("a.jpg", values=EOSINOPHIL | {"cell_size": "huge"})], None, r"row 2: cell_size is 'huge'.*small, big"),
        ([line("a.jpg"), "a,b"], None, r"row 3: 2 cells where the header has 14"),
        ([line("../a.jpg")], None, r"row 2: img_name must be a file's name"),
        ([line("")], None, r"row 2: img_name must be a file's name, found ''"),
        (['"a'], None, r"is no CSV"),
        ([], None, r"describes no cell"),
        ([line("a.jpg")], "img_name,label", r"one column 'cell_size', found 0"),
        ([line("a.jpg")], ",".join([*HEADER, "label"]), r"one column 'label', found 2"),
    ],
)
def test_malformed_tables_are_refused_in_a_sentence(
    tmp_path: Path, lines: list[str], header: str | None, sentence: str
) -> None:
    """Each fault is a SourceError that names the row and what was found."""
    path = table(tmp_path / "t.csv", *lines, header=header or ",".join(HEADER))
    with pytest.raises(SourceError, match=sentence):
        read_table(path, "train")


def test_files_that_are_no_tables_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, empty, binary and oversized files and a table of too many rows are each one sentence."""
    with pytest.raises(SourceError, match="cannot read"):
        read_table(tmp_path / "none.csv", "train")
    path = tmp_path / "t.csv"
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="is empty"):
        read_table(path, "train")
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(SourceError, match="not UTF-8"):
        read_table(path, "train")
    table(path, line("a.jpg"), line("b.jpg"))
    monkeypatch.setattr(reading, "MAX_ROWS", 1)
    with pytest.raises(SourceError, match="more than 1 rows"):
        read_table(path, "train")
    monkeypatch.setattr(reading, "MAX_BYTES", 10)
    with pytest.raises(SourceError, match="at most 10"):
        read_table(path, "train")


def test_folders_that_lack_or_double_something_are_refused(tmp_path: Path) -> None:
    """No folder, no test part, two of a part and one image described twice."""
    with pytest.raises(SourceError, match="no folder"):
        read_wbcatt(tmp_path / "none")
    folder(tmp_path)
    (tmp_path / "v1_test.csv").rename(tmp_path / "other.csv")
    with pytest.raises(SourceError, match=r"_test\.csv, found none"):
        read_wbcatt(tmp_path)
    table(tmp_path / "v1_test.csv", line("EO_1.jpg"))
    with pytest.raises(SourceError, match=r"EO_1\.jpg is described already, in the part train"):
        read_wbcatt(tmp_path)
    table(tmp_path / "v2_test.csv", line("EO_9.jpg"))
    with pytest.raises(SourceError, match=r"found v1_test\.csv, v2_test\.csv"):
        read_wbcatt(tmp_path)


def test_cells_are_joined_by_file_name_and_the_models_test_part_is_never_fitted(tmp_path: Path) -> None:
    """Values go with the right cells; relabelled cells are left out, absent ones counted, no test cell fitted."""
    found = read_wbcatt(folder(tmp_path))
    more = {
        f"EO_{k}.jpg": Annotation(f"EO_{k}.jpg", "Eosinophil", part, EOSINOPHIL)
        for k, part in ((4, "train"), (5, "train"), (6, "test"), (7, "val"))
    }
    ids = ["p/PL_1.jpg", "m/MO_1.jpg", "e/EO_1.jpg", "e/EO_3.jpg", "e/EO_4.jpg", "e/EO_5.jpg", "e/EO_6.jpg"]
    cells = cells_of(ids, [2, 1, 0, 0, 0, 1, 0])
    parts = np.array(["train", "train", "test", "train", "calibration", "train", "validation"])
    described = collect(cells, parts, found | more)
    assert described.rows.tolist() == [1, 2, 3, 4, 6]
    assert (described.disagreeing, described.missing) == (1, 2)
    assert described.labels.tolist() == [1, 0, 0, 0, 0]
    value = list(ATTRIBUTES).index("granule_colour")
    colours = ATTRIBUTES["granule_colour"].values
    assert [colours[k] for k in described.values[:, value]] == ["nil", "red", "red", "red", "red"]
    assert described.fit.tolist() == [True, False, False, False, False]
    assert described.choose.tolist() == [False, False, False, True, False]
    assert described.cut.tolist() == [False, False, False, True, True]
    assert described.published_test.tolist() == [False, False, True, False, True]
    assert described.clean_test.tolist() == [False, True, False, False, False]
    assert not (described.clean_test & (described.fit | described.choose | described.cut)).any()


def test_joining_refuses_what_is_ambiguous_or_empty(tmp_path: Path) -> None:
    """Two cells of one file name, a part missing for a cell, and a set without described cells."""
    found = read_wbcatt(folder(tmp_path))
    with pytest.raises(DataError, match=r"two cells have the file name EO_1\.jpg"):
        collect(cells_of(["a/EO_1.jpg", "b/EO_1.jpg"], [0, 0]), np.array(["train", "test"]), found)
    with pytest.raises(DataError, match="a part for each of 1 cells"):
        collect(cells_of(["a/EO_1.jpg"], [0]), np.array(["train", "test"]), found)
    with pytest.raises(DataError, match="none of the cells is described"):
        collect(cells_of(["a/x.jpg"], [0]), np.array(["train"]), found)
