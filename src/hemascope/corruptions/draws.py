"""Random numbers of the test: each image's depend on the seed, what is done to it and its own id, nothing else.

They come from a stream of their own, keyed by a word, so that no seed of training can ever draw the same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hemascope.errors import UsageError

_STREAM = b"hemascope stress test 1"


def image_generator(seed: int, what: str, identity: str) -> np.random.Generator:
    """The generator of one image."""
    digest = hashlib.sha256(b"\x1f".join([_STREAM, str(seed).encode(), what.encode(), identity.encode()])).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype="<u4"))


def identities(images: NDArray[np.uint8], ids: Sequence[str] | None) -> list[str]:
    """What each image's draws depend on: its id, or its place in ``images`` where there are no ids.

    Raises UsageError where ``images`` are not uint8 (N, S, S, 3) or ``ids`` are not N: levels in 0 to 1, or ids of
    other cells, would make a test of something else without a word.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise UsageError(
            f"images to corrupt must be uint8 (N, S, S, 3), square and RGB; found {images.dtype} {images.shape}"
        )
    if ids is None:
        return [str(place) for place in range(len(images))]
    if len(ids) != len(images):
        raise UsageError(f"{len(images):,} images need as many ids, found {len(ids):,}; give one for each image")
    return [str(identity) for identity in ids]
