"""imagededup's hashes of a folder of images, and the pairs it calls duplicates, as one npz file.

    OTHER_PYTHON imagededup_checks.py FOLDER OUT.npz --methods PHash DHash WHash AHash
    OTHER_PYTHON imagededup_checks.py FOLDER OUT.npz --methods CNN --cnn-weights mobilenet_v3_small.pth

Run by the Python of an environment that holds imagededup; nothing of hemascope is needed. Written, for N images:

    names               text (N,), paths inside the folder
    <method>_codes      uint64 (N,), the 64-bit hashes: the Hamming distance of any pair can be had from them
    <method>_pairs      int64 (P, 2), the pairs at imagededup's default threshold (10 bits; for CNN a cosine of 0.9)
    <method>_distances  float64 (P,), bits, or 1 - cosine
    <method>_seconds    of hashing and of searching; start and imports are not counted
    <method>_left_out   text, why there are no pairs, "" where there are

The search compares every image with every other and takes minutes at 10,000 images: --search names the methods it is
made for, all by default. Hashes of cells lie close together: some methods call millions of pairs duplicates at the
default, more than a process holds as Python lists. From --max-pairs on (estimated on a sample) the search is left out.

The CNN method needs the weights of a MobileNetV3 that torchvision downloads; without a network give them as a file
(a state dict of torchvision's mobilenet_v3_small), or leave the method out.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

for _operator in ("nms", "qnms"):
    # torchvision linked against another build of torch fails to import for want of these two; declared, it does not
    if not hasattr(torch.ops.torchvision, _operator):
        torch.library.define(f"torchvision::{_operator}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")

from imagededup import methods as imagededup_methods  # noqa: E402 - after the declaration above

HASHES = ("PHash", "DHash", "WHash", "AHash")
DEFAULT_BITS = 10
DEFAULT_COSINE = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description="imagededup's duplicates in a folder of images.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(HASHES), choices=(*HASHES, "CNN"))
    parser.add_argument("--search", nargs="*", default=list(HASHES), choices=HASHES)
    parser.add_argument("--cnn-weights", type=Path, help="instead of the download")
    parser.add_argument("--max-pairs", type=int, default=2_000_000)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for method in options.methods:
        if method == "CNN":
            found |= by_network(options.folder, options.cnn_weights)
        else:
            found |= by_hash(method, options.folder, options.max_pairs if method in options.search else -1)
    np.savez(options.output, **found)


def by_hash(method: str, folder: Path, max_pairs: int) -> dict[str, Any]:
    """The arrays of one hashing method."""
    started = time.perf_counter()
    hasher = getattr(imagededup_methods, method)(verbose=False)
    encodings = hasher.encode_images(str(folder), recursive=True)
    encoded = time.perf_counter()
    names = sorted(encodings)
    codes = np.array([int(encodings[name], 16) for name in names], dtype=np.uint64)
    expected = expected_pairs(codes)
    result: dict[str, Any] = {"names": np.array(names), f"{method}_codes": codes}
    if expected > max_pairs:
        asked = "" if max_pairs >= 0 else "not asked for: "
        result[f"{method}_left_out"] = f"{asked}about {expected:,} pairs at the default threshold"
        return result | {f"{method}_seconds": encoded - started}
    searching = time.perf_counter()
    duplicates = hasher.find_duplicates(
        encoding_map=encodings, max_distance_threshold=DEFAULT_BITS, scores=True, recursive=False
    )
    seconds = time.perf_counter() - searching + encoded - started
    return result | pairs_of(method, names, duplicates, lambda bits: bits) | {f"{method}_seconds": seconds}


def by_network(folder: Path, weights: Path | None) -> dict[str, Any]:
    """The arrays of the CNN method."""
    if weights is None:
        network = imagededup_methods.CNN(verbose=False)  # downloads
    else:
        from imagededup.utils.models import CustomModel, MobilenetV3
        from torchvision.models import mobilenet_v3_small

        whole = mobilenet_v3_small(weights=None)
        whole.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
        layers = torch.nn.Sequential(whole.features, whole.avgpool, torch.nn.Flatten()).eval()
        network = imagededup_methods.CNN(
            verbose=False, model_config=CustomModel("mobilenet_v3_small", layers, MobilenetV3.transform)
        )
    started = time.perf_counter()
    duplicates = network.find_duplicates(
        image_dir=str(folder), min_similarity_threshold=DEFAULT_COSINE, scores=True, recursive=True
    )
    seconds = time.perf_counter() - started
    names = sorted(duplicates)
    found = pairs_of("CNN", names, duplicates, lambda cosine: 1 - cosine)
    return {"names": np.array(names), "CNN_seconds": seconds} | found


def pairs_of(method: str, names: list[str], duplicates: dict[str, Any], distance: Any) -> dict[str, Any]:
    """imagededup's dictionary of lists as pairs, each once."""
    row = {name: number for number, name in enumerate(names)}
    listed = [
        (row[name], row[other], distance(float(score)))
        for name, others in duplicates.items()
        for other, score in others
        if row[name] < row[other]
    ]
    table = np.array(listed, dtype=np.float64).reshape(-1, 3)
    return {
        f"{method}_pairs": table[:, :2].astype(np.int64),
        f"{method}_distances": table[:, 2],
        f"{method}_left_out": "",
    }


def expected_pairs(codes: np.ndarray) -> int:
    """How many pairs lie within the default distance, by a sample of at most 1,500 images."""
    some = np.random.default_rng(0).permutation(codes)[:1500]
    near = np.count_nonzero(np.bitwise_count(some[:, None] ^ some[None, :]) <= DEFAULT_BITS) - len(some)
    share = near / max(1, len(some) * (len(some) - 1))
    return int(share * len(codes) * (len(codes) - 1) / 2)


if __name__ == "__main__":
    main()
