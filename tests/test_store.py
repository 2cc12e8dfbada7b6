"""The packed store, the cache around it, and reading into it."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hemascope.cells import CellDataset, Unreadable
from hemascope.config import PREPARATIONS, Preparation, Resize
from hemascope.data import load, open_source, open_store, stream_images, write_store
from hemascope.data.store import StoreRow
from hemascope.errors import HemascopeError, OutputError, SourceError, StoreError

SMALL = Preparation(resizes=(Resize(size=8),))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


class Heard:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.tasks: list[tuple[str, int, str]] = []
        self.done = 0

    def task(self, title: str, total: int, unit: str) -> Heard:
        self.tasks.append((title, total, unit))
        return self

    def __enter__(self) -> object:
        return lambda count: setattr(self, "done", self.done + count)

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def make_folder(root: Path, count: int = 12) -> Path:
    for seed in range(count):
        path = root / ("ig" if seed % 2 else "ba") / f"{seed:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image(seed)).save(path)
    return root


def make_store(path: Path, count: int = 5) -> CellDataset:
    rows = [StoreRow(f"cell {i}", i % 2, image(i), f"{i:032x}", 20, 30, conversions=("x",)) for i in range(count)]
    return write_store(path, rows, class_names=["a", "b"], preparation=SMALL, source="here")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(TEXT, st.integers(-1, 2), TEXT), max_size=8, unique_by=lambda row: row[0]),
    st.booleans(),
    st.lists(st.tuples(TEXT, TEXT), max_size=3),
)
def test_round_trip(
    tmp_path: Path, described: list[tuple[str, int, str]], with_groups: bool, bad: list[tuple[str, str]]
) -> None:
    """Whatever rows go into a store, with any text in ids and groups, come out equal."""
    rows: list[StoreRow | Unreadable] = [
        StoreRow(name, label, image(i), f"{i:032x}", i, 7, "test", group if with_groups else None)
        for i, (name, label, group) in enumerate(described)
    ]
    rows += [Unreadable(*item) for item in bad]
    cells = write_store(tmp_path / "s", iter(rows), class_names=["a", "b", "c"], preparation=SMALL, notes={"n": 3})
    again = open_store(tmp_path / "s")
    for found in (cells, again):
        assert list(found.ids) == [name for name, _, _ in described]
        assert found.labels.tolist() == [label for _, label, _ in described]
        assert found.images.shape == (len(described), 8, 8, 3)
        assert all((found.images[i] == image(i)).all() for i in range(len(described)))
        assert found.unreadable == tuple(Unreadable(*item) for item in bad) and found.notes == {"n": 3}
        if described:
            assert found.split.tolist() == ["test"] * len(described)
            assert found.original_size.tolist() == [[i, 7] for i in range(len(described))]
            assert (found.groups is not None) == with_groups
            if with_groups:
                # numpy text drops NULs at the end, in groups as anywhere
                assert found.groups.tolist() == [group.rstrip("\0") for _, _, group in described]
    assert json.loads((tmp_path / "s" / "store.json").read_text())["fingerprint"] == again.fingerprint()


def test_images_are_a_read_only_memory_map(tmp_path: Path) -> None:
    """The images stay on disk, are plain .npy, and cannot be written to."""
    cells = make_store(tmp_path / "s")
    assert isinstance(cells.images, np.memmap) and not cells.images.flags.writeable
    assert (np.load(tmp_path / "s" / "images.npy", allow_pickle=False) == cells.images).all()
    assert cells.notes == {"x": 5} and cells.preparation == "largest centre square → bicubic to 8"


def test_damage_is_a_store_error(tmp_path: Path) -> None:
    """A changed index, cut or grown pixels, a changed header or a missing file is refused with the store's name."""
    damage = {
        "index.parquet": [lambda c: c[:-1], lambda c: c[:40] + bytes([c[40] ^ 1]) + c[41:], lambda c: None],
        "images.npy": [
            lambda c: c[:-1],
            lambda c: c + b"x",
            lambda c: b"",
            lambda c: c.replace(b"(5,", b"(4,"),
            lambda c: None,
        ],
        "store.json": [
            lambda c: c.replace(b'"version": 1', b'"version": 2'),
            lambda c: c.replace(b'"count": 5', b'"count": 4'),
            lambda c: c.replace(b'"source"', b'"sauce"'),
            lambda c: c[:-10],
            lambda c: b"",
            lambda c: b"[]",
            lambda c: b"\xff",
            lambda c: b"[" * 100_000,
            lambda c: None,
        ],
    }
    for name, changes in damage.items():
        for number, change in enumerate(changes):
            folder = tmp_path / f"{name}{number}"
            make_store(folder)
            changed = change((folder / name).read_bytes())
            (folder / name).unlink() if changed is None else (folder / name).write_bytes(changed)
            with pytest.raises(StoreError, match="store|" + name):
                open_store(folder)


