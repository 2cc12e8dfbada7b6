"""The synthetic cells: seeded, one class a shape, learnable, safely written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hemascope.cells import CellDataset
from hemascope.data.synthetic import SYNTHETIC_CLASSES, render_cell, render_cells, write_synthetic_folder
from hemascope.data.synthetic_morphology import plan_cell
from hemascope.errors import OutputError, UsageError
from hemascope.progress import SilentProgress


class Counted(SilentProgress):
    """Adds up what was reported."""

    def __init__(self) -> None:
        self.total = self.done = 0

    @contextmanager
    def _counting(self) -> Iterator[Any]:
        def advance(count: int) -> None:
            self.done += count

        yield advance

    def task(self, title: str, total: int, unit: str) -> Any:
        self.total = total
        return self._counting()


@pytest.fixture(scope="module")
def cells() -> CellDataset:
    return render_cells(24, size=64, seed=5)


def centres(images: np.ndarray) -> np.ndarray:
    side = images.shape[1]
    return images[:, side // 3 : -side // 3, side // 3 : -side // 3].reshape(len(images), -1, 3).astype(float)


def test_classes_are_the_eight_in_order() -> None:
    """The class order is part of the interface: labels are indices into it."""
    assert SYNTHETIC_CLASSES == (
        "basophil",
        "eosinophil",
        "erythroblast",
        "ig",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    )


@pytest.mark.parametrize("name", SYNTHETIC_CLASSES)
def test_same_seed_same_pixels(name: str) -> None:
    """A seed fixes every pixel, another seed changes the picture, and the array is RGB bytes of the size asked for."""
    first, again, other = (render_cell(name, size=48, seed=s) for s in (7, 7, 8))
    assert first.shape == (48, 48, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_int_seed_equals_its_seed_sequence() -> None:
    """A whole number and the SeedSequence made from it are the same seed, and using a sequence does not spend it."""
    sequence = np.random.SeedSequence(11)
    by_sequence = [render_cell("monocyte", size=40, seed=sequence) for _ in range(2)]
    assert np.array_equal(by_sequence[0], by_sequence[1])
    assert np.array_equal(by_sequence[0], render_cell("monocyte", size=40, seed=11))


@pytest.mark.parametrize("name", SYNTHETIC_CLASSES)
def test_same_cell_at_every_size(name: str) -> None:
    """A seed gives one cell, finer or coarser: the large picture made small is nearly the small picture."""
    small, large = render_cell(name, size=52, seed=3), render_cell(name, size=208, seed=3)
    reduced = np.asarray(Image.fromarray(large).resize((52, 52), Image.Resampling.BOX), dtype=float)
    other = render_cell(name, size=52, seed=4).astype(float)
    same, different = np.abs(reduced - small).mean(), np.abs(reduced - other).mean()
    assert same < 8
    assert same < different / 2


def test_image_depends_on_seed_class_and_index_alone(cells: CellDataset) -> None:
    """A small set, even of one class, is found again inside a larger one."""
    few = render_cells({"monocyte": 3}, size=64, seed=5)
    start = SYNTHETIC_CLASSES.index("monocyte") * 24
    assert np.array_equal(few.images, cells.images[start : start + 3])
    assert list(few.ids) == list(cells.ids[start : start + 3]) == [f"synthetic/monocyte/{i}" for i in range(3)]
    assert list(few.content_hash) == list(cells.content_hash[start : start + 3])
    assert not np.array_equal(few.images, render_cells({"monocyte": 3}, size=64, seed=6).images)


def test_dataset_is_described(cells: CellDataset) -> None:
    """Labels, names, sizes and origin are those of what was rendered, and no two images are alike."""
    assert cells.images.shape == (192, 64, 64, 3)
    assert cells.class_names == SYNTHETIC_CLASSES
    assert cells.class_counts().tolist() == [24] * 8
    assert cells.labels.dtype == np.int64
    assert all(name.split("/")[1] == SYNTHETIC_CLASSES[k] for name, k in zip(cells.ids, cells.labels, strict=True))
    assert cells.original_size is not None and (cells.original_size == 64).all()
    assert "seed 5" in cells.source
    assert len(set(cells.content_hash)) == len(set(cells.ids)) == 192


def test_content_hash_is_over_shape_and_pixels(cells: CellDataset) -> None:
    """The hash is BLAKE2b of 16 bytes over shape and pixels, so it can be computed again anywhere."""
    expected = hashlib.blake2b(b"(64, 64, 3)" + cells.images[40].tobytes(), digest_size=16).hexdigest()
    assert cells.content_hash[40] == expected


def test_counts_per_class() -> None:
    """A mapping asks for some classes; the names of all eight stay, so labels mean the same in every set."""
    some = render_cells({"platelet": 2, "basophil": 1, "ig": 0}, size=32)
    assert some.class_counts().tolist() == [1, 0, 0, 0, 0, 0, 0, 2]
    assert some.class_names == SYNTHETIC_CLASSES


def test_progress_is_told() -> None:
    """Every image is reported once."""
    progress = Counted()
    render_cells(2, size=24, progress=progress)
    assert (progress.total, progress.done) == (16, 16)


def test_cells_look_like_their_class(cells: CellDataset) -> None:
    """Eosinophils are the reddest, basophils the darkest granulocytes, platelets leave most of the field pale."""
    middle = centres(cells.images).mean(1)
    colour = {name: middle[cells.labels == k].mean(0) for k, name in enumerate(SYNTHETIC_CLASSES)}
    red = {name: value[0] - value[2] for name, value in colour.items() if name != "platelet"}
    assert max(red, key=red.__getitem__) == "eosinophil"
    assert colour["basophil"].sum() < colour["ig"].sum() < colour["neutrophil"].sum()
    dark = (cells.images[..., 1] < 110).mean((1, 2))
    share = {name: dark[cells.labels == k].mean() for k, name in enumerate(SYNTHETIC_CLASSES)}
    assert min(share, key=share.__getitem__) == "platelet"
    assert share["platelet"] < 0.1 < share["monocyte"]


def test_plans_follow_the_textbook() -> None:
    """Sizes and nuclei of the plans are in the order of a textbook: platelets tiny and without a nucleus, monocytes
    the largest, a lymphocyte's nucleus nearly filling it."""
    rng = np.random.default_rng(0)
    plans = {name: [plan_cell(name, rng) for _ in range(60)] for name in SYNTHETIC_CLASSES}
    radius = {name: np.mean([plan.radius for plan in some]) for name, some in plans.items()}
    assert radius["platelet"] < radius["erythroblast"] < radius["neutrophil"] < radius["monocyte"]
    assert radius["lymphocyte"] < radius["neutrophil"]
    assert all((plan.nucleus is None) == (name == "platelet") for name, some in plans.items() for plan in some)
    assert len({len(plan.nucleus.segments) for plan in plans["neutrophil"] if plan.nucleus}) >= 4


