"""From images on disk to a CellDataset and its split. Nothing here but ``augmentation`` needs torch."""

from __future__ import annotations

from hemascope.data.inspection import Inspection, inspect_source
from hemascope.data.load import load
from hemascope.data.prepare import prepare
from hemascope.data.read_image import DecodedImage, array_to_rgb, decode_image
from hemascope.data.sources import Source, open_source
from hemascope.data.splits import Splits, load_splits, make_splits, save_splits
from hemascope.data.store import open_store, write_store
from hemascope.data.stream import Batch, stream_images

__all__ = [
    "Batch",
    "DecodedImage",
    "Inspection",
    "Source",
    "Splits",
    "array_to_rgb",
    "decode_image",
    "inspect_source",
    "load",
    "load_splits",
    "make_splits",
    "open_source",
    "open_store",
    "prepare",
    "save_splits",
    "stream_images",
    "write_store",
]
