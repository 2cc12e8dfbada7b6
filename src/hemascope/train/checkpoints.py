"""The state of an unfinished run on disk: tensors as safetensors, the rest as JSON, nothing pickled.

A checkpoint is one folder, written beside the old one and renamed over it: a kill leaves the old or the new one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hemascope.atomic import atomic_folder, write_json
from hemascope.errors import RunError

FORMAT = 1


@dataclass
class Checkpoint:
    """tensors, by a dotted name, and plain values."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint to ``folder``, replacing what was there."""
    with atomic_folder(folder) as temporary:
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.tensors.items()}
        save_file(tensors, temporary / "state.safetensors")
        write_json(temporary / "state.json", {"format": FORMAT, **checkpoint.values})


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in ``folder``, or None where there is none. A damaged one is a RunError."""
    path = folder / "state.json"
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        tensors = load_file(folder / "state.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(f"cannot resume from {folder}: {error}. Start again with --force.") from error
    if values.get("format") != FORMAT:
        raise RunError(f"{folder} is a checkpoint of another version of hemascope. Start again with --force.")
    return Checkpoint(tensors, values)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's running averages by ``optimizer.<parameter number>.<name>``. Rates are not state here."""
    return {
        f"optimizer.{number}.{name}": torch.as_tensor(value)
        for number, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under ``prefix.<name>``."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those under ``prefix.``, by their name behind it."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
