"""Features of a frozen backbone for a set of cells: computed once, kept on disk, shared by every check and map.

torch is imported when the first image is embedded, not before: opening saved vectors needs none of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hemascope.atomic import atomic_folder, reason_of, write_json
from hemascope.cells import CellDataset
from hemascope.config import ModelConfig
from hemascope.errors import DataError, OutputError, UsageError
from hemascope.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch

    from hemascope.models.classifier import Classifier

VERSION = 1
FINAL = "final"
VIEWS = (1, 2, 4, 8)
"""Views an image may be seen in: itself, and with its quarter turns and mirror images. 2 is itself and half a turn."""

_TURNS = {1: (0,), 2: (0, 2), 4: (0, 1, 2, 3), 8: (0, 1, 2, 3)}


class Level(NamedTuple):
    """Columns ``start`` to ``stop`` of the vectors: what one stage of the network sees."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Embeddings:
    """N images as vectors of D numbers.

    vectors      float16 (N, D), in memory or memory-mapped; not scaled
    levels       D cut into the backbone's stages, first to last (``stage1``, ``stage2``, ...): spatial means, then
                 deviations, of the stage's feature maps; and, last, ``final``: what a classifier would see
    description  backbone, weights, views: for people
    """

    vectors: NDArray[np.float16]
    levels: Sequence[Level]
    description: str

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2:
            raise DataError(f"embeddings must have shape (N, D), found {self.vectors.shape}")

    def __len__(self) -> int:
        return len(self.vectors)

    def level(self, name: str) -> NDArray[np.float16]:
        """The columns of one level: float16 (N, d). Raises DataError for a name that is not there."""
        for level in self.levels:
            if level.name == name:
                return self.vectors[:, level.start : level.stop]
        raise DataError(f"there is no level {name!r}; there are {', '.join(level.name for level in self.levels)}")


