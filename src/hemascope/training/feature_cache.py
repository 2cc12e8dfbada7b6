"""Features of a frozen backbone, kept for the next run that asks for the same ones.

A study trains many heads on the features of one backbone, and every fine-tuning begins with them: they are computed
once. Only features that no chance went into are kept, for those of augmented views are never asked for twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hemascope.atomic import atomic_path
from hemascope.data.load import default_cache
from hemascope.errors import OutputError

if TYPE_CHECKING:
    from torch import nn

    from hemascope.cells import CellDataset
    from hemascope.runtime import Runtime

VERSION = 1

LARGEST = 2**30
"""Bytes of features beyond which they are computed anew: a cache nobody empties must not fill a disk."""


def feature_key(
    backbone: nn.Module, cells: CellDataset, rows: NDArray[np.int64], size: int, runtime: Runtime, buffers: list[Tensor]
) -> str:
    """What the features of ``rows`` depend on, as a digest: weights, pixels, size, and how it is computed.

    buffers  what the pixels are normalised with
    """
    digest = hashlib.sha256(f"{VERSION} {size} {runtime.precision} {runtime.device.partition(':')[0]}".encode())
    digest.update(f"{cells.fingerprint()} {cells.preparation} {type(backbone).__name__} {torch.__version__}".encode())
    digest.update(np.ascontiguousarray(rows, dtype=np.int64).tobytes())
    for name, value in (*backbone.state_dict().items(), *((str(k), one) for k, one in enumerate(buffers))):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def kept_or_computed(key: str, shape: tuple[int, int], compute: Callable[[], Tensor]) -> Tensor:
    """Features float32 of ``shape`` (n, D) from the cache, else from ``compute``, kept for the next time.

    A damaged file is computed anew; a cache that cannot be written is done without.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    if shape[0] * shape[1] * 4 > LARGEST:
        return compute()
    try:
        path = default_cache() / "features" / f"{key}.safetensors"
    except OutputError:
        return compute()
    try:
        found = load_file(path)["features"]
        if found.shape == shape and found.dtype == torch.float32:
            return found
    except (OSError, KeyError, SafetensorError):
        pass
    features = compute()
    try:
        with atomic_path(path) as temporary:
            save_file({"features": features.contiguous()}, temporary)
    except (OSError, OutputError, SafetensorError):
        pass  # the run needs its features, not the cache
    return features
