"""The layer of a backbone whose maps still have a place for everything: the last before pooling."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import torch
from torch import nn

from hemascope.errors import UsageError
from hemascope.models.classifier import Classifier


@dataclass(frozen=True)
class TargetLayer:
    """A module and how its output is laid out.

    name           as in ``backbone.named_modules()``
    channels_last  whether it gives (N, h, w, C) rather than (N, C, h, w)
    prefix         of a transformer's tokens (N, T, C): how many stand before those of the picture; None for maps
    """

    name: str
    module: nn.Module
    channels_last: bool
    prefix: int | None = None

    def channels_first(self, maps: torch.Tensor) -> torch.Tensor:
        """Its output as (N, C, h, w)."""
        if self.prefix is not None:
            tokens = maps[:, self.prefix :]
            side = isqrt(tokens.shape[1])
            return tokens.reshape(len(tokens), side, side, tokens.shape[2]).permute(0, 3, 1, 2)
        return maps.permute(0, 3, 1, 2) if self.channels_last else maps


def last_spatial_layer(classifier: Classifier, size: int, *, least: int = 2) -> TargetLayer:
    """The last module of the backbone whose output is a map, for images of ``size`` pixels.

    least  places a side it must have; where no layer has so many, the last of more than one place is taken

    It is found by watching one image go through, not by a table of names, so that a new family needs no new line: the
    activation behind ``conv_head`` in an EfficientNet, the last block of a MobileNetV3 (which pools first), ``layer4``
    of a ResNet, the last stage of a ConvNeXt, the last norm of a Swin. A vision transformer's tokens are put back into
    their places; its layer is the one before the last attention where only the class token is read after it.

    Raises UsageError where there is none.
    """
    prefix = getattr(classifier.backbone.net, "num_prefix_tokens", None)
    if isinstance(prefix, int):
        tokens = _last_tokens(classifier, size, prefix)
        if tokens is not None:
            return tokens
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


def _last_tokens(classifier: Classifier, size: int, prefix: int) -> TargetLayer | None:
    """The last layer whose tokens of the picture still reach the features; None without any."""
    width = int(classifier.backbone.net.num_features)  # type: ignore[arg-type]
    found: list[tuple[TargetLayer, torch.Tensor]] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 3 and output.shape[2] == width:
                places = output.shape[1] - prefix
                if places > 1 and isqrt(places) ** 2 == places:
                    found.append((TargetLayer(name, module, False, prefix), output))

        return module.register_forward_hook(hook)

    handles = [
        watch(name, module)
        for name, module in classifier.backbone.named_modules()
        if name and not isinstance(module, nn.Identity)
    ]
    was_training = classifier.training
    draw = torch.Generator().manual_seed(0)
    device = classifier.mean.device
    try:
        with torch.enable_grad():
            image = torch.randn((1, 3, size, size), generator=draw).to(device).requires_grad_(True)
            features = classifier.eval().backbone(image)
            # In a direction drawn at random: the plain sum of what a layer norm gives does not depend on the image.
            reached = (features * torch.randn(features.shape, generator=draw).to(device)).sum()
            slopes = torch.autograd.grad(reached, [output for _, output in found], allow_unused=True) if found else ()
    finally:
        classifier.train(was_training)
        for handle in handles:
            handle.remove()
    read = [
        layer
        for (layer, _), slope in zip(found, slopes, strict=True)
        if slope is not None and bool(slope[:, prefix:].any())
    ]
    return read[-1] if read else None


def _layout(shape: torch.Size) -> bool | None:
    """Whether a map of a square image is channels-last; None where it has one place only or is no map."""
    _, first, second, third = shape
    if second == third:
        return None if second == 1 else False
    if first == second:
        return None if first == 1 else True
    return None
