"""Our side: images read, measured and embedded by the library as an audit does it, with the seconds of each step."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from against_others.sets import PREPARATION
from hemascope.audit.material import Material
from hemascope.audit.measure import measure
from hemascope.cells import CellDataset
from hemascope.data.load import load
from hemascope.embeddings import Embedder, Embeddings, Level


@dataclass
class Given:
    """A set of images as the checks see it.

    material   of the library
    loading    seconds to decode, prepare and fingerprint every image
    measuring  seconds to measure every original
    embedding  seconds to embed every image
    """

    material: Material
    loading: float
    measuring: float
    embedding: float

    @property
    def seconds(self) -> float:
        """Before the first check."""
        return self.loading + self.measuring + self.embedding

    def steps(self) -> dict[str, float]:
        """The three, to be kept."""
        return {name: round(getattr(self, name), 2) for name in ("loading", "measuring", "embedding")}


@dataclass
class Ours:
    """Embeds each different picture once: sets of one run share nearly all their cells.

    What an image costs is measured where it is embedded and charged to every set that it is in.
    """

    cache: Path
    seed: int
    embedder: Embedder = field(default_factory=lambda: Embedder(size=PREPARATION.size))
    _row: dict[str, int] = field(default_factory=dict)
    _vectors: NDArray[np.float16] | None = None
    _seconds_each: float = 0.0

    def learn(self, cells: CellDataset, kept: Path) -> None:
        """Embed the cells of all sets; from ``kept`` (npz) where an interrupted run has done so for these cells."""
        if kept.is_file():
            with np.load(kept, allow_pickle=False) as arrays:
                if arrays["content_hash"].tolist() == list(cells.content_hash):
                    self._vectors = arrays["vectors"]
                    self._seconds_each = float(arrays["seconds_each"])
                    self.embedder(cells.images[:1])
        if self._vectors is None:
            self.embedder(cells.images[: self.embedder.batch_size])  # the first batch builds the network
            started = time.perf_counter()
            self._vectors = self.embedder(np.asarray(cells.images))
            self._seconds_each = (time.perf_counter() - started) / len(cells)
            np.savez(
                kept,
                vectors=self._vectors,
                seconds_each=self._seconds_each,
                content_hash=np.array(list(cells.content_hash)),
            )
        self._row = {content: row for row, content in enumerate(cells.content_hash)}

    def give(self, folder: Path, *, embedded: bool = True) -> Given:
        """The images of ``folder``, read anew."""
        if self.cache.exists():
            shutil.rmtree(self.cache)  # read anew, so that reading is in the time
        started = time.perf_counter()
        cells = load(folder, preparation=PREPARATION, cache_dir=self.cache)
        loading = time.perf_counter() - started
        measures = measure(folder, cells, cache_dir=self.cache)
        measuring = time.perf_counter() - started - loading
        if embedded:
            embeddings, embedding = self.embed(cells)
        else:
            nothing = np.zeros((len(cells), 1), dtype=np.float16)
            embeddings, embedding = Embeddings(nothing, [Level("final", 0, 1)], "none"), 0.0
        material = Material(cells, measures, embeddings, self.embedder if embedded else None, self.seed)
        return Given(material, loading, measuring, embedding)

    def embed(self, cells: CellDataset) -> tuple[Embeddings, float]:
        """The vectors of all cells, and what they cost in seconds."""
        if self._vectors is None:
            raise RuntimeError("learn the base cells first")
        known = np.array([self._row.get(content, -1) for content in cells.content_hash])
        new = np.flatnonzero(known < 0)
        started = time.perf_counter()
        fresh = self.embedder(np.asarray(cells.images)[new])
        seconds = time.perf_counter() - started + self._seconds_each * (len(cells) - len(new))
        vectors = np.empty((len(cells), self._vectors.shape[1]), dtype=np.float16)
        vectors[known >= 0] = self._vectors[known[known >= 0]]
        vectors[new] = fresh
        return Embeddings(vectors, self.embedder.levels, self.embedder.description), seconds