def test_learnable_but_not_by_colour_alone() -> None:
    """The mean colour tells fewer than 7 in 10 cells, pixels tell clearly more: there is something to learn."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score

    some = render_cells(70, size=48, seed=2)
    test = np.arange(len(some)) % 70 >= 45
    pixels = some.images.reshape(len(some), 12, 4, 12, 4, 3).mean((2, 4)).reshape(len(some), -1) / 255
    colour = pixels.reshape(len(some), -1, 3).mean(1)
    colour = (colour - colour.mean(0)) / colour.std(0)

    def score(model: Any, features: np.ndarray) -> float:
        model.fit(features[~test], some.labels[~test])
        return float(balanced_accuracy_score(some.labels[test], model.predict(features[test])))

    by_colour = score(LogisticRegression(max_iter=300), colour)
    by_pixels = score(ExtraTreesClassifier(100, random_state=0), pixels)
    assert by_colour < 0.7
    assert by_pixels > by_colour + 0.1
    assert by_pixels > 0.5


@pytest.mark.parametrize("size", [16, 33])
def test_small_and_odd_sizes(size: int) -> None:
    """The smallest and an odd size render, with contrast."""
    for name in SYNTHETIC_CLASSES:
        image = render_cell(name, size=size, seed=1)
        assert image.shape == (size, size, 3)
        assert np.ptp(image) > 60


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: render_cell("neutrophile", size=32, seed=0), "'neutrophile'; the classes are basophil"),
        (lambda: render_cell("monocyte", size=15, seed=0), "size must be 16 to 2048, found 15"),
        (lambda: render_cell("monocyte", size=4096, seed=0), "size must be 16 to 2048, found 4096"),
        (lambda: render_cell("monocyte", size=96.0, seed=0), "size must be a whole number, found 96.0"),  # type: ignore[arg-type]
        (lambda: render_cell("monocyte", seed=-1), "seed must be at least 0, found -1"),
        (lambda: render_cells(0), "no synthetic image was asked for"),
        (lambda: render_cells({}), "no synthetic image was asked for"),
        (lambda: render_cells(-2), "number of basophil images must be at least 0, found -2"),
        (lambda: render_cells(True), "number of basophil images must be a whole number, found True"),
        (lambda: render_cells({"ig": 1.5}), "number of ig images must be a whole number, found 1.5"),  # type: ignore[dict-item]
        (lambda: render_cells({"igg": 1}), "no synthetic class is called 'igg'"),
        (lambda: render_cells(1, seed=-3), "seed must be at least 0, found -3"),
        (lambda: render_cells(1, size=3), "size must be 16 to 2048, found 3"),
    ],
)
def test_bad_calls_are_answered(call: Any, says: str) -> None:
    """A wrong class, size, seed or count is answered with a sentence that names the value and the limits."""
    with pytest.raises(UsageError) as error:
        call()
    assert says in str(error.value)


def test_folder_holds_the_rendered_cells(tmp_path: Path) -> None:
    """A folder per class of JPEGs that show, but for compression, what render_cells gives for the same seed."""
    path = write_synthetic_folder(tmp_path / "new" / "cells", {"ig": 2, "platelet": 1}, size=64, seed=5)
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    assert files == ["ig/ig_00000.jpg", "ig/ig_00001.jpg", "platelet/platelet_00000.jpg"]
    assert sorted(p.name for p in path.parent.iterdir()) == ["cells"]
    same = render_cells({"ig": 2}, size=64, seed=5).images[1]
    with Image.open(path / "ig" / "ig_00001.jpg") as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))
        assert np.abs(np.asarray(image, dtype=float) - same).mean() < 4


def test_folder_in_use_is_refused(tmp_path: Path) -> None:
    """A folder that holds something, or a file, is left as it is; an empty folder is filled."""
    (tmp_path / "mine.txt").write_text("keep")
    for taken in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(OutputError, match="already holds something"):
            write_synthetic_folder(taken, 1, size=16)
    assert (tmp_path / "mine.txt").read_text() == "keep"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert len(list(write_synthetic_folder(empty, 1, size=16).rglob("*.jpg"))) == 8


def test_bad_folder_calls_write_nothing(tmp_path: Path) -> None:
    """A bad quality, count or seed is found before anything is written."""
    for wrong in ({"quality": 0}, {"seed": -1}, {"per_class": 0}, {"size": 1}):
        with pytest.raises(UsageError):
            write_synthetic_folder(tmp_path / "x", **{"per_class": 1, "size": 16, **wrong})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_interrupted_folder_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up half-way ends in an OutputError and leaves no half-written folder."""
    calls = []
    save = Image.Image.save

    def full(self: Image.Image, target: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(target, Path):
            calls.append(target)
            if len(calls) == 3:
                raise OSError(28, "No space left on device")
        save(self, target, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        write_synthetic_folder(tmp_path / "cells", 1, size=16)
    assert list(tmp_path.iterdir()) == []
