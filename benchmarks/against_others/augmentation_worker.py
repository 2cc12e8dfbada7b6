"""One library, in a process of its own, told over its standard input what to measure.

    python -m against_others.augmentation_worker LIBRARY IMAGES.npz SEED

IMAGES.npz holds uint8 (N, S, S, 3) for each size S under the name str(S). A line in is JSON: ``{"name": ..., "size":
..., "seconds": ...}`` measures one function for about so long and answers ``{"seconds_an_image": ...}``: CPU seconds
of this process, so that other programs on the machine take nothing away; ``{"name": ..., "size": ..., "save": PATH}``
writes what comes of the images instead. The first line out says versions and, for each function that fails here, why.
Needs numpy and the library alone.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from importlib import metadata
from typing import Any

import numpy as np

MODULES = {
    "hemascope": ("augmentation_ours", "native"),
    "torchvision_tensor": ("augmentation_torchvision", "tensor_native"),
    "torchvision_pillow": ("augmentation_torchvision", "pillow_native"),
    "timm": ("augmentation_timm", "native"),
    "albumentations": ("augmentation_albumentations", "native"),
}


def failures(functions: dict[int, Any], images: dict[int, list[Any]]) -> dict[str, str]:
    """Functions that raise on an image, and the first line of what they say."""
    found = {}
    for size, by_name in functions.items():
        for name, function in by_name.items():
            try:
                function(images[size][0])
            except Exception as error:  # noqa: BLE001 - whatever another library raises is its answer
                found[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return found


def seconds_an_image(function: Any, images: list[Any], least: float) -> float:
    """CPU seconds, over passes through all images until ``least`` seconds are spent."""
    passes, started = 0, time.process_time()
    while True:
        for image in images:
            function(image)
        passes += 1
        spent = time.process_time() - started
        if spent >= least:
            return spent / (passes * len(images))


def main() -> None:
    library, path, seed = sys.argv[1:]
    module_name, native_name = MODULES[library]
    module = importlib.import_module(f"against_others.{module_name}")
    with np.load(path, allow_pickle=False) as arrays:
        originals = {int(size): arrays[size] for size in arrays.files}
    native = getattr(module, native_name)
    images = {size: [native(np.ascontiguousarray(image)) for image in batch] for size, batch in originals.items()}
    functions = {size: dict(module.functions(size, int(seed))) for size in originals}
    failed = failures(functions, images)
    names = [name for name in next(iter(functions.values())) if name not in failed]
    versions = {package: metadata.version(package) for package in module.PACKAGES}
    answer({"names": names, "failed": failed, "versions": versions})
    for line in sys.stdin:
        asked = json.loads(line)
        size = asked["size"]
        function = functions[size][asked["name"]]
        if "save" in asked:
            np.save(asked["save"], np.stack([module.array(function(image)) for image in images[size]]))
            answer({})
        else:
            answer({"seconds_an_image": seconds_an_image(function, images[size], asked["seconds"])})


def answer(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
