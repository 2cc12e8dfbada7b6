"""Images that are no training cells: how well each score tells them, and which score is the default.

    python benchmarks/out_of_distribution.py RUN CELLS [--smears FOLDER] [--count 200]

RUN is a run's folder or a shipped model's name, CELLS what it was trained on. The detector is fitted on RUN's training
part and its calibration part. The default is chosen on calibration cells against every other kind of foreign picture,
made with another seed; everything is reported on test cells. ``--smears``: a folder of smears with VOC boxes (BCCD),
another stain and another microscope, of which crops of white cells, of red cells and of empty places are taken.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from figures import add_json_option, publish
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from hemascope.cells import CellDataset
from hemascope.corruptions import stack
from hemascope.data.foreign import FOREIGN, make_foreign
from hemascope.data.load import load
from hemascope.data.splits import Splits, load_splits
from hemascope.models.features import WithFeatures
from hemascope.models.inference import inference_copy
from hemascope.predict import Predictor, load_model
from hemascope.results import Predictions
from hemascope.trust_results import DetectionResult, Distance
from hemascope.uncertainty.binomial import proportion
from hemascope.uncertainty.detection import auroc, measure_detection
from hemascope.uncertainty.out_of_distribution import Detector, fit_detector

CHOOSING_SEED, SEED = 1, 0
WHITE_CELL = 250
"""Pixels of a smear's square that shows a white cell as large as the training cells are shown."""

Pixels = NDArray[np.uint8]
Scores = dict[str, NDArray[np.float32]]


class Bench:
    """A model, its cells and their split."""

    def __init__(self, run: str, data: Path) -> None:
        self.predictor = load_model(run)
        self.bundle = self.predictor.bundle
        self.classifier = self.bundle.build().eval()
        self.cells: CellDataset = load(data, preparation=self.bundle.preparation)
        folder = self.predictor.located.folder
        self.splits: Splits = load_splits(folder / "splits.json", self.cells)
        self.size = self.bundle.preparation.size

    def part(self, name: str) -> tuple[Pixels, NDArray[np.int64]]:
        rows = np.sort(self.splits.indices(name))
        return np.stack([self.cells.images[row] for row in rows]), self.cells.labels[rows]

    def see(self, images: Pixels) -> Predictions:
        return self.predictor.predict_images(images, [str(i) for i in range(len(images))], features=True)

    def fit(self) -> tuple[Detector, dict[str, Any]]:
        images, labels = self.part("train")
        train, inside = self.see(images), self.see(self.part("calibration")[0])
        layers = [layer for layer in self.classifier.head.modules() if isinstance(layer, nn.Linear)]
        linear = layers[0] if len(layers) == 1 else None
        start = time.perf_counter()
        record, arrays = fit_detector(
            train.features,
            labels,
            calibration_features=inside.features,
            calibration_logits=inside.logits,
            early=early(self.predictor, train),
            calibration_early=early(self.predictor, inside),
            head_weight=None if linear is None else linear.weight.detach().numpy(),
            head_bias=None if linear is None else linear.bias.detach().numpy(),
        )
        facts = {"seconds": time.perf_counter() - start, "bytes": sum(values.nbytes for values in arrays.values())}
        return Detector.from_saved(record, arrays), {**facts, "record": record}

    def seconds(self, images: Pixels) -> dict[str, float]:
        """Seconds for 1,000 images, one thread for each core: the network, and with what its early stages see."""
        plain = inference_copy(self.classifier, self.size)
        staged = WithFeatures(plain, self.size)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        times: dict[str, list[float]] = {"network": [], "with_stages": []}
        with torch.inference_mode():
            for _ in range(4):
                start = time.perf_counter()
                plain(pixels)
                times["network"].append(time.perf_counter() - start)
                start = time.perf_counter()
                staged(pixels)
                times["with_stages"].append(time.perf_counter() - start)
        return {name: 1000 * min(values) / len(images) for name, values in times.items()}


def early(predictor: Predictor, seen: Predictions) -> np.ndarray | None:
    """The columns of the early stages, None where the network does not show them."""
    return seen.stages[:, : predictor.early] if predictor.early else None


def scored(bench: Bench, detector: Detector, seen: Predictions) -> Scores:
    return detector.scores(seen.features, seen.logits, early=early(bench.predictor, seen))


def chosen(bench: Bench, detector: Detector, count: int) -> tuple[str, dict[str, dict[str, float]]]:
    """The score of the highest mean AUROC over every other far kind, and what each score reached on each kind seen."""
    cells = bench.part("calibration")[0]
    inside = scored(bench, detector, bench.see(cells))
    found: dict[str, dict[str, float]] = {score: {} for score in inside}
    for kind in list(FOREIGN)[::2]:
        pictures = make_foreign(kind, count, size=bench.size, seed=CHOOSING_SEED, cells=cells)
        outside = scored(bench, detector, bench.see(pictures))
        for score in inside:
            found[score][kind] = auroc(inside[score], outside[score])
    far = {
        score: float(np.mean([value for kind, value in row.items() if FOREIGN[kind].distance == "far"]))
        for score, row in found.items()
    }
    return max(far, key=lambda score: far[score]), found


