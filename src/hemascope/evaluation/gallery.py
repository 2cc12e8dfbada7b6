"""Pictures of what went wrong, for a person to look at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.atomic import atomic_path, output_error
from hemascope.errors import DataError
from hemascope.evaluation.record import scorable
from hemascope.evaluation.table import as_utf8
from hemascope.results import Mistake, Predictions

THUMBNAIL = 128
"""Longest side of a picture, in pixels. Smaller images are left as they are."""

_OURS = re.compile(r"(worst|certain)-\d{3,}\.png")


class Images(Protocol):
    """N images, uint8 (S, S, 3) each: an array, a memory map, anything indexed by row."""

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def __getitem__(self, index: int, /) -> NDArray[np.uint8]:
        """The image of one row."""
        ...


def save_gallery(
    folder: Path, predictions: Predictions, images: Images, *, count: int
) -> tuple[list[Mistake], list[Mistake]]:
    """Save thumbnails of up to ``count`` worst and ``count`` most certain mistakes; return both lists, worst first.

    Worst: the true class got the least probability. Certain: the wrong class got the most. Equal ones keep their
    order. ``images`` holds the N images of ``predictions``, row by row; only the chosen ones are read.

    Pictures are PNG files in ``folder``, named by rank (worst-001.png, certain-001.png): nothing of a user's text
    gets into a file name. Pictures left from an earlier, longer gallery are removed; other files are not touched.
    Raises DataError where rows do not match or an image is not uint8 RGB, OutputError where writing fails.
    """
    if len(images) != len(predictions):
        raise DataError(f"a gallery needs one image for each of {len(predictions)} predictions, found {len(images)}")
    keep = scorable(predictions)
    assert predictions.labels is not None  # scorable() has checked
    predicted = predictions.predicted
    wrong = np.flatnonzero(keep & (predicted != predictions.labels))
    given_true = predictions.probs[wrong, predictions.labels[wrong]]
    given_wrong = predictions.probs[wrong, predicted[wrong]]
    written: set[str] = set()
    galleries = []
    for kind, order in (("worst", np.argsort(given_true, kind="stable")), ("certain", _descending(given_wrong))):
        gallery = []
        for rank, chosen in enumerate(order[:count].tolist(), start=1):
            row = int(wrong[chosen])
            name = f"{kind}-{rank:03d}.png"
            _save_thumbnail(folder / name, images[row])
            written.add(name)
            gallery.append(
                Mistake(
                    id=as_utf8(predictions.ids[row]),
                    picture=name,
                    true_label=as_utf8(predictions.class_names[predictions.labels[row]]),
                    predicted_label=as_utf8(predictions.class_names[predicted[row]]),
                    probability=float(given_wrong[chosen]),
                    true_probability=float(given_true[chosen]),
                )
            )
        galleries.append(gallery)
    _remove_surplus(folder, written)
    return galleries[0], galleries[1]


def _descending(values: NDArray[np.float32]) -> NDArray[np.intp]:
    return np.argsort(-values, kind="stable")


def _save_thumbnail(path: Path, image: NDArray[np.uint8]) -> None:
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise DataError(f"images must be uint8 (height, width, 3), found {pixels.dtype} {pixels.shape}")
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def _remove_surplus(folder: Path, written: set[str]) -> None:
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        if _OURS.fullmatch(file.name) and file.name not in written:
            try:
                file.unlink()
            except OSError as error:
                raise output_error(file, error) from error
