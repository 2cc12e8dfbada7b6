"""Seeded pictures of the 8 classes of peripheral blood cells in May-Grünwald-Giemsa stain, made without any data.

They serve the demo, the tests and benchmarks of any size. They look the part and are learnable, with the confusions
of the real thing, but a score on them says nothing about patients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.atomic import atomic_folder, output_error
from hemascope.cells import CellDataset
from hemascope.data.synthetic_morphology import SYNTHETIC_CLASSES, plan_cell
from hemascope.data.synthetic_optics import FIELD, develop, draw_slide
from hemascope.data.synthetic_painting import Point, paint_cell, paint_debris, paint_red_cells
from hemascope.errors import OutputError, UsageError
from hemascope.progress import SILENT, Progress

__all__ = ["SYNTHETIC_CLASSES", "render_cell", "render_cells", "write_synthetic_folder"]

_SMALLEST, _LARGEST = 16, 2048


def render_cell(class_name: str, *, size: int = 208, seed: int | np.random.SeedSequence) -> NDArray[np.uint8]:
    """One cell of ``class_name`` in the middle of its smear: RGB uint8 (size, size, 3).

    The field is 21.6 micrometres wide at every ``size`` (16 to 2048 pixels). The same seed gives the same pixels at
    one size, and the same cell, finer or coarser, at another. Raises UsageError for an unknown class or a bad size
    or seed.
    """
    _check_class(class_name)
    _check_whole("size", size, _SMALLEST, _LARGEST)
    if not isinstance(seed, np.random.SeedSequence):
        _check_whole("seed", seed, 0)
        seed = np.random.SeedSequence(seed)
    rng = np.random.default_rng(seed)
    slide = draw_slide(rng)
    plan = plan_cell(class_name, rng)
    centre = _near_middle(rng, 0.7)
    cells = [(plan, centre)]
    # Sometimes a platelet lies beside the cell, or another cell reaches in from the border.
    if rng.random() < 0.3:
        cells.append((plan_cell("platelet", rng), _beside(rng, centre, plan.radius + 3.5, 11.0)))
    if rng.random() < 0.06:
        other = plan_cell(SYNTHETIC_CLASSES[rng.integers(len(SYNTHETIC_CLASSES) - 1)], rng)
        cells.append((other, _beside(rng, centre, plan.radius + other.radius + 0.5, 18.0)))

    density = np.zeros((3, size, size), dtype=np.float32)
    paint_red_cells(density, slide.stains, [(place, 0.9 * each.radius) for each, place in cells], rng)
    for each, place in reversed(cells):
        paint_cell(density, slide.stains, each, place, rng)
    paint_debris(density, slide.stains, rng)
    return develop(density, slide, rng)


def render_cells(
    per_class: int | Mapping[str, int], *, size: int = 96, seed: int = 0, progress: Progress = SILENT
) -> CellDataset:
    """A labelled set of synthetic cells, N images of (size, size, 3), class after class.

    ``per_class`` is the number of images of every class, or of each class named (0 for the rest). Image i of a class
    depends on ``seed``, the class and i alone, so a larger set starts with the smaller one. Raises UsageError for
    unknown classes, counts below 0 or no image at all, and for a bad size or seed.
    """
    counts = _counts(per_class)
    _check_whole("size", size, _SMALLEST, _LARGEST)
    total = sum(counts.values())
    images = np.empty((total, size, size, 3), dtype=np.uint8)
    ids, hashes = [], []
    with progress.task("Rendering synthetic cells", total, "image") as advance:
        for place, (name, index, image) in enumerate(_rendered(counts, size, seed)):
            images[place] = image
            ids.append(f"synthetic/{name}/{index}")
            hashes.append(_pixel_hash(image))
            advance(1)
    return CellDataset(
        images=images,
        labels=np.repeat(np.arange(len(SYNTHETIC_CLASSES), dtype=np.int64), list(counts.values())),
        class_names=SYNTHETIC_CLASSES,
        ids=ids,
        content_hash=hashes,
        original_size=np.full((total, 2), size, dtype=np.int32),
        source=f"synthetic cells, seed {seed}",
    )


def write_synthetic_folder(
    path: Path,
    per_class: int | Mapping[str, int],
    *,
    size: int = 208,
    seed: int = 0,
    quality: int = 95,
    progress: Progress = SILENT,
) -> Path:
    """Write the cells of `render_cells` as ``path/<class>/<class>_<index>.jpg`` and return ``path``.

    The folder appears whole or not at all. A class of no images gets no folder. ``quality`` is the JPEG quality, 1 to
    100. Raises OutputError where ``path`` is a file, a folder that is not empty, or cannot be written, and UsageError
    as `render_cells` does.
    """
    counts = _counts(per_class)
    _check_whole("size", size, _SMALLEST, _LARGEST)
    _check_whole("seed", seed, 0)
    _check_whole("quality", quality, 1, 100)
    path = Path(path)
    _check_free(path)
    with (
        atomic_folder(path) as temporary,
        progress.task("Writing synthetic cells", sum(counts.values()), "image") as advance,
    ):
        for name, index, image in _rendered(counts, size, seed):
            folder = temporary / name
            folder.mkdir(exist_ok=True)
            Image.fromarray(image).save(folder / f"{name}_{index:05d}.jpg", quality=quality, subsampling=0)
            advance(1)
    return path


def _rendered(counts: Mapping[str, int], size: int, seed: int) -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
    _check_whole("seed", seed, 0)
    for label, name in enumerate(SYNTHETIC_CLASSES):
        for index in range(counts[name]):
            key = np.random.SeedSequence((seed, label, index))
            yield name, index, render_cell(name, size=size, seed=key)


def _near_middle(rng: np.random.Generator, spread: float) -> Point:
    x, y = FIELD / 2 + np.clip(spread * rng.standard_normal(2), -2 * spread, 2 * spread)
    return float(x), float(y)


def _beside(rng: np.random.Generator, centre: Point, nearest: float, farthest: float) -> Point:
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(nearest, max(nearest, farthest))
    return float(centre[0] + distance * np.cos(angle)), float(centre[1] + distance * np.sin(angle))


def _pixel_hash(image: NDArray[np.uint8]) -> str:
    digest = hashlib.blake2b(str(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _counts(per_class: int | Mapping[str, int]) -> dict[str, int]:
    """Images of every class, in the order of SYNTHETIC_CLASSES."""
    if isinstance(per_class, Mapping):
        for name in per_class:
            _check_class(name)
        counts = {name: per_class.get(name, 0) for name in SYNTHETIC_CLASSES}
    else:
        counts = dict.fromkeys(SYNTHETIC_CLASSES, per_class)
    for name, count in counts.items():
        _check_whole(f"the number of {name} images", count, 0)
    if not sum(counts.values()):
        raise UsageError("no synthetic image was asked for; give at least 1 per class")
    return counts


def _check_class(name: str) -> None:
    if name not in SYNTHETIC_CLASSES:
        raise UsageError(f"no synthetic class is called {name!r}; the classes are {', '.join(SYNTHETIC_CLASSES)}")


def _check_whole(what: str, value: int, low: int, high: int | None = None) -> None:
    # bool is an int to Python, but True cells are a mistake.
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise UsageError(f"{what} must be a whole number, found {value!r}")
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"{low} to {high}"
        raise UsageError(f"{what} must be {limits}, found {value}")


def _check_free(path: Path) -> None:
    try:
        taken = path.is_symlink() or path.is_file() or (path.is_dir() and any(path.iterdir()))
    except OSError as error:
        raise output_error(path, error) from error
    if taken:
        raise OutputError(f"cannot write synthetic cells to {path}: it already holds something; choose a new folder")
