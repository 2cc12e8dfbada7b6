"""Measures of the originals and the checks of quality: planted faults are found, good images are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from hemascope import load, render_cells
from hemascope.audit.material import Material, Measures
from hemascope.audit.measure import measure, measure_prepared
from hemascope.audit.quality import check_quality
from hemascope.audit.statistics import describe_statistics
from hemascope.cells import CellDataset, Unreadable
from hemascope.embeddings import Embeddings
from hemascope.errors import DataError, OutputError
from hemascope.findings import CHECKS, CheckResult

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def good() -> CellDataset:
    return render_cells(12, size=128, seed=5)


@pytest.fixture
def folder(good: CellDataset, tmp_path: Path) -> Path:
    """Three classes of four JPEG files of 128 x 128."""
    for row, image in enumerate(good.images[:12]):
        file = tmp_path / "cells" / f"class{row % 3}" / f"{row}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file, quality=90)
    return tmp_path / "cells"


def material(cells: CellDataset, measures: Measures | None = None) -> Material:
    vectors = np.zeros((len(cells), 2), dtype=np.float16)
    return Material(cells, measures or measure_prepared(cells), Embeddings(vectors, [], "none"))


def checked(cells: CellDataset, measures: Measures | None = None) -> dict[str, CheckResult]:
    return {result.check: result for result in check_quality(material(cells, measures))}


def planted(good: CellDataset, fault: Callable[[Pixels], Pixels]) -> CellDataset:
    """``good`` with its first three images spoilt."""
    images = good.images.copy()
    for row in range(3):
        images[row] = fault(images[row])
    return replace(good, images=images)


def blur(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(3 * 128 / 96)))


def patch(pixels: Pixels) -> Pixels:
    return (pixels.mean((0, 1)) + (pixels - pixels.mean((0, 1))) * 0.05).astype(np.uint8)


FAULTS: dict[str, tuple[str, Callable[[Pixels], Pixels]]] = {
    "constant": ("blank", lambda pixels: np.full_like(pixels, 150)),
    "black": ("blank", np.zeros_like),
    "underexposed": ("dark", lambda pixels: (pixels * 0.25).astype(np.uint8)),
    "washed out": ("bright", lambda pixels: (255 - (255 - pixels) * 0.15).astype(np.uint8)),
    "out of focus": ("blurred", blur),
    "hardly stained": ("low_information", patch),
    "without colour": ("odd_mode", lambda pixels: np.repeat(pixels.mean(2, keepdims=True), 3, 2).astype(np.uint8)),
}


def test_good_cells_have_no_finding(good: CellDataset) -> None:
    """None of the nine checks finds anything in clean cells, and each says how its cut was found."""
    results = checked(good)
    assert list(results) == list(CHECKS)[:9]
    assert all(result.passed and result.cut_rule for result in results.values())
    assert all(result.scores is not None and len(result.scores) == len(good) for result in results.values())


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found(good: CellDataset, name: str) -> None:
    """Each fault is found by its own check, in the spoilt images and in no other."""
    check, fault = FAULTS[name]
    result = checked(planted(good, fault))[check]
    assert sorted(finding.id for finding in result.findings) == sorted(good.ids[:3])
    assert {finding.suggestion for finding in result.findings} == {"drop" if check == "blank" else "review"}
    assert all(finding.score <= (result.cut or 0) for finding in result.findings)


def test_saturated_images_are_found_among_others(good: CellDataset) -> None:
    """An image whose background is burnt out is too bright where the others' is not, though its cell is dark."""
    dimmed = replace(good, images=(good.images * 0.9).astype(np.uint8))
    result = checked(planted(dimmed, lambda pixels: np.clip(pixels * 1.6, 0, 255).astype(np.uint8)))["bright"]
    assert {finding.id for finding in result.findings} == set(good.ids[:3])


def test_a_set_that_is_soft_throughout_is_not_called_blurred(good: CellDataset) -> None:
    """Sharpness is also judged against the set: where all images are soft, none stands out."""
    soft = replace(good, images=np.stack([blur(image) for image in good.images]))
    assert checked(soft)["blurred"].passed


def test_two_usual_sizes_are_not_odd_and_a_thumbnail_is(good: CellDataset) -> None:
    """Sizes a fifth of the images share are the set's own; one far from all of them is a finding."""
    size = np.full((len(good), 2), 208, dtype=np.int32)
    size[::3] = 360
    size[1] = 216
    size[2] = 70
    size[4] = 208, 90
    results = checked(replace(good, original_size=size))
    assert [finding.id for finding in results["odd_size"].findings] == [good.ids[2]]
    assert [finding.id for finding in results["odd_aspect"].findings] == [good.ids[4]]


def test_sizes_that_vary_by_nature_are_not_odd(good: CellDataset) -> None:
    """Where cells were cut by their boxes, the set's own spread of sizes sets the cut."""
    rng = np.random.default_rng(0)
    side = np.rint(100 * np.exp(rng.uniform(-0.9, 0.9, len(good)))).astype(np.int32)
    assert checked(replace(good, original_size=np.stack([side, side], axis=1)))["odd_size"].passed