def test_an_index_of_other_rows_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of more rows than images is refused by its count, even where its digest was put into the header."""
    import pyarrow as pa
    from pyarrow import parquet

    make_store(tmp_path / "s")
    index, header = tmp_path / "s" / "index.parquet", tmp_path / "s" / "store.json"
    table = parquet.read_table(index)
    old = hashlib.sha256(index.read_bytes()).hexdigest()
    parquet.write_table(pa.concat_tables([table, table]), index)
    header.write_text(header.read_text().replace(old, hashlib.sha256(index.read_bytes()).hexdigest()))
    monkeypatch.setattr("hemascope.data.store.read_columns", lambda *_, **__: pytest.fail("a row was read"))
    with pytest.raises(StoreError, match="10 rows for 5 images"):
        open_store(tmp_path / "s")


def test_a_repaired_permission_is_noticed(tmp_path: Path) -> None:
    """An image whose mode alone has changed is another state of the input, so it is not read from the cache."""
    folder = make_folder(tmp_path / "set", 2)
    before = open_source(folder).signature
    next(folder.rglob("*.png")).chmod(0o600)
    assert open_source(folder).signature != before


def test_pickle_in_a_store_is_never_run(tmp_path: Path) -> None:
    """An images.npy that holds Python objects is refused unread."""
    make_store(tmp_path / "s")
    np.save(tmp_path / "s" / "images.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match="must be uint8"):
        open_store(tmp_path / "s")


def test_failed_writing_leaves_nothing(tmp_path: Path) -> None:
    """An error in the middle leaves the old store as it was and no temporary file."""
    make_store(tmp_path / "s", 3)

    def rows() -> object:
        yield StoreRow("a", 0, image(0), "0" * 32, 1, 1)
        yield StoreRow("b", 0, np.zeros((9, 9, 3), np.uint8), "1" * 32, 1, 1)

    with pytest.raises(StoreError, match="b: a stored image must be"):
        write_store(tmp_path / "s", rows(), class_names=["a"], preparation=SMALL)
    assert len(open_store(tmp_path / "s")) == 3 and [path.name for path in tmp_path.iterdir()] == ["s"]


def test_first_and_second_load(tmp_path: Path) -> None:
    """The second load reads no image and gives the same cells; a changed file is read again."""
    folder = make_folder(tmp_path / "set")
    first_progress, second_progress = Heard(), Heard()
    first = load(folder, preparation=SMALL, cache_dir=tmp_path / "c", progress=first_progress)
    second = load(f"{folder}/", preparation=SMALL, cache_dir=tmp_path / "c", progress=second_progress)
    assert first_progress.tasks == [("reading cells", 12, "images")] and first_progress.done == 12
    assert second_progress.tasks == []
    assert first.fingerprint() == second.fingerprint() and first.class_names == ("ba", "ig")
    assert first.ids[0] == "ba/000.png" and (first.images[0] == image(0)).all()
    assert first.original_size.tolist() == [[8, 8]] * 12
    Image.fromarray(image(77)).save(folder / "ba" / "000.png")
    third = load(folder, preparation=SMALL, cache_dir=tmp_path / "c")
    assert (third.images[0] == image(77)).all() and third.fingerprint() != first.fingerprint()


def test_other_options_are_other_stores(tmp_path: Path) -> None:
    """Another preparation, other labels or another order of classes never meet in the cache."""
    folder = make_folder(tmp_path / "set")
    options = [
        {"preparation": SMALL},
        {"preparation": Preparation(resizes=(Resize(size=8, filter="box"),))},
        {"preparation": SMALL, "label_pattern": r"(?P<label>\d)\.png"},
        {"preparation": SMALL, "class_names": ["ig", "ba"]},
    ]
    for option in options:
        load(folder, cache_dir=tmp_path / "c", **option)
    assert len(list((tmp_path / "c" / "stores").iterdir())) == 4
    assert load(folder, cache_dir=tmp_path / "c", **options[3]).labels[0] == 1


def test_damaged_cache_is_read_again(tmp_path: Path) -> None:
    """A damaged cached store is replaced, with a warning, and never an error."""
    folder, cache = make_folder(tmp_path / "set"), tmp_path / "c"
    first = load(folder, preparation=SMALL, cache_dir=cache)
    stored = next((cache / "stores").iterdir())
    (stored / "images.npy").write_bytes(b"")
    progress = Heard()
    again = load(folder, preparation=SMALL, cache_dir=cache, progress=progress)
    assert again.fingerprint() == first.fingerprint() and (again.images[3] == image(6)).all()
    assert "read again" in progress.warnings[0]
    assert len(open_store(stored)) == 12


def _load_and_fingerprint(folder: str, cache: str) -> str:
    return load(folder, preparation=SMALL, cache_dir=Path(cache)).fingerprint()


def test_two_processes_at_once(tmp_path: Path) -> None:
    """Processes that read one set at the same moment all get it whole."""
    folder = make_folder(tmp_path / "set", 60)
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        found = pool.starmap(_load_and_fingerprint, [(str(folder), str(tmp_path / "c"))] * 6)
    assert len(set(found)) == 1
    assert [path.name.startswith(".") for path in (tmp_path / "c" / "stores").iterdir()] == [False]


def test_unreadable_images(tmp_path: Path) -> None:
    """Unreadable images are listed and left out, warned of each time; too many stop the load with count and reasons."""
    folder = make_folder(tmp_path / "set", 40)
    (folder / "ig" / "zero.png").write_bytes(b"")
    for _ in range(2):
        progress = Heard()
        cells = load(folder, preparation=SMALL, cache_dir=tmp_path / "c", progress=progress)
        assert len(cells) == 40
        assert cells.unreadable == (Unreadable("ig/zero.png", "the file is empty (0 bytes)"),)
        assert "1 of 41 images (2.4%)" in progress.warnings[0]
    for name in ("one", "two", "three"):
        (folder / "ig" / f"{name}.jpg").write_bytes(b"text")
    with pytest.raises(
        SourceError, match=r"4 of 44 images \(9.1%\).*one.jpg: not a.*zero.png: .*empty.*; ….*At most 5.0%"
    ):
        load(folder, preparation=SMALL, cache_dir=tmp_path / "c")
    assert len(load(folder, preparation=SMALL, cache_dir=tmp_path / "c", max_unreadable=0.1)) == 40


def test_nothing_readable(tmp_path: Path) -> None:
    """A set without one readable image is an error even where all may be unreadable."""
    (tmp_path / "set" / "ig").mkdir(parents=True)
    (tmp_path / "set" / "ig" / "a.png").write_bytes(b"x")
    with pytest.raises(SourceError, match="1 of 1 images"):
        load(tmp_path / "set", preparation=SMALL, cache_dir=tmp_path / "c", max_unreadable=1.0)


def test_npz_split_and_groups_survive(tmp_path: Path) -> None:
    """Own split, groups and conversions of the source are in the loaded cells, minus the unreadable rows."""
    images = np.random.default_rng(0).random((4, 8, 8, 3))
    images[1] = np.nan
    np.savez_compressed(tmp_path / "m.npz", train_images=images, train_labels=np.arange(4), test_images=image(1)[None])
    cells = load(tmp_path / "m.npz", preparation=SMALL, cache_dir=tmp_path / "c", max_unreadable=0.5)
    assert cells.split.tolist() == ["train"] * 3 + ["test"] and cells.labels.tolist() == [0, 2, 3, -1]
    assert cells.ids[1] == "m.npz#train/2" and cells.notes == {"floats in 0 to 1 scaled by 255": 3}
    assert (cells.images[0] == np.rint(images[0] * 255)).all()


def test_cache_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HEMASCOPE_CACHE comes before XDG_CACHE_HOME; a cache that cannot be written names the variable."""
    folder = make_folder(tmp_path / "set", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("HEMASCOPE_CACHE", raising=False)
    load(folder, preparation=SMALL)
    assert (tmp_path / "xdg" / "hemascope" / "stores").is_dir()
    monkeypatch.setenv("HEMASCOPE_CACHE", str(tmp_path / "own"))
    load(folder, preparation=SMALL)
    assert (tmp_path / "own" / "stores").is_dir()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HEMASCOPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="set HEMASCOPE_CACHE"):
        load(folder, preparation=SMALL)


