"""What inspect says about a set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemascope.data import inspect_source
from hemascope.errors import SourceError


def write_cell(path: Path, seed: int, size: int = 8, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def test_everything_is_counted(tmp_path: Path) -> None:
    """Classes, sizes, modes, conversions, unreadable files, copies and wrong labels are all counted."""
    for seed in range(6):
        write_cell(tmp_path / "ig" / f"{seed}.png", seed)
    write_cell(tmp_path / "mono" / "copy.png", 0)  # the same pixels as ig/0.png, another label
    write_cell(tmp_path / "mono" / "grey.png", 20, size=40, mode="L")
    write_cell(tmp_path / "mono" / "again.bmp", 1)
    (tmp_path / "mono" / "bad.jpg").write_bytes(b"")
    (tmp_path / "mono" / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    found = inspect_source(tmp_path)
    assert found.kind == "folder" and found.count == 10
    assert found.class_counts == {"ig": 6, "mono": 4} and found.imbalance == 1.5
    assert found.sizes[0].model_dump() == {"width": 8, "height": 8, "count": 8}
    assert found.min_size == (8, 8) and found.max_size == (40, 40)
    assert found.formats == {"PNG": 8, "BMP": 1} and found.modes == {"RGB": 8, "L": 1}
    assert found.conversions == {"greyscale made RGB": 1}
    assert found.unreadable_count == 1 and found.unreadable[0].id == f"{tmp_path}/mono/bad.jpg"
    assert found.unreadable[0].reason == "the file is empty (0 bytes)"
    assert (found.duplicate_groups, found.duplicate_images, found.conflicting_duplicates) == (2, 4, 2)
    assert [f"{tmp_path}/ig/0.png", f"{tmp_path}/mono/copy.png"] in found.duplicate_examples
    assert found.notes["files that are not images left out"] == 1
    assert any("'empty'" in note for note in found.notes)
    assert any("25 times the pixels" in said for said in found.suggestions)
    assert json.loads(found.model_dump_json())["own_split"] is None


def test_own_split_groups_and_imbalance(tmp_path: Path) -> None:
    """A manifest's split and groups are counted, and imbalance is put in a sentence with its ratio."""
    rows = ["path,label,split,group"]
    for seed in range(11):
        write_cell(tmp_path / f"{seed}.png", seed)
        rows.append(f"{seed}.png,{'rare' if seed < 3 else 'common'},{'test' if seed % 2 else 'train'},p{seed // 4}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    found = inspect_source(tmp_path / "list.csv")
    assert found.own_split == {"train": 6, "test": 5} and found.groups == 3
    assert any("common, is 2.7 times the smallest, rare" in said for said in found.suggestions)


def test_one_class_and_no_label(tmp_path: Path) -> None:
    """One class or none is no error here; it is said."""
    write_cell(tmp_path / "one" / "ig" / "a.png", 0)
    write_cell(tmp_path / "flat" / "a.png", 0)
    assert any("one class" in said for said in inspect_source(tmp_path / "one").suggestions)
    flat = inspect_source(tmp_path / "flat")
    assert flat.unlabelled == 1 and any("No image has a label" in said for said in flat.suggestions)


def test_arrays(tmp_path: Path) -> None:
    """Rows of an npz file are inspected like files; a NaN row is unreadable."""
    images = np.random.default_rng(0).random((5, 8, 8, 3)).astype(np.float32)
    images[3, 0, 0, 0] = np.nan
    np.savez_compressed(tmp_path / "c.npz", images=images, labels=np.array([0, 1, 0, 1, 1]))
    found = inspect_source(tmp_path / "c.npz")
    assert found.modes == {"float32": 4} and found.unreadable[0].id == f"{tmp_path}/c.npz#3"
    assert found.conversions == {"floats in 0 to 1 scaled by 255": 4}


def test_missing_path() -> None:
    """A path that does not exist is named."""
    with pytest.raises(SourceError, match="nowhere does not exist"):
        inspect_source("nowhere")
