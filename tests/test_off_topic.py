"""Off-topic images: made faults, shared pictures, distance; and what must be left alone."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hemascope import render_cells
from hemascope.audit.exposure_detector import beyond, unlikeness
from hemascope.audit.exposures import KINDS, foreign_picture, make_exposures
from hemascope.audit.material import Material
from hemascope.audit.measure import measure_prepared
from hemascope.audit.off_topic import check_off_topic
from hemascope.audit.repeated_picture import fine_structure, repeated_picture
from hemascope.cells import CellDataset
from hemascope.embeddings import Embeddings, Level
from hemascope.errors import UsageError

SIDE = 48


class Thumbnails:
    """Stands in for a network: blocks of pixels and how much they vary. Fast, and blind to nothing planted here."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        blocks = images.astype(np.float32).reshape(len(images), 8, SIDE // 8, 8, SIDE // 8, 3)
        means, spreads = blocks.mean((2, 4)), blocks.std((2, 4))
        return np.concatenate([means.reshape(len(images), -1), spreads.reshape(len(images), -1)], 1).astype(np.float16)


def material_of(images: np.ndarray, labels: np.ndarray | None = None, **traits: Any) -> Material:
    count = len(images)
    cells = CellDataset(
        images=images,
        labels=np.zeros(count, np.int64) if labels is None else labels,
        class_names=("a", "b"),
        ids=[f"{i}.png" for i in range(count)],
        # In no order: what is found must not depend on how hashes sort.
        content_hash=traits.pop(
            "content_hash", [hashlib.md5(bytes([i % 256, i // 256])).hexdigest() for i in range(count)]
        ),
    )
    vectors = Thumbnails()(images)
    embeddings = Embeddings(vectors, [Level("final", 0, vectors.shape[1])], "thumbnails")
    embedder: Any = Thumbnails()
    return Material(cells, measure_prepared(cells), embeddings, traits.pop("embedder", embedder))


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    return render_cells({"lymphocyte": 150, "neutrophil": 150}, size=SIDE, seed=11).images


def test_every_kind_of_exposure_differs_from_the_cells_and_is_seeded(cells: np.ndarray) -> None:
    """The same seed makes the same faults, another seed others, and none is a cell as it was."""
    for kind in KINDS:
        made = make_exposures(kind, cells, 6, seed=1)
        assert made.shape == (6, SIDE, SIDE, 3)
        np.testing.assert_array_equal(made, make_exposures(kind, cells, 6, seed=1))
        assert not np.array_equal(made, make_exposures(kind, cells, 6, seed=2))
        originals = {cell.tobytes() for cell in cells}
        assert not any(image.tobytes() in originals for image in made), kind
    with pytest.raises(UsageError, match="no kind 'ghosts' of exposure; the kinds are overlay"):
        make_exposures("ghosts", cells, 1, seed=0)


def test_overlays_and_foreign_pictures_are_found_and_cells_left_alone(cells: np.ndarray) -> None:
    """Of 300 cells, 15 lie under pictures of their own: they rank first, most are found, hardly any other is."""
    rng = np.random.default_rng(5)
    images = cells.copy()
    for index in range(15):
        picture = foreign_picture(SIDE, rng).astype(float)
        images[index] = (0.45 * images[index] + 0.55 * picture).astype(np.uint8)
    result, _ = check_off_topic(material_of(images))
    dropped = {int(finding.id.split(".")[0]) for finding in result.findings if finding.suggestion == "drop"}
    assert len(dropped & set(range(15))) >= 8
    assert len(dropped - set(range(15))) <= 6
    assert result.scores is not None and result.cut == 0.5
    assert roc_auc_score(np.arange(300) < 15, -result.scores) > 0.93
    assert np.median(result.scores[:15]) < 0.5 < np.median(result.scores[15:])


def test_a_picture_laid_over_many_cells_is_found_by_what_they_share(cells: np.ndarray) -> None:
    """A hundred cells under one picture, a dense group in any embedding, are found as sharing fine structure."""
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (SIDE, SIDE, 3)).astype(float)
    images = cells.copy()
    images[:100] = (0.6 * images[:100] + 0.4 * picture).astype(np.uint8)
    rows = np.arange(len(images))
    agreement, group = repeated_picture(images, Thumbnails()(images).astype(np.float32), rows, seed=0)
    assert (group[:100] == 0).all() and (agreement[:100] > 0.5).all()
    assert (group[100:] == -1).all()


def test_different_cells_share_no_picture(cells: np.ndarray) -> None:
    """Among clean cells no shared picture is found."""
    noisy = np.clip(cells + np.random.default_rng(0).normal(0, 6, cells.shape), 0, 255).astype(np.uint8)
    _, group = repeated_picture(noisy, Thumbnails()(noisy).astype(np.float32), np.arange(len(noisy)), seed=0)
    assert (group == -1).all()
    fine = fine_structure(noisy[:5])
    np.testing.assert_allclose(np.linalg.norm(fine, axis=1), 1, atol=1e-3)


def test_every_copy_of_an_off_topic_picture_is_proposed(cells: np.ndarray) -> None:
    """Two hundred copies of one foreign picture are no dense cluster of good cells: all of them are found."""
    foreign = np.random.default_rng(8).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    images = np.concatenate([cells, np.repeat(foreign[None], 200, axis=0)])
    hashes = [f"{i:032x}" for i in range(len(cells))] + ["f" * 32] * 200
    result, _ = check_off_topic(material_of(images, content_hash=hashes))
    found = {finding.id for finding in result.findings}
    assert {f"{i}.png" for i in range(300, 500)} <= found


def test_the_detector_is_not_taught_by_the_faults_in_the_set() -> None:
    """With a tenth of the set faulty, the faulty still score above the good: they are left out as rounds go on."""
    rng = np.random.default_rng(0)
    good = rng.normal(0, 1, (900, 40))
    shift = np.zeros(40)
    shift[:5] = 2.5
    faulty, made = rng.normal(0, 1, (100, 40)) + shift, rng.normal(0, 1, (500, 40)) + shift
    scores = unlikeness(np.concatenate([good, faulty]).astype(np.float32), made.astype(np.float32), seed=0)
    assert scores.shape == (1000,)
    assert np.mean(scores[900:] > np.quantile(scores[:900], 0.99)) > 0.9


def test_the_line_is_not_moved_by_faults_beyond_it() -> None:
    """The spread is that of the better half: a tenth of far-away scores moves the line by little."""
    rng = np.random.default_rng(1)
    clean = rng.normal(0, 1, 9000)
    line = beyond(clean, 4)
    assert 3.7 < line < 4.3
    assert abs(beyond(np.concatenate([clean, np.full(1000, 50.0)]), 4) - line) < 1.0


def test_what_cannot_be_judged_is_said_and_not_called_passed(cells: np.ndarray) -> None:
    """Too few images, or no network to embed made faults with, are reasons, not passes."""
    few = check_off_topic(material_of(cells[:20]))
    assert all("takes 50 different images" in result.not_applicable and not result.passed for result in few)
    without = replace(material_of(cells[:100]), embedder=None)
    off_topic, outlier = check_off_topic(without)
    assert "no network" in off_topic.not_applicable
    assert not outlier.not_applicable and outlier.scores is not None


def test_the_least_alike_image_is_the_first_outlier(cells: np.ndarray) -> None:
    """An image unlike all others ranks first among the outliers, and is for a person to look at."""
    images = cells.copy()
    images[7] = np.tile(np.array([0, 255, 0], np.uint8), (SIDE, SIDE, 1))
    _, outlier = check_off_topic(material_of(images))
    assert outlier.findings[0].id == "7.png"
    assert outlier.findings[0].suggestion == "review"
    assert "Rank 1 of 300" in outlier.findings[0].why
