"""Pictures that do not belong, planted: photographs laid over cells, textures, text, other stains, drawn cells.

The photographs are those that scikit-learn and matplotlib carry, and any in a folder given: here the photographs inside
the package scikit-image. None of them, and none of these ways of staining, is used by the check itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

TEXTURES = ("brick", "grass", "gravel")
TEXTS = ("page", "text")
STAINS = {
    "Feulgen and light green": ((0.464, 0.830, 0.308), (0.947, 0.254, 0.197)),
    "haematoxylin and DAB": ((0.650, 0.704, 0.286), (0.268, 0.570, 0.776)),
    "alcian blue and haematoxylin": ((0.875, 0.458, 0.158), (0.553, 0.754, 0.354)),
}
"""Optical densities of pairs of dyes in R, G, B (Ruifrok and Johnston 2001; values as scikit-image tabulates them)."""

MAY_GRUENWALD_GIEMSA = ((0.834, 0.513, 0.196), (0.092, 0.954, 0.283))


class Photographs:
    """Photographs, cut anew each time one is asked for."""

    def __init__(self, folder: Path | None, *, half: int | None = None) -> None:
        """``half`` 0 or 1 takes every other photograph only: settings were chosen on half 0."""
        import matplotlib
        import sklearn.datasets

        places = [
            Path(sklearn.datasets.__file__).parent / "images",
            Path(matplotlib.get_data_path()) / "sample_data",
            *([folder] if folder else []),
        ]
        found = {
            path.stem: path
            for place in places
            for path in place.iterdir()
            if path.suffix in (".jpg", ".png") and path.stem != "logo2"
        }
        special = {*TEXTURES, *TEXTS}
        names = sorted(name for name in found if name not in special)
        self.names = names if half is None else names[half::2]
        self._pixels = {name: np.asarray(Image.open(path).convert("RGB")) for name, path in found.items()}

    def cut(self, rng: np.random.Generator, side: int, *, among: tuple[str, ...] | None = None) -> Pixels:
        """A square of 0.35 to 1 times the shorter side, anywhere, perhaps mirrored, at ``side`` pixels."""
        names = among or tuple(self.names)
        pixels = self._pixels[names[rng.integers(len(names))]]
        height, width = pixels.shape[:2]
        size = int(min(height, width) * rng.uniform(0.35, 1))
        top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
        square = Image.fromarray(pixels[top : top + size, left : left + size])
        made = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC))
        return made[:, ::-1] if rng.random() < 0.5 else made

    def has(self, name: str) -> bool:
        return name in self._pixels


def laid_over(cell: Pixels, picture: Pixels, opacity: float) -> Pixels:
    """``picture`` over ``cell``, both uint8 (S, S, 3)."""
    mixed = (1 - opacity) * cell.astype(np.float32) + opacity * picture
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def restained(cell: Pixels, stain: str) -> Pixels:
    """The cell as two other dyes would show it: unmixed into the two it has, mixed with the others."""
    density = -np.log((cell.reshape(-1, 3).astype(np.float64) + 1) / 256)
    own = np.array(MAY_GRUENWALD_GIEMSA)
    amounts = np.clip(density @ np.linalg.pinv(own), 0, None)
    mixed = 256 * np.exp(-amounts @ np.array(STAINS[stain])) - 1
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8).reshape(cell.shape)