class Embedder:
    """A frozen backbone that turns prepared images into vectors.

    run         the run or bundle folder whose backbone and preparation to use; None for ``model``
    model       backbone and weights where there is no run: the embedded default
    size        side of the images in pixels
    views       1, 2, 4 or 8: images are seen in so many dihedral turns and the vectors averaged, which makes them
                alike for turned copies and costs as many times the time
    device      auto, cpu, cuda, cuda:N or mps

    Raises WeightsError, BundleError or ConfigError where the network cannot be had.
    """

    def __init__(
        self,
        *,
        run: Path | None = None,
        model: ModelConfig | None = None,
        size: int = 96,
        views: int = 4,
        batch_size: int = 256,
        device: str = "auto",
    ) -> None:
        if views not in _TURNS:
            raise UsageError(f"views must be one of {', '.join(map(str, VIEWS))}, found {views}")
        self.views = views
        self.batch_size = batch_size
        self.size = size
        self._run, self._config, self._device = run, model or ModelConfig(), device
        self._network: Any = None
        self.levels: tuple[Level, ...] = ()
        self._describe()

    def _describe(self) -> None:
        if self._run is not None:
            from hemascope.models.bundle import load_bundle

            bundle = load_bundle(self._run)
            self.size = bundle.preparation.size
            self.identity = f"{bundle.sha256} {self.views}"
            self.description = f"{bundle.config.backbone} of {self._run.name}, {self._seen()}"
        else:
            from hemascope.models.weights import resolve_weights

            source = resolve_weights(self._config)
            self.identity = f"{self._config.backbone} {source.kind} {source.sha256 or source.description} {self.views}"
            self.description = f"{self._config.backbone}, {source.description}, {self._seen()}"

    def _seen(self) -> str:
        return "one view" if self.views == 1 else f"mean of {self.views} views"

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Prepared images uint8 (B, S, S, 3) to vectors float16 (B, D); any B, a batch in memory at a time."""
        if images.dtype != np.uint8 or images.shape[1:] != (self.size, self.size, 3):
            raise DataError(
                f"these embeddings take uint8 (N, {self.size}, {self.size}, 3), found {images.dtype} {images.shape}"
            )
        network = self._ready()
        parts = [network(images[i : i + self.batch_size]) for i in range(0, len(images), self.batch_size)]
        empty = np.empty((0, self.levels[-1].stop), dtype=np.float16)
        return np.concatenate([empty, *parts])

    def _ready(self) -> Any:
        if self._network is None:
            self._network, self.levels = _network(self)
        return self._network

    def _classifier(self) -> Classifier:
        if self._run is not None:
            from hemascope.models.bundle import load_bundle

            return load_bundle(self._run).build()
        from hemascope.models.classifier import create_classifier

        return create_classifier(self._config, 2, 0)


def _network(embedder: Embedder) -> tuple[Any, tuple[Level, ...]]:
    """The function from a batch of images to vectors, and what its columns are."""
    import torch

    from hemascope.models.features import StageFeatures
    from hemascope.runtime import choose_device, keep_freed_memory

    keep_freed_memory()
    device = choose_device(embedder._device)
    stages = StageFeatures(embedder._classifier(), embedder.size).to(device)
    widths = stages.widths
    starts = np.concatenate([[0], np.cumsum(widths)]).tolist()
    names = [f"stage{i + 1}" for i in range(len(widths) - 1)] + [FINAL]
    levels = tuple(Level(name, a, b) for name, a, b in zip(names, starts[:-1], starts[1:], strict=True))

    def run(images: NDArray[np.uint8]) -> NDArray[np.float16]:
        total: torch.Tensor | None = None
        with torch.inference_mode():
            own = torch.from_numpy(np.array(images, order="C")).to(device).permute(0, 3, 1, 2)
            for turn in _TURNS[embedder.views]:
                seen = torch.rot90(own, turn, (2, 3))
                for view in (seen, seen.flip(3)) if embedder.views == 8 else (seen,):
                    found = stages(view.contiguous(memory_format=torch.channels_last))
                    total = found if total is None else total + found
            assert total is not None
            result: NDArray[np.float16] = (total / embedder.views).clamp(-65504, 65504).half().cpu().numpy()
        return result

    return run, levels


def embed(
    cells: CellDataset, embedder: Embedder, *, cache_dir: Path | None = None, progress: Progress = SILENT
) -> Embeddings:
    """The cells as vectors; from the cache where the same network has seen the same cells.

    The vectors are written to disk batch by batch and memory-mapped, so N is not bounded by memory.
    ``cache_dir`` as for ``data.load``. Raises DataError where the images have another size than the embedder takes,
    OutputError where the cache cannot be written.
    """
    from hemascope.data.load import default_cache

    key = f"{VERSION} {embedder.identity} {embedder.size} {cells.fingerprint()} {cells.preparation}"
    name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    folder = (cache_dir or default_cache()) / "embeddings" / name
    found = _open(folder, len(cells))
    if found is None:
        try:
            _compute(folder, cells, embedder, progress)
        except OutputError as error:
            raise OutputError(
                f"the cache {folder.parent} cannot be written ({reason_of(error)}). Set HEMASCOPE_CACHE to a "
                "folder that can be"
            ) from None
        found = _open(folder, len(cells))
        if found is None:
            raise OutputError(f"the embeddings in {folder} were damaged as they were written; run it again")
    return found


def _compute(folder: Path, cells: CellDataset, embedder: Embedder, progress: Progress) -> None:
    n, step = len(cells), embedder.batch_size
    with atomic_folder(folder) as temporary, progress.task("embedding cells", n, "images") as advance:
        first = embedder(cells.images[:1] if n else np.zeros((0, embedder.size, embedder.size, 3), np.uint8))
        path = temporary / "vectors.npy"
        with path.open("wb") as file:
            shape = (n, first.shape[1])
            np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
            for start in range(0, n, step):
                vectors = embedder(cells.images[start : start + step])
                if not np.isfinite(vectors).all():
                    raise DataError("the network gave vectors that are not finite: its weights are damaged")
                file.write(vectors.astype("<f2").tobytes())
                advance(len(vectors))
        levels = [list(level) for level in embedder.levels]
        write_json(
            temporary / "embeddings.json",
            {"version": VERSION, "levels": levels, "description": embedder.description, "shape": list(shape)},
        )


def _open(folder: Path, count: int) -> Embeddings | None:
    """The embeddings in ``folder``, None where there are none or they are not whole."""
    try:
        record = json.loads((folder / "embeddings.json").read_text(encoding="utf-8"))
        vectors = np.load(folder / "vectors.npy", mmap_mode="r" if count else None, allow_pickle=False)
        if vectors.dtype != np.float16 or list(vectors.shape) != record["shape"] or len(vectors) != count:
            return None
        return Embeddings(vectors, [Level(*level) for level in record["levels"]], record["description"])
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
