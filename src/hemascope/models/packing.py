"""A bundle to give away: half the bytes, and proof that it says the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hemascope.models.bundle import ModelBundle
from hemascope.models.bundle_files import read_state, write_bundle_files

LARGEST_LOSS = 1e-3
"""Largest change of a tensor by half precision, as a share of its largest value; else it stays as it is."""


def halved(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Floating tensors in half precision, and the names of those left alone.

    A tensor stays as it is where half precision has no number for a value of it (above 65,504), or where it changes
    by more than LARGEST_LOSS of its largest value, as one of nothing but tiny values does. Running variances of batch
    norms stay always: outputs are divided by their roots, so the small ones matter too, and they take few bytes.
    Whole numbers are left alone and not named.
    """
    packed, kept = {}, []
    for name, value in state.items():
        small = value
        if value.is_floating_point():
            half = value.half()
            if name.endswith("running_var") or not _close(half, value):
                kept.append(name)
            else:
                small = half
        packed[name] = small
    return packed, kept


def _close(half: Tensor, value: Tensor) -> bool:
    if not value.numel():
        return True
    if not torch.isfinite(half).all():
        return False
    return bool((half.double() - value.double()).abs().max() <= LARGEST_LOSS * value.abs().max())


def write_packed(
    folder: Path,
    bundle: ModelBundle,
    *,
    half: bool,
    provenance: Mapping[str, Any],
    views: tuple[str, ...] | None = None,
) -> list[str]:
    """Write ``bundle`` to ``folder``, in half precision if asked; ``provenance`` is added to its own.

    The record names the digest of the weights it was made of, the precision, and the tensors kept whole, which are
    returned too. Raises OutputError, BundleError.
    """
    state = read_state(bundle.weights)
    kept: list[str] = []
    if half:
        state, kept = halved(state)
    packed = {"precision": "fp16" if half else "fp32", "kept_whole": kept, "made_of_sha256": bundle.sha256}
    fitted = bundle.trust
    write_bundle_files(
        folder,
        state,
        config=bundle.config,
        class_names=bundle.class_names,
        preparation=bundle.preparation,
        calibration=None if bundle.calibration is None else dict(bundle.calibration),
        provenance={**bundle.provenance, "packed": packed, **provenance},
        views=bundle.views if views is None else views,
        trust=None if fitted is None else fitted.arrays,
    )
    return kept
