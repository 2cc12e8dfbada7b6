"""Import torchvision beside a torch it was not linked for.

torchvision's compiled operators load only with the very torch build they were linked against: a CPU build of torch
next to a CUDA build of torchvision (what an index serves by default) fails on import with "operator
torchvision::nms does not exist", and then the same for ``qnms``. Nothing here uses those detection operators; the
transforms and models are plain Python. Declaring the missing operator's schema is enough for the import to succeed.
Where torchvision imports as it is, this module changes nothing.
"""

from __future__ import annotations

import re
import sys

_MISSING = re.compile(r"operator (torchvision::\w+) does not exist")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision() -> None:
    """Make ``import torchvision`` work. Call before importing torchvision or timm."""
    declared: set[str] = set()
    while True:
        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            found = _MISSING.search(str(error))
            if found is None or found[1] in declared:
                raise
            import torch

            torch.library.define(found[1], _SCHEMA)
            declared.add(found[1])
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]  # a half-imported package would hide the second attempt
        else:
            return
