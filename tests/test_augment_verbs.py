"""Looking at a policy, listing what there is, and augmenting a set on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hemascope.cells import CellDataset
from hemascope.cli import main
from hemascope.config import DataConfig, Preparation, Resize, RunConfig
from hemascope.data.load import load
from hemascope.data.splits import make_splits
from hemascope.data.synthetic import write_synthetic_folder
from hemascope.errors import OutputError, UsageError
from hemascope.policies import Policy
from hemascope.workflow.augmenting import augment_offline, preview

CONFIG = RunConfig(
    data=DataConfig(preparation=Preparation(name="tiny", resizes=(Resize(size=24),)), validation=0.2, test=0.2)
)
POLICY = Policy.model_validate(
    {"name": "mine", "steps": [{"operation": "brightness", "strength": [0.4, 0.6]}, {"operation": "mirror"}]}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cells") / "cells"
    write_synthetic_folder(path, 6, seed=1)
    return path


@pytest.fixture(scope="module")
def cells(folder: Path) -> CellDataset:
    return load(folder, preparation=CONFIG.data.preparation)


def test_preview_shows_cells_and_the_ends_of_every_operation(folder: Path, tmp_path: Path) -> None:
    """The sheet grows by one row for each distinct operation, and the darkest end is darker than the other."""
    bare = preview(Policy(name="none"), folder, CONFIG, output=tmp_path / "bare.png", cells=2)
    full = preview(POLICY, folder, CONFIG, output=tmp_path / "full.png", cells=2)
    with Image.open(bare) as first, Image.open(full) as second:
        assert first.width == second.width
        rows = second.height - first.height
        assert 2 * 96 < rows < 4 * 96  # two operations and a title
        left = second.width - 24 - 10 * 102  # the first picture of each row
        y = first.height + 40
        darkest, brightest = (
            np.asarray(second.crop((left + column * 102, y, left + column * 102 + 96, y + 96))).mean()
            for column in (1, 4)
        )
    assert darkest < brightest


def test_preview_is_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    """One seed draws one picture; another seed draws another."""
    again = RunConfig(seed=1, data=CONFIG.data)
    sheets = [
        preview(POLICY, folder, config, output=tmp_path / f"{name}.png", cells=3).read_bytes()
        for name, config in (("a", CONFIG), ("b", CONFIG), ("c", again))
    ]
    assert sheets[0] == sheets[1] != sheets[2]


def test_preview_refuses_what_it_cannot_draw(folder: Path, tmp_path: Path) -> None:
    """A sheet of no cells and a sheet that is no PNG are usage errors, and nothing is written."""
    with pytest.raises(UsageError, match="1 to 24 cells, found 0"):
        preview(POLICY, folder, CONFIG, output=tmp_path / "a.png", cells=0)
    with pytest.raises(UsageError, match="PNG"):
        preview(POLICY, folder, CONFIG, output=tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


def test_offline_store_multiplies_the_training_part_alone(cells: CellDataset, tmp_path: Path) -> None:
    """Copies are of training cells only, keep label and group, and stay in training when the store is split again."""
    expected = make_splits(cells, CONFIG.data, CONFIG.seed).assignment
    train = int((expected == "train").sum())
    made = augment_offline(POLICY, cells, CONFIG, output=tmp_path / "a.store", copies=3)
    assert (made.originals, made.copies) == (len(cells), 3 * train)
    store = load(made.path, preparation=CONFIG.data.preparation)
    assert len(store) == len(cells) + 3 * train
    part = {name: str(value) for name, value in zip(cells.ids, expected, strict=True)}
    label = dict(zip(cells.ids, cells.labels.tolist(), strict=True))
    assignment = make_splits(store, CONFIG.data, 99).assignment
    assert store.groups is not None
    for row, name in enumerate(store.ids):
        original, mark, _ = str(name).partition("#augmented-")
        assert assignment[row] == ("train" if mark else part[original])
        assert int(store.labels[row]) == label[original]
        assert store.groups[row] == original


def test_offline_store_says_where_it_came_from(cells: CellDataset, tmp_path: Path) -> None:
    """The store holds the policy whole, seed, copies and both fingerprints; a copy is darker, as the policy says."""
    made = augment_offline(POLICY, cells, CONFIG, output=tmp_path / "a.store", copies=1)
    record = json.loads((made.path / "augmentation.json").read_text())
    store = load(made.path, preparation=CONFIG.data.preparation)
    assert Policy.model_validate(record["policy"]) == POLICY
    assert (record["seed"], record["copies"]) == (0, 1)
    assert record["source_fingerprint"] == cells.fingerprint()
    assert record["fingerprint"] == store.fingerprint()
    copy = next(row for row, name in enumerate(store.ids) if "#augmented-" in str(name))
    original = list(store.ids).index(str(store.ids[copy]).partition("#")[0])
    assert store.images[copy].mean() < 0.65 * store.images[original].mean()


def test_offline_store_announces_its_size_and_needs_room(
    cells: CellDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk has too little room nothing is written, and both sizes are in the sentence."""
    usage = type("Usage", (), {"free": 1_000_000})()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="1 MB free"):
        augment_offline(POLICY, cells, CONFIG, output=tmp_path / "a.store", copies=50)
    assert not (tmp_path / "a.store").exists()
    with pytest.raises(UsageError, match="1 to 100, found 0"):
        augment_offline(POLICY, cells, CONFIG, output=tmp_path / "a.store", copies=0)


def test_offline_store_replaces_nothing(cells: CellDataset, folder: Path, tmp_path: Path) -> None:
    """Neither the cells themselves nor another folder nor a file gives way to a store."""
    before = sorted(folder.rglob("*"))
    (tmp_path / "file").write_text("mine")
    for target in (folder, tmp_path, tmp_path / "file"):
        with pytest.raises(OutputError, match="exists already"):
            augment_offline(POLICY, cells, CONFIG, output=target, copies=1)
    assert sorted(folder.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "mine"


def test_the_verbs_list_and_refuse(folder: Path, tmp_path: Path) -> None:
    """Policies and operations are listed with their families; an unknown policy is answered with the nearest name."""
    run = CliRunner().invoke
    listed = json.loads(run(main, ["augment", "policies", "--json"]).stdout)["policies"]
    assert {"none", "robust", "winners", "randaugment", "trivialaugment", "augmix"} <= {one["name"] for one in listed}
    assert "geometry" in next(one["families"] for one in listed if one["name"] == "winners")
    assert "jpeg               compression" in run(main, ["augment", "operations"]).stdout
    wrong = run(main, ["augment", "preview", "robst", str(folder), "-o", str(tmp_path / "a.png")])
    assert wrong.exit_code == 2
    assert "did you mean 'robust'?" in wrong.stderr
    missing = run(main, ["augment", "preview", "my.toml", str(folder), "-o", str(tmp_path / "a.png")])
    assert missing.exit_code == 2
    assert "my.toml" in missing.stderr


def test_hold_out_takes_a_family_out_of_training(folder: Path, tmp_path: Path) -> None:
    """`train --hold-out` with an unknown family is refused by name before anything is made."""
    wrong = CliRunner().invoke(main, ["train", str(folder), "-o", str(tmp_path / "run"), "--hold-out", "blurr"])
    assert wrong.exit_code == 2
    assert "blur" in wrong.stderr
    assert not (tmp_path / "run").exists()