def test_unreadable_images_are_findings_without_a_hash(good: CellDataset) -> None:
    """What was left out while reading is a finding to drop, with the reason."""
    result = checked(replace(good, unreadable=(Unreadable("a/broken.jpg", "the file is empty (0 bytes)"),)))[
        "unreadable"
    ]
    (finding,) = result.findings
    assert (finding.id, finding.content_hash, finding.score, finding.suggestion) == ("a/broken.jpg", "", 0.0, "drop")
    assert "empty" in finding.why


def test_a_set_without_a_readable_image_is_not_called_clean(good: CellDataset) -> None:
    """With nothing to look at, the checks of pixels are not applicable rather than passed."""
    results = checked(good.subset(np.arange(0)))
    assert not any(result.passed for check, result in results.items() if check != "unreadable")


def test_originals_are_measured_and_kept(folder: Path, tmp_path: Path) -> None:
    """The measures are of the files, in the order of the cells; a second call reads the cache and says the same."""
    (folder / "class0" / "broken.jpg").write_bytes(b"no image")
    cells = load(folder, cache_dir=tmp_path / "cache", max_unreadable=0.2)
    first = measure(folder, cells, cache_dir=tmp_path / "cache")
    assert set(first.format) == {"JPEG"} and set(first.mode) == {"RGB"} and (first.size == 128).all()
    assert first.file_bytes.tolist() == [(folder / name).stat().st_size for name in cells.ids]
    assert all(len(digest) == 32 for digest in first.file_hash) and first.metadata[0].startswith("quantisation")
    kept = list((tmp_path / "cache" / "measures").iterdir())
    changed = kept[0].stat().st_mtime_ns
    second = measure(folder, cells, cache_dir=tmp_path / "cache")
    assert kept[0].stat().st_mtime_ns == changed
    for name, value in vars(first).items():
        assert np.array_equal(value, getattr(second, name)), name


def test_a_damaged_cache_is_made_again(folder: Path, tmp_path: Path) -> None:
    """Bytes that are no table in the cache's place cost another pass, not an error."""
    cells = load(folder, cache_dir=tmp_path / "cache")
    first = measure(folder, cells, cache_dir=tmp_path / "cache")
    (kept,) = (tmp_path / "cache" / "measures").iterdir()
    kept.write_bytes(b"not a table")
    assert np.array_equal(measure(folder, cells, cache_dir=tmp_path / "cache").brightness, first.brightness)


def test_rows_follow_the_cells(folder: Path, tmp_path: Path) -> None:
    """Cells in another order than the source, and only some of them, get their own rows."""
    cells = load(folder, cache_dir=tmp_path / "cache")
    whole = measure(folder, cells, cache_dir=tmp_path / "cache")
    rows = np.array([7, 2, 9])
    part = measure(folder, cells.subset(rows), cache_dir=tmp_path / "cache")
    assert part.file_hash == [whole.file_hash[row] for row in rows]
    assert np.array_equal(part.colour, whole.colour[rows])


def test_cells_of_other_data_are_refused(folder: Path, good: CellDataset, tmp_path: Path) -> None:
    """Measuring a place the cells are not from says so in a sentence."""
    with pytest.raises(DataError, match="is not in"):
        measure(folder, good, cache_dir=tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_said(folder: Path, tmp_path: Path) -> None:
    """The error names HEMASCOPE_CACHE, which is what a person can change."""
    cells = load(folder, cache_dir=tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(OutputError, match="HEMASCOPE_CACHE"):
        measure(folder, cells, cache_dir=tmp_path / "cache")


def test_sharpness_compares_between_sizes(good: CellDataset) -> None:
    """The same cells stored at twice the size are as sharp, for they are measured at one size."""
    large = np.stack([np.asarray(Image.fromarray(image).resize((256, 256))) for image in good.images])
    small = measure_prepared(good).sharpness
    assert np.allclose(measure_prepared(replace(good, images=large)).sharpness, small, rtol=0.35)


def test_statistics_flag_the_source_that_stands_apart(good: CellDataset) -> None:
    """A slide stained far more strongly is flagged in its own line, and no other slide is; the record is JSON."""
    slides = np.array([f"slide{row % 4}" for row in range(len(good))])
    images = good.images.copy()
    images[slides == "slide2"] = (images[slides == "slide2"] * 0.5).astype(np.uint8)
    found = describe_statistics(material(replace(good, images=images, groups=slides)))
    flags = {name: group["flag"] for name, group in found["stain_h"]["by_source"].items()}
    assert flags == {"slide0": "", "slide1": "", "slide2": "high", "slide3": ""}
    assert set(found["sharpness"]["by_class"]) == set(good.class_names)
    json.dumps(found, allow_nan=False)
