"""The state of an unfinished run on disk: tensors as safetensors, the rest as JSON in its header, nothing pickled.

A checkpoint is one file, written beside the old one and renamed over it: a kill leaves the old or the new one. (Two
files would need a folder, and a folder cannot be replaced in one step.)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hemascope.atomic import atomic_path
from hemascope.errors import OutputError, RunError

FORMAT = 1
_HEADER = "hemascope_checkpoint"


@dataclass
class Checkpoint:
    """tensors, by a dotted name, and plain values."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint to ``path``, replacing what was there. Raises OutputError where it cannot."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.tensors.items()}
    values = json.dumps({"format": FORMAT, **checkpoint.values}, allow_nan=False)
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_HEADER: values})
        except SafetensorError as error:
            raise OutputError(f"cannot write {path}: {error}. Free some space, then go on with --resume.") from error


def load_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint at ``path``, or None where there is none. A damaged one is a RunError."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {}).get(_HEADER, "{}"))
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(f"cannot resume from {path}: {error}. Start again with --force.") from error
    if values.get("format") != FORMAT:
        raise RunError(f"{path} is a checkpoint of another version of hemascope. Start again with --force.")
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
    """Put back what ``optimizer_tensors`` gave.

    Averages get the memory order of their parameter, as the optimiser itself gives them: the same numbers in
    another order may be rounded otherwise by vectorised code.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in without_prefix("optimizer", tensors).items():
        number, _, name = key.partition(".")
        parameter = parameters[int(number)]
        restored = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
        state.setdefault(int(number), {})[name] = restored.detach()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under ``prefix.<name>``."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those under ``prefix.``, by their name behind it."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
