"""Images on their way to a prediction: read ahead in threads, in the order given, none dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import fspath
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.config import Preparation
from hemascope.data.load import open_prepared, read_one
from hemascope.data.parallel import ordered_map
from hemascope.data.sources import Source, kind_of, open_single, open_source
from hemascope.data.sources.source import Raw, fetch_or_error
from hemascope.errors import ImageError, UsageError
from hemascope.progress import SILENT, Progress


@dataclass(frozen=True)
class Batch:
    """B images on their way to a prediction.

    ids     B names: paths as given, or ``file.npz#12``
    images  uint8 (B, S, S, 3), zeros in the rows of images that could not be read
    errors  B reasons why an image could not be read, "" where it could
    """

    ids: list[str]
    images: NDArray[np.uint8]
    errors: list[str]

    def __len__(self) -> int:
        return len(self.ids)


def stream_images(
    inputs: Sequence[str | Path],
    preparation: Preparation,
    *,
    batch_size: int = 256,
    format: str | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> Iterator[Batch]:
    """The images of files, folders, npz files, manifests and packed stores, prepared, in batches.

    Order is kept and labels are ignored. An image that cannot be read is a row with its error. Memory is
    bounded: threads read at most a few batches ahead of the consumer. All inputs are opened before this
    returns, so a missing path raises SourceError before anything is decoded; a packed store made with
    another preparation raises StoreError.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, found {batch_size}")
    if isinstance(inputs, (str, Path)):
        inputs = [inputs]
    if not inputs:
        raise UsageError("no image was given; name a file, a folder or an npz file")
    sources = [_open(path, format, among=len(inputs)) for path in inputs]
    for source in sources:
        if source.kind == "store":
            open_prepared(source.path, preparation)
    return _batches(sources, preparation, batch_size, threads, progress)


def _open(path: str | Path, format: str | None, *, among: int) -> Source:
    """One input. Among several, a file of no known kind is one image that cannot be read: ``folder/*`` holds such."""
    place = Path(path)
    if among > 1 and format is None and place.is_file() and kind_of(place) is None:
        return open_single(place, fspath(path))
    return open_source(path, format=format)


def _batches(
    sources: list[Source], preparation: Preparation, batch_size: int, threads: int | None, progress: Progress
) -> Iterator[Batch]:
    def items() -> Iterator[tuple[Source, int, Raw | ImageError]]:
        for source in sources:
            for index in range(len(source)):
                yield source, index, fetch_or_error(source, index)

    def work(item: tuple[Source, int, Raw | ImageError]) -> tuple[str, NDArray[np.uint8] | None, str]:
        source, index, raw = item
        name = source.prefix + source.names[index]
        if source.kind == "store" and isinstance(raw, np.ndarray):
            return name, raw, ""
        result = read_one(raw, preparation)
        return (name, None, result.reason) if isinstance(result, ImageError) else (name, result[1], "")

    total, size = sum(map(len, sources)), preparation.size
    with progress.task("reading images", total, "images") as advance:
        ids: list[str] = []
        errors: list[str] = []
        images = np.zeros((min(batch_size, total), size, size, 3), dtype=np.uint8)
        for name, image, error in ordered_map(work, items(), threads=threads):
            if image is not None:
                images[len(ids)] = image
            ids.append(name)
            errors.append(error)
            if len(ids) == batch_size:
                advance(len(ids))
                yield Batch(ids, images, errors)
                ids, errors, images = [], [], np.zeros_like(images)
        if ids:
            advance(len(ids))
            yield Batch(ids, images[: len(ids)], errors)
