"""What a stress test does to images. Kept apart from augmentation: a test made of training's code proves little."""

from hemascope.corruptions.layers import LAYERS, Layer
from hemascope.corruptions.medmnist_c import CORRUPTIONS, SEVERITIES, Corruption, corrupt, severity_strip
from hemascope.corruptions.stacks import STACKS, families, one_layer, stack

__all__ = [
    "CORRUPTIONS",
    "LAYERS",
    "SEVERITIES",
    "STACKS",
    "Corruption",
    "Layer",
    "corrupt",
    "families",
    "one_layer",
    "severity_strip",
    "stack",
]
