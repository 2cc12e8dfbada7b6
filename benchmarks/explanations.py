"""Whether maps of where a model looked tell what it used, on cells of one part.

    python benchmarks/explanations.py RUN PATH_TO_CELLS [--cells 60] [--part test] [--methods ...]

Insertion and deletion (24 steps, from and to an empty field of the cell's own ground) against two kinds of chance: the
mean of three coarse random maps, and a random order of pixels. The cell's mask itself is a row, as what a map could
reach that only knows where the cell is. Agreement is the correlation with the map of the cell turned by a quarter,
turned back; sanity that with the map after the head's weights were drawn anew (Adebayo et al. 2018): low is good.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from figures import add_json_option, publish

from hemascope.data.load import load
from hemascope.explain.cams import METHODS, explain_images, predict_classes
from hemascope.explain.cell_mask import cell_masks
from hemascope.explain.faithfulness import agreement, insertion_deletion, random_maps, share_inside
from hemascope.explain.sanity import likeness, with_new_head
from hemascope.predict import load_model
from hemascope.workflow.cells import spread
from hemascope.workflow.stressing import tested_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--part", default="test")
    parser.add_argument("--methods", nargs="+", default=[name for name in METHODS if name != "scorecam"])
    add_json_option(parser, "explanations")
    options = parser.parse_args()
    predictor = load_model(options.run)
    cells = load(options.data, preparation=predictor.bundle.preparation)
    rows, _, _ = tested_rows(predictor.folder, cells, options.part)
    rows = rows[spread(cells.labels[rows], 0)[: options.cells]]
    images = np.stack([cells.images[row] for row in rows])
    model = predictor.bundle.build()
    target = predict_classes(model, images)
    masks = [cell_masks(image) for image in images]
    side = images.shape[1]

    def curves(heat: np.ndarray) -> np.ndarray:
        return np.array([insertion_deletion(model, images[k], heat[k], int(target[k])) for k in range(len(images))])

    coarse = np.mean([curves(np.repeat(one[None], len(images), 0)) for one in random_maps(side, 3, 0)], axis=0)
    pixels = curves(np.random.default_rng(0).random(images.shape[:3]).astype(np.float32))
    drawn = with_new_head(model, 0)
    found = {}
    for method in options.methods:
        began = time.perf_counter()
        heat = explain_images(model, images, method=method, target=target).heat
        seconds = (time.perf_counter() - began) / len(images)
        turned = explain_images(model, np.ascontiguousarray(np.rot90(images, 1, (1, 2))), method=method, target=target)
        back = np.rot90(turned.heat, -1, (1, 2))
        other = explain_images(drawn, images, method=method, target=target).heat
        found[method] = {
            "curves": curves(heat),
            "cell": _mean([share_inside(one, mask[1]) for one, mask in zip(heat, masks, strict=True)]),
            "nucleus": _mean([share_inside(one, mask[0]) for one, mask in zip(heat, masks, strict=True)]),
            "agreement": float(np.mean([agreement(a, b) for a, b in zip(heat, back, strict=True)])),
            "sanity": likeness(heat, other),
            "seconds": seconds,
        }
        print(f"{method}: {seconds:.2f} s an image", flush=True)
    found["the cell's mask"] = {"curves": curves(np.stack([mask[1] for mask in masks]).astype(np.float32))}
    table, record = [], {}
    for name, one in found.items():
        own = one.pop("curves")
        better = {
            "insertion_above_coarse": float((own[:, 0] > coarse[:, 0]).mean()),
            "deletion_below_coarse": float((own[:, 1] < coarse[:, 1]).mean()),
            "insertion_above_pixels": float((own[:, 0] > pixels[:, 0]).mean()),
            "deletion_below_pixels": float((own[:, 1] < pixels[:, 1]).mean()),
        }
        record[name] = {"insertion": float(own[:, 0].mean()), "deletion": float(own[:, 1].mean()), **better, **one}
        table.append(
            [
                name,
                f"{own[:, 0].mean():.3f}",
                f"{own[:, 1].mean():.3f}",
                *(f"{100 * value:.0f} %" for value in better.values()),
                *(f"{one[key]:.2f}" if key in one else "" for key in ("cell", "nucleus", "agreement", "sanity")),
            ]
        )
    publish(
        options.json,
        {
            "command": "python benchmarks/explanations.py",
            "cells": len(images),
            "part": options.part,
            "share_of_picture": {
                "cell": float(np.mean([mask[1].mean() for mask in masks])),
                "nucleus": float(np.mean([mask[0].mean() for mask in masks])),
            },
            "chance": {"coarse": coarse.mean(axis=0).tolist(), "pixels": pixels.mean(axis=0).tolist()},
            "methods": record,
        },
        (
            "map", "insertion", "deletion", "ins > coarse", "del < coarse", "ins > pixels", "del < pixels",
            "in the cell", "in the nucleus", "turned", "head drawn anew",
        ),
        table,
    )  # fmt: skip
    print(f"chance: coarse {coarse.mean(axis=0).round(3)}, pixels {pixels.mean(axis=0).round(3)}")
    print(f"share of the picture: cell {np.mean([m[1].mean() for m in masks]):.2f}")


def _mean(values: list[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))


if __name__ == "__main__":
    main()
