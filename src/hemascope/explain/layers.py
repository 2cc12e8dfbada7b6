"""The layer of a backbone whose maps still have a place for everything: the last before pooling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from hemascope.errors import UsageError
from hemascope.models.classifier import Classifier


@dataclass(frozen=True)
class TargetLayer:
    """A module and how its output is laid out.

    name           as in ``backbone.named_modules()``
    channels_last  whether it gives (N, h, w, C) rather than (N, C, h, w)
    """

    name: str
    module: nn.Module
    channels_last: bool

    def channels_first(self, maps: torch.Tensor) -> torch.Tensor:
        """Its output as (N, C, h, w)."""
        return maps.permute(0, 3, 1, 2) if self.channels_last else maps


def last_spatial_layer(classifier: Classifier, size: int, *, least: int = 2) -> TargetLayer:
    """The last module of the backbone whose output is a map, for images of ``size`` pixels.

    least  places a side it must have; where no layer has so many, the last of more than one place is taken

    It is found by watching one image go through, not by a table of names, so that a new family needs no new line: the
    activation behind ``conv_head`` in an EfficientNet, the last block of a MobileNetV3 (which pools first), ``layer4``
    of a ResNet, the last stage of a ConvNeXt, the last norm of a Swin.

    Raises UsageError where there is none, as in a plain vision transformer, whose tokens are no picture.
    """
    found: list[TargetLayer] = []
    places: list[int] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4:
                layout = _layout(output.shape)
                if layout is not None:
                    found.append(TargetLayer(name, module, layout))
                    places.append(int(output.shape[1 if layout else 2]))

        return module.register_forward_hook(hook)

    # A pooling layer that does nothing and an identity hand on what another module made; the maker has the gradient.
    handles = [
        watch(name, module)
        for name, module in classifier.backbone.named_modules()
        if name and not isinstance(module, nn.Identity)
    ]
    was_training = classifier.training
    try:
        with torch.inference_mode():
            classifier.eval()(torch.zeros((1, 3, size, size), device=classifier.mean.device))
    finally:
        classifier.train(was_training)
        for handle in handles:
            handle.remove()
    if not found:
        raise UsageError(
            "this backbone has no layer that keeps the places of the picture, so no map can be drawn of it. "
            "Explain a model with a convolutional backbone, such as tf_efficientnet_lite0."
        )
    fine = [layer for layer, count in zip(found, places, strict=True) if count >= least]
    return fine[-1] if fine else found[-1]


def _layout(shape: torch.Size) -> bool | None:
    """Whether a map of a square image is channels-last; None where it has one place only or is no map."""
    _, first, second, third = shape
    if second == third:
        return None if second == 1 else False
    if first == second:
        return None if first == 1 else True
    return None
