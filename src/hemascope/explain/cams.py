"""Maps of where a model looked: of its layers by the library grad-cam, and two that need no layer."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hemascope.errors import DataError, MissingExtraError, UsageError
from hemascope.explain.attribution import ATTRIBUTIONS
from hemascope.explain.layers import last_spatial_layer
from hemascope.explain.target import MarginTarget
from hemascope.models.bundle import ModelBundle
from hemascope.models.classifier import Classifier
from hemascope.names import listed
from hemascope.progress import SILENT, Progress
from hemascope.torchvision_compat import import_torchvision

CAMS = ("gradcam", "hirescam", "gradcam++", "scorecam")
"""Grad-CAM (Selvaraju et al. 2017), HiResCAM (Draelos and Carin 2020), Grad-CAM++ (Chattopadhay et al. 2018),
Score-CAM (Wang et al. 2020)."""

METHODS = (*ATTRIBUTIONS, *CAMS)
"""The first is the default: the one whose maps hold and are about the class they are asked for (docs/explain.md)."""

DEFAULT = METHODS[0]

LEAST_PLACES = 5
"""A CAM is made of the last layer with so many places a side: 3 x 3 do not say where anything is."""

MISSING = 'Class activation maps need grad-cam, which is not installed. Install it: pip install "hemascope[explain]"'

_BATCH = 16
_PROBES = 64


@dataclass(frozen=True)
class Explanation:
    """Maps of N images by one method.

    method   of METHODS
    heat     float32 (N, S, S), 0 to 1 in each map; all zero where nothing speaks for the class
    target   int64 (N,): the class explained
    layer    name of the layer whose maps were weighted
    """

    method: str
    heat: NDArray[np.float32]
    target: NDArray[np.int64]
    layer: str


def explain_images(
    model: ModelBundle | Classifier,
    images: NDArray[np.uint8],
    *,
    method: str = DEFAULT,
    target: NDArray[np.int64] | None = None,
    progress: Progress = SILENT,
) -> Explanation:
    """Maps of prepared images, uint8 (N, S, S, 3), for the ``target`` classes, int (N,); None: those predicted.

    A bundle is explained on the CPU, a classifier where it is, in fp32. Explained is the margin of the class over the
    others. A CAM is the mean over the image's eight symmetries, turned back (Score-CAM, which is slow, of one pass).

    Raises UsageError for an unknown method and a backbone without maps, DataError for images of another shape and
    targets that do not fit, MissingExtraError without grad-cam.
    """
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}; there are {listed(METHODS)}.")
    library = check_library() if method in CAMS else None
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
        raise DataError(f"images must be uint8 (N, S, S, 3), found {images.dtype} {images.shape}")
    classifier = (model.build() if isinstance(model, ModelBundle) else model).eval()
    predicted = predict_classes(classifier, images)
    chosen = predicted if target is None else np.asarray(target, dtype=np.int64)
    if chosen.shape != (len(images),):
        raise DataError(f"target must have one class for each of {len(images)} images, found shape {chosen.shape}")
    heat = np.zeros(images.shape[:3], dtype=np.float32)
    with progress.task(f"explaining with {method}", len(images), "images") as advance:
        if library is None:
            for row, (image, one) in enumerate(zip(images, chosen.tolist(), strict=True)):
                heat[row] = ATTRIBUTIONS[method](classifier, image, one)
                advance(1)
            return Explanation(method, heat, chosen, "")
        layer = last_spatial_layer(classifier, images.shape[1], least=LEAST_PLACES)
        cam = _methods(library)[method](classifier, [layer.module], layer.channels_first)
        step = 1 if method == "scorecam" else _BATCH  # Score-CAM runs one pass a channel
        try:
            for start in range(0, len(images), step):
                rows = slice(start, start + step)
                heat[rows] = _turned_mean(cam, classifier, images[rows], chosen[rows], alone=method == "scorecam")
                advance(len(images[rows]))
        finally:
            # Not the library's own context manager, which prints and swallows an IndexError.
            cam.activations_and_grads.release()
            classifier.zero_grad(set_to_none=True)
    return Explanation(method, heat.clip(0, 1), chosen, layer.name)


def _turned_mean(
    cam: Callable[..., Any],
    classifier: Classifier,
    images: NDArray[np.uint8],
    targets: NDArray[np.int64],
    *,
    alone: bool,
) -> NDArray[np.float32]:
    """The maps of a batch, mean over the eight symmetries of the square, each turned back; or of the images alone."""
    total = np.zeros(images.shape[:3], dtype=np.float32)
    views = [(False, 0)] if alone else [(mirrored, turns) for mirrored in (False, True) for turns in range(4)]
    for mirrored, turns in views:
        seen = np.rot90(images, turns, (1, 2))
        seen = np.ascontiguousarray(seen[:, :, ::-1] if mirrored else seen)
        with torch.enable_grad():
            # Gradients flow to the layer because the pixels ask for them; weights may be frozen.
            pixels = pixels_of(seen, classifier).requires_grad_(True)
            found = np.nan_to_num(cam(input_tensor=pixels, targets=[MarginTarget(int(one)) for one in targets]))
        found = found[:, :, ::-1] if mirrored else found
        total += np.rot90(found, -turns, (1, 2))
    return np.asarray(total / len(views), dtype=np.float32)


def pixels_of(images: NDArray[np.uint8], classifier: Classifier) -> torch.Tensor:
    """uint8 (N, S, S, 3) as float (N, 3, S, S), 0 to 255, where the classifier is."""
    own = np.array(images, order="C")  # a memory map is read-only, and torch wants to be able to write
    return torch.from_numpy(own).permute(0, 3, 1, 2).to(classifier.mean.device, torch.float32)


def predict_probs(classifier: Classifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (N, K) of prepared images, one plain pass each."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), _PROBES):
            parts.append(classifier(pixels_of(images[start : start + _PROBES], classifier)).softmax(1).cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)


def predict_classes(classifier: Classifier, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The likeliest class of each image: int64 (N,)."""
    classes: NDArray[np.int64] = predict_probs(classifier, images).argmax(axis=1).astype(np.int64)
    return classes


