"""A copy of a classifier that predicts faster and says the same."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hemascope.models.classifier import Classifier

_TOLERANCE = 1e-4
"""Largest difference of a probability between the copy and the original, on a probe."""


def inference_copy(model: Classifier, size: int) -> Classifier:
    """``model`` for prediction: batch norms folded into the convolutions before them, channels-last memory.

    Folding (y = (w·x - m)·s + b is one convolution of weight w·s) is exact up to rounding. Which norm follows
    which convolution is read off the order of the layers, so the copy is probed with one image of ``size`` pixels,
    and thrown away for an unfolded one where it differs.

    It costs nothing before the first prediction; ``traced`` is faster still once there are many.
    """
    plain = _channels_last(copy.deepcopy(model).eval().requires_grad_(False))
    folded = copy.deepcopy(plain)
    count = fold_batch_norms(folded)
    if not count:
        return plain
    _channels_last(folded)
    device = plain.mean.device
    generator = torch.Generator().manual_seed(0)
    probe = torch.randint(0, 256, (1, 3, size, size), generator=generator, dtype=torch.uint8).to(device)
    with torch.inference_mode():
        expected, found = (net(probe).softmax(dim=1) for net in (plain, folded))
    same = torch.allclose(expected, found, rtol=0, atol=_TOLERANCE, equal_nan=True)
    return folded if same else plain


def traced(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """``model``, of an inference copy, as a frozen TorchScript graph: half as fast again on a CPU, after seconds.

    model   gives logits first, then what else is seen, each (B, any)
    images  uint8 (B, 3, S, S), a batch like those to come; B may differ later, S may not

    ``model`` itself is returned where it cannot be traced or its graph says anything else on ``images``.
    """
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every shape it fixes; S is fixed on purpose
        try:
            traced_model = torch.jit.trace(model, images, check_trace=False)  # type: ignore[no-untyped-call]
            graph = torch.jit.freeze(traced_model)
            found, few = graph(images), graph(images[:1])
        except RuntimeError:
            return model
        expected = model(images)
    return graph if _alike(expected, found) and _alike([part[:1] for part in expected], few) else model


def _alike(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> bool:
    """Whether logits give the same probabilities, and all else is the same on the scale of its largest value."""
    pairs = [(expected[0].softmax(dim=1), found[0].softmax(dim=1))]
    for one, other in zip(expected[1:], found[1:], strict=True):
        scale = float(one.abs().max().nan_to_num(0).clamp_min(1)) if one.numel() else 1.0
        pairs.append((one / scale, other / scale))
    return all(torch.allclose(one, other, rtol=0, atol=_TOLERANCE, equal_nan=True) for one, other in pairs)


def fold_batch_norms(model: nn.Module) -> int:
    """Fold, in place, each batch norm that stands right behind a plain convolution. Returns how many.

    A convolution that computes its weights anew (weight standardisation) and a norm without running statistics are
    left alone. timm's norms carry their activation along; it stays where the norm was.
    """
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.norm_act import BatchNormAct2d

    count = 0
    for parent in list(model.modules()):
        children = list(parent.named_children())
        for (conv_name, conv), (norm_name, norm) in pairwise(children):
            if type(conv) not in (nn.Conv2d, Conv2dSame) or type(norm) not in (nn.BatchNorm2d, BatchNormAct2d):
                continue  # subclasses may compute something else
            if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
                continue
            if norm.running_mean is None or norm.num_features != conv.out_channels:
                continue
            setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
            rest = [norm.drop, norm.act] if isinstance(norm, BatchNormAct2d) else []
            setattr(parent, norm_name, nn.Sequential(*(layer for layer in rest if not isinstance(layer, nn.Identity))))
            count += 1
    return count


def _channels_last(model: Classifier) -> Classifier:
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's annotations lack it
    return model