def sets(bench: Bench, smears: Path | None, count: int) -> Iterator[tuple[str, str, Distance, Pixels]]:
    cells = bench.part("test")[0]
    for kind, traits in FOREIGN.items():
        yield kind, traits.title, traits.distance, make_foreign(kind, count, size=bench.size, seed=SEED, cells=cells)
    if smears is not None:
        for title, pictures in smear_crops(smears, bench.size, count).items():
            yield title.replace(" ", "_"), f"Smears of another laboratory: {title}", "near", pictures
    rows = np.random.default_rng(SEED).permutation(len(cells))[:count]
    for name in ("stacked_1_2", "stacked_2_4"):
        yield name, f"Cells under strong layers ({name})", "corrupted", stack(cells[rows], name, seed=SEED + 77)[0]


def smear_crops(folder: Path, size: int, count: int) -> dict[str, Pixels]:
    """Squares round white cells, squares of that size round red cells, and small squares without any cell."""
    rng = np.random.default_rng(SEED)
    found: dict[str, list[Pixels]] = {"white cells": [], "red cells": [], "empty places": []}
    for path in sorted((folder / "Annotations").glob("*.xml")):
        image = Image.open(folder / "JPEGImages" / f"{path.stem}.jpg").convert("RGB")
        boxes = list(_boxes(path))
        white = np.array([box for name, box in boxes if name == "WBC"]).reshape(-1, 4)
        every = np.array([box for _, box in boxes]).reshape(-1, 4)
        for box in white:
            found["white cells"].append(_square(image, box, 1.25 * max(box[2] - box[0], box[3] - box[1]), size))
        red = [box for name, box in boxes if name == "RBC" and not _touches(_around(box, WHITE_CELL), white)]
        if red:
            found["red cells"].append(_square(image, red[rng.integers(len(red))], WHITE_CELL, size))
        for _ in range(200):
            left, top = rng.integers(0, image.width - 80), rng.integers(0, image.height - 80)
            place = np.array([left, top, left + 80, top + 80])
            if not _touches(place, every):
                found["empty places"].append(_square(image, place, 80, size))
                break
    return {title: np.stack(pictures[:count]) for title, pictures in found.items() if pictures}


def _boxes(path: Path) -> Iterator[tuple[str, NDArray[np.float64]]]:
    for thing in ElementTree.parse(path).getroot().iter("object"):
        corners = [float(thing.findtext(f"bndbox/{corner}", "nan")) for corner in ("xmin", "ymin", "xmax", "ymax")]
        yield thing.findtext("name", ""), np.array(corners)


def _around(box: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    middle = (box[:2] + box[2:]) / 2
    return np.concatenate([middle - side / 2, middle + side / 2])


def _touches(box: NDArray[Any], others: NDArray[Any]) -> bool:
    if not len(others):
        return False
    apart = (others[:, 0] > box[2]) | (others[:, 2] < box[0]) | (others[:, 1] > box[3]) | (others[:, 3] < box[1])
    return not apart.all()


def _square(image: Image.Image, box: NDArray[Any], side: float, size: int) -> Pixels:
    """The square round a box, moved into the picture where it reaches out of it."""
    side = min(side, *image.size)
    left, top = (
        float(np.clip(start, 0, whole - side))
        for start, whole in zip(_around(np.asarray(box, float), side)[:2], image.size, strict=True)
    )
    crop = image.crop((round(left), round(top), round(left + side), round(top + side)))
    return np.asarray(crop.resize((size, size), Image.Resampling.BICUBIC))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("data", type=Path)
    parser.add_argument("--smears", type=Path, help="folder with JPEGImages and Annotations (VOC)")
    parser.add_argument("--count", type=int, default=200, help="pictures of each kind")
    parser.add_argument("--resamples", type=int, default=1000)
    add_json_option(parser, "out_of_distribution")
    options = parser.parse_args()
    bench = Bench(options.run, options.data)
    detector, fit = bench.fit()
    best, choice = chosen(bench, detector, options.count)
    print(f"chosen on the calibration part: {best}", flush=True)

    cells = bench.part("test")[0]
    seen = bench.see(cells)
    inside = scored(bench, detector, seen)
    alarms = proportion(int((~detector.in_distribution(inside[detector.default])).sum()), len(cells))
    results: list[DetectionResult] = []
    far: dict[str, list[NDArray[np.float32]]] = {score: [] for score in inside}
    for name, title, distance, pictures in sets(bench, options.smears, options.count):
        outside = scored(bench, detector, bench.see(pictures))
        flagged = ~detector.in_distribution(outside[detector.default])
        results.append(
            measure_detection(
                inside, outside, flagged, name=name, title=title, distance=distance, resamples=options.resamples
            )
        )
        if distance == "far":
            for score, parts in far.items():
                parts.append(outside[score])
    together = {score: np.concatenate(parts) for score, parts in far.items()}
    every = measure_detection(
        inside,
        together,
        ~detector.in_distribution(together[detector.default]),
        name="far",
        title="All far sets together",
        distance="far",
        resamples=options.resamples,
    )
    rows = [
        [one.title, one.distance, one.n]
        + [f"{one.auroc[score].value:.4f} / {one.fpr95[score].value:.3f}" for score in inside]
        + [f"{one.flagged.value:.3f}"]
        for one in [*results, every]
    ]
    figures = {
        "model_sha256": bench.bundle.sha256,
        "default": detector.default,
        "chosen": best,
        "chosen_on": choice,
        "fit": fit,
        "false_alarms": alarms.model_dump(),
        "seconds_for_1000": bench.seconds(cells[:256]),
        "far_together": every.model_dump(),
        "sets": [one.model_dump() for one in results],
    }
    print(f"of the test cells called out of distribution: {alarms}; seconds: {figures['seconds_for_1000']}")
    publish(options.json, figures, ["set", "distance", "n", *inside, "flagged"], rows)


if __name__ == "__main__":
    main()
