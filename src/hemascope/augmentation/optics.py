"""Loss of detail: blur, resolution, compression; and light that does not fall evenly."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageEnhance, ImageFilter
from scipy import ndimage

from hemascope.augmentation.fill import Image
from hemascope.augmentation.geometry import smooth_field
from hemascope.augmentation.median import median_filter


def _side(image: Image) -> int:
    return int(max(image.shape[:2]))


def _filtered(image: Image, kernel: NDArray[np.float32]) -> Image:
    """Correlation of each channel with one kernel, the border mirrored."""
    wide = image.astype(np.float32)
    result = np.empty_like(wide)
    for channel in range(3):
        ndimage.correlate(wide[:, :, channel], kernel, output=result[:, :, channel], mode="reflect")
    return (result + 0.5).clip(0, 255).astype(np.uint8)


def gaussian_blur(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """By a Gaussian of a standard deviation."""
    return np.asarray(Pillow.fromarray(image).filter(ImageFilter.GaussianBlur(strength * _side(image))))


def defocus_blur(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """By a disc, as a lens out of focus; its rim is smoothed over a pixel."""
    radius = strength * _side(image)
    reach = int(np.ceil(radius + 0.5))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    return _filtered(image, (kernel / kernel.sum()).astype(np.float32))


def motion_blur(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Along a straight line in a random direction."""
    half = strength * _side(image) / 2
    angle = rng.uniform(0, np.pi)
    reach = int(np.ceil(half)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    steps = np.linspace(-half, half, max(3, int(8 * half)))
    x, y = reach + steps * np.cos(angle), reach + steps * np.sin(angle)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, down = x - left, y - top
    np.add.at(kernel, (top, left), (1 - down) * (1 - right))
    np.add.at(kernel, (top, left + 1), (1 - down) * right)
    np.add.at(kernel, (top + 1, left), down * (1 - right))
    np.add.at(kernel, (top + 1, left + 1), down * right)
    return _filtered(image, (kernel / kernel.sum()).astype(np.float32))


def median_blur(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """By the median of a square; small grains vanish, edges stay."""
    width = max(3, 2 * round(strength * _side(image) / 2) + 1)
    return median_filter(image, width)


def sharpness(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Away from a smoothed copy by a factor: below 1 softer, above 1 sharper."""
    return np.asarray(ImageEnhance.Sharpness(Pillow.fromarray(image)).enhance(strength))


def _resampled(image: Image, share: float, down: Pillow.Resampling, up: Pillow.Resampling) -> Image:
    height, width = image.shape[:2]
    small = (max(2, round(width * share)), max(2, round(height * share)))
    return np.asarray(Pillow.fromarray(image).resize(small, down).resize((width, height), up))


def pixelate(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Fewer pixels, shown as squares."""
    return _resampled(image, strength, Pillow.Resampling.BOX, Pillow.Resampling.NEAREST)


def downscale(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Fewer pixels, interpolated up again; how, is drawn."""
    smooth = (Pillow.Resampling.BILINEAR, Pillow.Resampling.BICUBIC, Pillow.Resampling.LANCZOS)
    rough = (Pillow.Resampling.NEAREST, Pillow.Resampling.BOX, *smooth)
    return _resampled(image, strength, rough[int(rng.integers(len(rough)))], smooth[int(rng.integers(len(smooth)))])


def _coded(image: Image, kind: str, strength: float) -> Image:
    buffer = BytesIO()
    Pillow.fromarray(image).save(buffer, kind, quality=round(strength))
    with Pillow.open(buffer, formats=[kind]) as picture:
        return np.asarray(picture.convert("RGB"))


def jpeg(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Written as JPEG of a quality and read again."""
    return _coded(image, "JPEG", strength)


def webp(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Written as WebP of a quality and read again."""
    return _coded(image, "WEBP", strength)


def _lit(image: Image, light: NDArray[np.float32]) -> Image:
    return (image * light[:, :, None] + 0.5).clip(0, 255).astype(np.uint8)


def vignette(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Darker towards the rim, from a centre that may lie off the middle."""
    height, width = image.shape[:2]
    centre = rng.uniform(0.35, 0.65, 2)
    y, x = np.arange(height, dtype=np.float32)[:, None] / height, np.arange(width, dtype=np.float32)[None] / width
    distance = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 0.5
    return _lit(image, 1 - np.float32(strength) * np.clip(distance, 0, 1) ** np.float32(rng.uniform(0.7, 1.5)))


def light_gradient(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Darker on one side, brighter on the other."""
    height, width = image.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    x = np.linspace(-1, 1, width, dtype=np.float32)[None] * np.float32(np.cos(angle))
    return _lit(image, 1 + np.float32(strength) * (x + y))


def shading(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Brighter and darker patches without edges, as dirt far out of focus makes."""
    field = smooth_field(rng, (image.shape[0], image.shape[1]), int(rng.integers(3, 6)))
    return _lit(image, 1 + np.float32(strength) * field)
