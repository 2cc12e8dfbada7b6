"""cleanvision's public checks of a folder of images: scores, flags and sets of duplicates as one npz file.

    OTHER_PYTHON cleanvision_checks.py FOLDER OUT.npz --issues blurry dark light
    OTHER_PYTHON cleanvision_checks.py FOLDER OUT.npz --issues near_duplicates --hash phash --hash-size 8

Run by the Python of an environment that holds cleanvision; nothing of hemascope is needed. Written, for N images:

    names            text (N,), paths inside the folder
    score_<issue>    float64 (N,), 0 to 1, lower is worse
    flag_<issue>     bool (N,), what cleanvision calls an issue at its default threshold
    set_<issue>      int64 (N,), for duplicates: images of one set share a number, -1 for no set
    seconds          of finding the issues, images read; start and imports are not counted
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from cleanvision import Imagelab

SETS = ("exact_duplicates", "near_duplicates")


def main() -> None:
    parser = argparse.ArgumentParser(description="cleanvision's checks of a folder of images.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--issues", nargs="+", required=True)
    parser.add_argument("--hash", default="phash", choices=("phash", "whash", "ahash", "dhash"), help="near duplicates")
    parser.add_argument("--hash-size", type=int, default=8, help="side of the hash; smaller calls more pairs equal")
    options = parser.parse_args()
    wanted: dict[str, dict[str, Any]] = {issue: {} for issue in options.issues}
    if "near_duplicates" in wanted:
        wanted["near_duplicates"] = {"hash_type": options.hash, "hash_size": options.hash_size}

    started = time.perf_counter()
    lab = Imagelab(data_path=str(options.folder), verbose=False)
    lab.find_issues(wanted, verbose=False)
    seconds = time.perf_counter() - started

    root = options.folder.resolve()
    paths = list(lab.issues.index)
    row = {path: number for number, path in enumerate(paths)}
    found: dict[str, Any] = {"names": np.array([Path(path).relative_to(root).as_posix() for path in paths])}
    for issue in wanted:
        found[f"score_{issue}"] = lab.issues[f"{issue}_score"].to_numpy(dtype=np.float64)
        found[f"flag_{issue}"] = lab.issues[f"is_{issue}_issue"].to_numpy(dtype=bool)
        if issue in SETS:
            found[f"set_{issue}"] = np.full(len(paths), -1, dtype=np.int64)
            for number, members in enumerate(lab.info[issue]["sets"]):
                found[f"set_{issue}"][[row[path] for path in members]] = number
    np.savez(options.output, seconds=seconds, **found)


if __name__ == "__main__":
    main()
