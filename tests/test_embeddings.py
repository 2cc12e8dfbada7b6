"""Embeddings: what the stages of a frozen network see, kept on disk, the same for turned copies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hemascope import render_cells
from hemascope.cells import CellDataset
from hemascope.config import ModelConfig
from hemascope.embeddings import Embedder, Embeddings, Level, embed
from hemascope.errors import DataError, UsageError

RANDOM = ModelConfig(backbone="resnet18", weights="random")


@pytest.fixture(scope="module")
def cells() -> CellDataset:
    return render_cells(2, size=64, seed=3)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(model=RANDOM, size=64, views=4, batch_size=5)


def test_levels_cover_every_column_once(cells: CellDataset, embedder: Embedder) -> None:
    """The vectors are cut into the network's stages and ``final``, without gap or overlap."""
    found = embed(cells, embedder)
    assert found.vectors.shape == (len(cells), found.levels[-1].stop)
    assert [level.name for level in found.levels][-1] == "final"
    assert [level.start for level in found.levels] == [0, *(level.stop for level in found.levels[:-1])]
    assert found.level("final").shape == (len(cells), 512)


def test_quarter_turns_change_nothing_with_four_views(cells: CellDataset, embedder: Embedder) -> None:
    """With four views a turned copy has the vector of its original; with one it has not."""
    turned = np.ascontiguousarray(np.rot90(cells.images, axes=(1, 2)))
    same = np.abs(embedder(turned).astype(np.float32) - embedder(cells.images).astype(np.float32)).max()
    one = Embedder(model=RANDOM, size=64, views=1)
    other = np.abs(one(turned).astype(np.float32) - one(cells.images).astype(np.float32)).max()
    assert same < 0.01 < other


def test_mirror_images_change_nothing_with_eight_views(cells: CellDataset) -> None:
    """With eight views a mirrored copy has the vector of its original."""
    eight = Embedder(model=RANDOM, size=64, views=8)
    mirrored = np.ascontiguousarray(cells.images[:4, :, ::-1])
    difference = np.abs(eight(mirrored).astype(np.float32) - eight(cells.images[:4]).astype(np.float32))
    assert difference.max() < 0.01


def test_batches_do_not_change_the_vectors(cells: CellDataset, embedder: Embedder) -> None:
    """A vector does not depend on the images embedded with it."""
    alone = np.concatenate([embedder(cells.images[i : i + 1]) for i in range(7)])
    np.testing.assert_allclose(alone.astype(float), embedder(cells.images[:7]).astype(float), atol=0.01)


def test_the_second_time_comes_from_disk(tmp_path: Path, cells: CellDataset) -> None:
    """The same cells and network are embedded once; damaged files are made again; another network is another file."""
    first = embed(cells, Embedder(model=RANDOM, size=64, views=1), cache_dir=tmp_path)

    class Refusing(Embedder):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            raise AssertionError("embedded twice")

    again = embed(cells, Refusing(model=RANDOM, size=64, views=1), cache_dir=tmp_path)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert again.levels == first.levels
    with pytest.raises(AssertionError, match="embedded twice"):
        embed(cells, Refusing(model=RANDOM, size=64, views=2), cache_dir=tmp_path)
    record = next(tmp_path.rglob("embeddings.json"))
    record.write_text(json.dumps({**json.loads(record.read_text()), "shape": [1, 1]}))
    mended = embed(cells, Embedder(model=RANDOM, size=64, views=1), cache_dir=tmp_path)
    np.testing.assert_array_equal(first.vectors, mended.vectors)


def test_wrong_input_is_one_sentence(cells: CellDataset, embedder: Embedder) -> None:
    """Another size, another number of views and an unknown level are refused in words."""
    with pytest.raises(DataError, match=r"take uint8 \(N, 64, 64, 3\), found uint8 \(2, 32, 32, 3\)"):
        embedder(np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(UsageError, match="views must be one of 1, 2, 4, 8, found 3"):
        Embedder(model=RANDOM, views=3)
    with pytest.raises(DataError, match="no level 'stem'; there are final"):
        Embeddings(np.zeros((2, 3), np.float16), [Level("final", 0, 3)], "").level("stem")


@pytest.mark.parametrize("backbone", ["convnext_atto", "vit_tiny_patch16_224", "mobilenetv3_small_100"])
def test_every_family_gives_finite_vectors(backbone: str, cells: CellDataset) -> None:
    """Convolutional networks and vision transformers alike give finite vectors that end in ``final``."""
    embedder = Embedder(model=ModelConfig(backbone=backbone, weights="random"), size=64, views=1)
    found = embedder(cells.images[:3])
    assert np.isfinite(found).all()
    assert embedder.levels[-1].stop == found.shape[1]
    assert len(embedder.levels) > 1
