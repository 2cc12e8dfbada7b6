"""Augmentation: policies applied to images. numpy and Pillow only, so that worker processes start fast."""

from hemascope.augmentation.batch import Augmentation, position_generator
from hemascope.augmentation.registry import FUNCTIONS
from hemascope.augmentation.walk import augmented, operated

__all__ = ["FUNCTIONS", "Augmentation", "augmented", "operated", "position_generator"]
