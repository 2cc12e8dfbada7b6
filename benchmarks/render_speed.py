"""How fast synthetic cells are drawn: images a second of the renderer, in memory and as JPEG files.

Every round draws the same number of cells of each of the 8 classes, with another seed, in one process; the median of
the rounds is reported for each size, and for writing a folder of JPEG files at the renderer's own size.

    python benchmarks/render_speed.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from figures import add_json_option, publish


def main() -> None:
    parser = argparse.ArgumentParser(description="Images a second of the synthetic renderer.")
    parser.add_argument("--per-class", type=int, default=8, help="cells of each class a round")
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 208])
    parser.add_argument("--rounds", type=int, default=5)
    add_json_option(parser, "render_speed")
    arguments = parser.parse_args()

    from hemascope.data.synthetic import SYNTHETIC_CLASSES, render_cells, write_synthetic_folder

    images = arguments.per_class * len(SYNTHETIC_CLASSES)
    seconds: dict[str, list[float]] = {}
    render_cells(1, size=arguments.sizes[0], seed=0)  # imports and first-use set-up are not what is measured
    for number in range(1, arguments.rounds + 1):
        for size in arguments.sizes:
            started = time.perf_counter()
            render_cells(arguments.per_class, size=size, seed=number)
            seconds.setdefault(f"in memory, {size} px", []).append(time.perf_counter() - started)
        with tempfile.TemporaryDirectory(prefix="hemascope-benchmark-") as folder:
            started = time.perf_counter()
            write_synthetic_folder(Path(folder) / "cells", arguments.per_class, seed=number)
            seconds.setdefault("as JPEG files, 208 px", []).append(time.perf_counter() - started)
    rates = {kind: images / statistics.median(found) for kind, found in seconds.items()}
    figures = {"images_a_round": images, "seconds_of_rounds": seconds, "images_per_second": rates}
    publish(arguments.json, figures, ("cells", "images/s"), [(kind, f"{rate:.1f}") for kind, rate in rates.items()])


if __name__ == "__main__":
    main()
