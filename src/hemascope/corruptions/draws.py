"""Random numbers of the test: each image's depend on the seed, what is done to it and its own id, nothing else.

They come from a stream of their own, keyed by a word, so that no seed of training can ever draw the same ones.
"""

from __future__ import annotations

import hashlib

import numpy as np

_STREAM = b"hemascope stress test 1"


def image_generator(seed: int, what: str, identity: str) -> np.random.Generator:
    """The generator of one image."""
    digest = hashlib.sha256(b"\x1f".join([_STREAM, str(seed).encode(), what.encode(), identity.encode()])).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
