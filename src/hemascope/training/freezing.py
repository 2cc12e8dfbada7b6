"""Which parts of the network learn in a stage."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from torch import nn

from hemascope.errors import ConfigError

if TYPE_CHECKING:
    from hemascope.models.classifier import Classifier

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


def trainable_blocks(plan: str, names: list[str], epoch: float) -> set[str]:
    """The names of the backbone's blocks that learn under ``plan`` at ``epoch``.

    plan   all, head, last:N, from:NAME or gradual:N (the last N blocks after one epoch, N more each epoch;
           the head alone in the first)
    names  the blocks in order, first layers first
    """
    kind, _, argument = plan.partition(":")
    if kind == "all" and not argument:
        return set(names)
    if kind == "head" and not argument:
        return set()
    if kind == "from" and argument:
        if argument not in names:
            near = difflib.get_close_matches(argument, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"trainable: this backbone has no block {argument!r}{hint} It has {', '.join(names)}.")
        return set(names[names.index(argument) :])
    if kind in ("last", "gradual") and argument.isdigit() and int(argument) > 0:
        count = int(argument) if kind == "last" else int(argument) * int(epoch)
        if kind == "last" and count > len(names):
            raise ConfigError(f"trainable: {plan!r} asks for {count} blocks; this backbone has {len(names)}.")
        return set(names[len(names) - min(count, len(names)) :])
    raise ConfigError(f"trainable must be all, head, last:N, from:NAME or gradual:N, found {plan!r}")


def apply_plan(model: Classifier, plan: str, epoch: float, *, freeze_batchnorm: bool) -> tuple[str, ...]:
    """Set which parameters learn, put frozen blocks into evaluation mode, and return the learning blocks' names.

    A frozen block's batch norms keep their running statistics: a layer that does not learn must not drift either.
    """
    from hemascope.models.backbones import blocks

    parts = blocks(model.backbone)
    learning = trainable_blocks(plan, [part.name for part in parts], epoch)
    model.train()
    for part in parts:
        for parameter in part.parameters():
            parameter.requires_grad_(part.name in learning)
        if part.name not in learning:
            for module in part.modules:
                module.eval()
    for parameter in model.head.parameters():
        parameter.requires_grad_(True)
    if freeze_batchnorm:
        for module in model.backbone.modules():
            if isinstance(module, _BATCH_NORMS):
                module.eval()
    return tuple(part.name for part in parts if part.name in learning)