def check_library() -> types.ModuleType:
    """The library grad-cam. Raises MissingExtraError, which names the line that installs it."""
    import_torchvision()  # which grad-cam imports too, and which may need help beside this torch
    try:
        import pytorch_grad_cam
    except ImportError as error:
        raise MissingExtraError(MISSING) from error
    module: types.ModuleType = pytorch_grad_cam
    return module


def _methods(library: types.ModuleType) -> dict[str, Callable[..., Any]]:
    class QuietScoreCAM(library.ScoreCAM):  # type: ignore[misc,name-defined]
        """The library's, without its progress bar, and with a few channels scaled up at a time instead of all."""

        def get_cam_weights(
            self,
            input_tensor: torch.Tensor,
            target_layer: object,
            targets: Sequence[Callable[[torch.Tensor], torch.Tensor]],
            activations: NDArray[np.float32],
            grads: object,
        ) -> NDArray[np.float32]:
            rows = []
            with torch.inference_mode():
                for image, target, maps in zip(input_tensor, targets, activations, strict=True):
                    scores = [
                        torch.stack([target(output) for output in self.model(image[None] * mask)])
                        for mask in _masks(torch.from_numpy(maps).to(image.device), image.shape[-1])
                    ]
                    rows.append(torch.cat(scores).softmax(0).cpu().numpy())
            weights: NDArray[np.float32] = np.stack(rows)
            return weights

    return {
        "gradcam": library.GradCAM,
        "hirescam": library.HiResCAM,
        "gradcam++": library.GradCAMPlusPlus,
        "scorecam": QuietScoreCAM,
    }


def _masks(maps: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """Maps (C, h, w) as masks in 0 to 1 of ``size`` pixels, some at a time: (B, 1, size, size)."""
    for start in range(0, len(maps), _PROBES):
        part = maps[start : start + _PROBES, None]
        large = torch.nn.functional.interpolate(part, (size, size), mode="bilinear", align_corners=True)
        low, high = large.amin((2, 3), keepdim=True), large.amax((2, 3), keepdim=True)
        yield (large - low) / (high - low + 1e-8)
