"""Similar training cells: the nearest ones, by angle, with their names, labels and pictures."""

from __future__ import annotations

import copy
import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_setup import features_stage, tiny_config

from hemascope import workflow
from hemascope.assessment import Assessor
from hemascope.data.splits import load_splits
from hemascope.data.synthetic import write_synthetic_folder
from hemascope.errors import BundleError, DataError, OutputError, SourceError, UsageError
from hemascope.models.bundle import load_bundle
from hemascope.similar import KnownCells, agreement
from hemascope.workflow.finding_similar import similar
from hemascope.workflow.model_making import make_soup

_TINY = tiny_config(features_stage(epochs=10))
CONFIG = _TINY.model_copy(update={"data": _TINY.data.model_copy(update={"calibration": 0.2})})


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_folder(tmp_path_factory.mktemp("data") / "cells", 20, size=48)


@pytest.fixture(scope="module")
def run(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return workflow.train(cells, CONFIG, output=tmp_path_factory.mktemp("runs") / "first")


def known(vectors: list[list[float]], labels: list[int]) -> KnownCells:
    return KnownCells(
        [f"cell{k}" for k in range(len(vectors))], np.array(labels), np.array(vectors, np.float32), ("a", "b")
    )


def test_neighbours_are_by_angle_and_nearest_first() -> None:
    """A vector's length does not matter; distances are 1 minus the cosine; ties keep their order."""
    cells = known([[1, 0], [0, 2], [1, 1], [5, 0]], [0, 1, -1, 0])
    found = cells.nearest(np.array([[3, 0]], np.float32), 4)
    assert found.rows.tolist() == [[0, 3, 2, 1]]
    np.testing.assert_allclose(found.distances, [[0, 0, 1 - np.sqrt(0.5), 1]], atol=1e-6)
    assert [cells.label(row) for row in found.rows[0]] == ["a", "a", "", "b"]
    assert agreement(cells, found.rows[0], 0) == 2


def test_more_neighbours_than_cells_are_all_cells() -> None:
    """k beyond the number known gives them all; below 1 it is refused; no query gives no rows."""
    cells = known([[1, 0], [0, 1]], [0, 1])
    assert cells.nearest(np.ones((1, 2), np.float32), 9).rows.shape == (1, 2)
    assert cells.nearest(np.zeros((0, 2), np.float32), 1).rows.shape == (0, 1)
    with pytest.raises(UsageError, match="at least 1"):
        cells.nearest(np.ones((1, 2), np.float32), 0)


def test_a_training_cell_is_its_own_nearest(run: Any, cells: Path) -> None:
    """Asked for a cell of the training part, the model finds that very file first, at a distance of nearly 0."""
    from hemascope.data.load import load

    splits = load_splits(run.folder / "splits.json", load(cells, preparation=CONFIG.data.preparation))
    loaded = load(cells, preparation=CONFIG.data.preparation)
    names = [str(loaded.ids[row]) for row in splits.indices("train")[:6]]
    found = similar(run.folder, [cells / name for name in names], k=3)
    assert [found.known.ids[row] for row in found.neighbours.rows[:, 0]] == names
    assert (found.neighbours.distances[:, 0] < 1e-3).all()
    assert (np.diff(found.neighbours.distances, axis=1) >= 0).all()


def test_no_cell_of_another_part_is_known(run: Any, cells: Path) -> None:
    """What is compared with is the training part and nothing of the test part."""
    from hemascope.data.load import load

    loaded = load(cells, preparation=CONFIG.data.preparation)
    splits = load_splits(run.folder / "splits.json", loaded)
    found = similar(run.folder, [cells], k=1)
    assert set(found.known.ids) == {str(loaded.ids[row]) for row in splits.indices("train")}


def test_table_and_pictures_are_written(run: Any, cells: Path, tmp_path: Path) -> None:
    """A row for each neighbour with name, label and distance; the sheet shows their pictures; a broken file is told."""
    image = sorted(cells.rglob("*.[pj][np]g"))[0]
    (tmp_path / "broken.png").write_bytes(b"x")
    found = similar(run.folder, [image, tmp_path / "broken.png"], k=4, data=cells, output=tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "similar.csv").open()))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert {row["similar_to"] for row in rows} <= set(found.known.ids)
    assert found.errors[1] and found.named[1] == -1
    sheet = np.asarray(Image.open(tmp_path / "out" / "similar.png"))
    assert sheet.shape[1] > 5 * 96
    with pytest.raises(OutputError):
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken" / "mine.txt").write_text("mine")
        similar(run.folder, [image], output=tmp_path / "taken")


def test_what_cannot_be_compared_is_said(run: Any, cells: Path, tmp_path: Path) -> None:
    """A model without calibration, other cells, unreadable images alone, a path that is not there."""
    image = sorted(cells.rglob("*.[pj][np]g"))[0]
    make_soup([run.folder, run.folder], tmp_path / "soup")
    with pytest.raises(BundleError, match="never calibrated"):
        similar(tmp_path / "soup", [image])
    other = tmp_path / "other"
    for name in ("a", "b"):
        (other / name).mkdir(parents=True)
        Image.new("RGB", (48, 48)).save(other / name / f"{name}.png")
    with pytest.raises(DataError, match="none of the model's training cells"):
        similar(run.folder, [image], data=other, output=tmp_path / "out")
    (tmp_path / "broken.png").write_bytes(b"x")
    with pytest.raises(DataError, match="none of the 1 images could be read"):
        similar(run.folder, [tmp_path / "broken.png"])
    with pytest.raises(SourceError):
        similar(run.folder, [tmp_path / "nowhere.png"])


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("bank_rows", lambda rows: rows.astype(np.float32), "do not fit their names"),
        ("bank_rows", lambda rows: rows + 1000, "do not fit their names"),
        ("bank_rows", lambda rows: rows[:-1], "do not fit their names"),
        ("bank_labels", lambda labels: labels + 8, "classes that the model does not know"),
    ],
)
def test_damaged_training_cells_are_a_sentence(run: Any, name: str, change: Any, said: str) -> None:
    """Places that are no whole numbers, lead nowhere or are too few, and classes that are not there, are refused."""
    parts = load_bundle(run.folder).trust
    assert parts is not None
    arrays = {**parts.arrays, name: change(parts.arrays[name])}
    names = load_bundle(run.folder).class_names
    with pytest.raises(BundleError, match=said):
        Assessor(names, parts.record, arrays).known_cells()


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(doubt_cut=float("nan")),
        lambda record: record.update(temperature=float("inf")),
        lambda record: record["detector"].update(classes=5),
    ],
)
def test_a_record_of_no_numbers_or_other_classes_is_a_sentence(run: Any, change: Any) -> None:
    """A line for doubt that is no number, an infinite temperature, and a detector for other classes are refused."""
    bundle = load_bundle(run.folder)
    parts = bundle.trust
    assert parts is not None
    record = copy.deepcopy(dict(parts.record))
    change(record)
    with pytest.raises(BundleError):
        Assessor(bundle.class_names, record, parts.arrays)


def test_a_calibration_of_another_network_is_a_sentence(run: Any) -> None:
    """Features or stages of another number than it was fitted for are refused before anything is predicted."""
    bundle = load_bundle(run.folder)
    parts = bundle.trust
    assert parts is not None
    assessor = Assessor(bundle.class_names, parts.record, parts.arrays)
    width, early = assessor.detector.record.width, assessor.detector.record.early_width
    assessor.check_widths(width, early)
    for features, stages in ((width + 1, early), (width, early - 1)):
        with pytest.raises(BundleError, match=f"is for {width} features"):
            assessor.check_widths(features, stages)