def test_store_as_input(tmp_path: Path) -> None:
    """A store is recognised, loaded and streamed as it is, and refused for another preparation."""
    made = make_store(tmp_path / "s")
    cells = load(tmp_path / "s", preparation=SMALL)
    assert cells.fingerprint() == made.fingerprint() and open_source(tmp_path / "s").kind == "store"
    batch = next(stream_images([tmp_path / "s"], SMALL))
    assert batch.ids == list(made.ids) and (batch.images == made.images).all()
    for read in (load, lambda path, preparation: stream_images([path], preparation)):
        with pytest.raises(StoreError, match=r"packed with the preparation plain .* contest"):
            read(tmp_path / "s", preparation=PREPARATIONS["contest"])
    with pytest.raises(HemascopeError, match="holds the classes a, b"):
        open_source(tmp_path / "s", class_names=["x"])


def test_the_way_to_the_cells_is_no_part_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder named by a relative and by an absolute path holds the same cells: ids and fingerprint are equal."""
    make_folder(tmp_path / "set", 3)
    monkeypatch.chdir(tmp_path)
    near = load("set", preparation=SMALL, cache_dir=tmp_path / "cache")
    far = load(tmp_path / "set", preparation=SMALL, cache_dir=tmp_path / "cache")
    assert list(near.ids) == list(far.ids) == ["ba/000.png", "ba/002.png", "ig/001.png"]
    assert near.fingerprint() == far.fingerprint()
