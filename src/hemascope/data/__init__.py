"""From images on disk to a CellDataset and its split. Nothing here but ``augmentation`` needs torch."""

from __future__ import annotations

from hemascope.data.load import load
from hemascope.data.prepare import prepare
from hemascope.data.read_image import DecodedImage, array_to_rgb, decode_image
from hemascope.data.sources import Source, open_source
from hemascope.data.store import open_store, write_store
from hemascope.data.stream import Batch, stream_images

__all__ = [
    "Batch",
    "DecodedImage",
    "Source",
    "array_to_rgb",
    "decode_image",
    "load",
    "open_source",
    "open_store",
    "prepare",
    "stream_images",
    "write_store",
]
