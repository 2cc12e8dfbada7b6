"""A bundle to give away: half the bytes, and proof that it says the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hemascope.models.bundle import ModelBundle
from hemascope.models.bundle_files import read_state, write_bundle_files

LARGEST_LOSS = 2e-3
"""Largest relative change of a tensor's largest value that half precision may make; else it stays as it is."""


def halved(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Floating tensors in half precision, and the names of those left alone.

    A tensor stays as it is where half precision has no number for a value of it (above 65,504), or where it changes
    by more than LARGEST_LOSS of its largest value; running variances of batch norms, which are divided by, stay always.
    """
    packed, kept = {}, []
    for name, value in state.items():
        small = value.half() if value.is_floating_point() else value
        if value.is_floating_point():
            error = (small.float() - value.float()).abs().max() if value.numel() else torch.zeros(())
            largest = value.abs().max() if value.numel() else torch.zeros(())
            if name.endswith("running_var") or not torch.isfinite(small).all() or error > LARGEST_LOSS * largest:
                small = value
                kept.append(name)
        packed[name] = small
    return packed, kept


def write_packed(folder: Path, bundle: ModelBundle, *, half: bool, provenance: Mapping[str, Any]) -> list[str]:
    """Write ``bundle`` to ``folder``, in half precision if asked; ``provenance`` is added to its own.

    Returns the names of the tensors that were kept whole. Raises OutputError, BundleError.
    """
    state = read_state(bundle.weights)
    kept: list[str] = []
    if half:
        state, kept = halved(state)
    write_bundle_files(
        folder,
        state,
        config=bundle.config,
        class_names=bundle.class_names,
        preparation=bundle.preparation,
        calibration=None if bundle.calibration is None else dict(bundle.calibration),
        provenance={**bundle.provenance, **provenance},
    )
    return kept
