"""Any timm image model as a backbone: images to pooled features, and its layers cut into named blocks."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from hemascope.config import ModelConfig
from hemascope.errors import ConfigError
from hemascope.torchvision_compat import import_torchvision

_VISION_TRANSFORMERS = ("vision_transformer", "deit", "eva")
"""timm modules whose networks can be told to take images of any size."""


class Backbone(nn.Module):
    """A timm network without its classifier: normalised images (N, 3, S, S) to features (N, num_features).

    name          its name in timm
    num_features  width of the pooled features, with any layers timm keeps between pooling and classifier
    mean, std     what its weights were trained with, for channel values in 0 to 1
    classifiers   timm's names of the layers that were taken off, to be dropped from files of weights
    """

    def __init__(self, net: nn.Module, name: str) -> None:
        super().__init__()
        self.net = net
        self.name = name
        traits: dict[str, Any] = getattr(net, "pretrained_cfg", None) or {}
        self.num_features = int(getattr(net, "head_hidden_size", None) or net.num_features)  # type: ignore[arg-type]
        self.mean = _three(traits.get("mean"), (0.485, 0.456, 0.406))
        self.std = _three(traits.get("std"), (0.229, 0.224, 0.225))
        classifiers = traits.get("classifier") or ()
        self.classifiers: tuple[str, ...] = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised images (N, 3, S, S) to features (N, num_features)."""
        features: torch.Tensor = self.net(x)
        return features


class Block(NamedTuple):
    """A part of a backbone that is frozen, thawed or slowed as one.

    name     the common start of its layers' names in timm, ``stem`` for layers before any stage
    members  the largest modules that lie in this block alone, and parameters that belong to no such module
    """

    name: str
    members: list[nn.Module | nn.Parameter]

    @property
    def modules(self) -> list[nn.Module]:
        """The members that are modules, to be put into training or evaluation mode."""
        return [member for member in self.members if isinstance(member, nn.Module)]

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter of the block, once."""
        for member in self.members:
            if isinstance(member, nn.Module):
                yield from member.parameters()
            else:
                yield member


def create_backbone(config: ModelConfig, **traits: Any) -> Backbone:
    """The backbone named in ``config`` with random weights; ``models.weights`` loads others.

    ``traits`` go to ``timm.create_model``. Raises ConfigError for a name timm does not know (the nearest are
    named), and for drop_path where the network has no such thing.
    """
    import_torchvision()
    import timm

    name = config.backbone
    check_backbone_name(name)
    if config.drop_path:
        traits["drop_path_rate"] = config.drop_path
    if timm.models.is_model_in_modules(name.partition(".")[0], _VISION_TRANSFORMERS):
        traits["dynamic_img_size"] = True
    traits.setdefault("pretrained", False)
    try:
        net: nn.Module = timm.create_model(name, num_classes=0, **traits)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise ConfigError(f"backbone {name!r} cannot be built as a feature extractor: {error}") from error
        raise ConfigError(f"backbone {name!r} has no stochastic depth; set model.drop_path to 0") from error
    return Backbone(net, name)


def check_backbone_name(name: str) -> None:
    """Raise ConfigError, naming the nearest, unless ``name`` is a model of timm (with or without a weights tag)."""
    import_torchvision()
    import timm

    base, _, tag = name.partition(".")
    if not timm.is_model(base) or "/" in name or ":" in name:
        near = difflib.get_close_matches(base, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them all."
        raise ConfigError(f"timm has no image model named {name!r}; {hint}")
    if tag:
        tagged = timm.list_pretrained(f"{base}.*")
        if name not in tagged:
            known = ", ".join(tagged) or "none"
            raise ConfigError(f"timm has no weights named {name!r}; those of {base} are: {known}")


def blocks(backbone: Backbone) -> list[Block]:
    """The backbone cut into blocks, first layers first; every parameter lies in exactly one.

    The cuts are timm's own (``group_matcher``), as used for its layer-wise learning rates; a network without them
    is cut at its child modules.
    """
    from timm.models import group_parameters

    net = backbone.net
    matcher = getattr(net, "group_matcher", None)
    if matcher is None:
        groups: dict[int, list[str]] = {}
        ordinals: dict[str, int] = {}
        for name, _ in net.named_parameters():
            groups.setdefault(ordinals.setdefault(name.partition(".")[0], len(ordinals)), []).append(name)
    else:
        groups = group_parameters(net, matcher(coarse=False))
    in_order = [groups[ordinal] for ordinal in sorted(groups)]
    owner = {name: index for index, names in enumerate(in_order) for name in names}
    members: list[list[nn.Module | nn.Parameter]] = [[] for _ in in_order]
    _assign(net, "", owner, members)
    return [
        Block(_block_name(names, first=index == 0), parts)
        for index, (names, parts) in enumerate(zip(in_order, members, strict=True))
    ]


def _assign(
    module: nn.Module, prefix: str, owner: dict[str, int], members: list[list[nn.Module | nn.Parameter]]
) -> None:
    """Give each block the largest modules it owns whole, so that dropout inside them follows the block's mode."""
    inside = {owner[prefix + name] for name, _ in module.named_parameters() if prefix + name in owner}
    if len(inside) == 1:
        members[inside.pop()].append(module)
        return
    for name, parameter in module.named_parameters(recurse=False):
        if prefix + name in owner:
            members[owner[prefix + name]].append(parameter)
    for name, child in module.named_children():
        _assign(child, f"{prefix}{name}.", owner, members)


def _block_name(parameters: list[str], *, first: bool) -> str:
    """``blocks.1.0`` for the parameters of ``blocks.1.0.*``. Where timm lumps layers, those named first decide."""
    layers = [name.split(".")[:-1] for name in parameters]
    layers = [layer for layer in layers if layer] or [name.split(".") for name in parameters]
    if first and len({layer[0] for layer in layers}) > 1:
        return "stem"
    layers = [layer for layer in layers if layer[0] == layers[0][0]]
    common = layers[0]
    for layer in layers[1:]:
        common = common[: next((i for i, (a, b) in enumerate(zip(common, layer, strict=False)) if a != b), len(layer))]
    return ".".join(common)


def _three(value: object, default: tuple[float, float, float]) -> tuple[float, float, float]:
    if isinstance(value, tuple | list) and len(value) == 3:
        return float(value[0]), float(value[1]), float(value[2])
    return default
