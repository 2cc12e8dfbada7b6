"""Off-topic images: the contest's set built again, a harder version of it, and foreign images.

    python benchmarks/audit_off_topic.py PATH_TO_CELLS --photographs FOLDER [--smears FOLDER] [--seed 1]

Positives are what was planted. The settings of the check were chosen with seed 0 and every other photograph (half 0);
the default here is the other half. Every other detail of the planting is in planted_pictures.py.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from figures import add_json_option, publish
from numpy.typing import NDArray
from PIL import Image
from planted_pictures import STAINS, TEXTS, TEXTURES, Photographs, laid_over, restained
from sklearn.metrics import average_precision_score, roc_auc_score

from hemascope import render_cells
from hemascope.audit.conduct import conduct
from hemascope.audit.material import Material
from hemascope.audit.measure import measure_prepared
from hemascope.cells import CellDataset
from hemascope.config import PREPARATIONS
from hemascope.data.load import load
from hemascope.embeddings import Embedder, Embeddings, embed
from hemascope.findings import CheckResult

CONTEST = {
    "basophil": 852, "eosinophil": 2181, "erythroblast": 1085, "ig": 2026, "lymphocyte": 849, "monocyte": 993,
    "neutrophil": 2330, "platelet": 1643,
}  # fmt: skip
"""Good images of each class in the contest's set."""

COPIES = 8
OPACITY = (0.3, 0.6)
HARD_OPACITY = (0.2, 0.6)
HARD = 1000
FOREIGN = 96
REMOVING = (
    "unreadable",
    "odd_mode",
    "odd_size",
    "odd_aspect",
    "blank",
    "dark",
    "bright",
    "blurred",
    "low_information",
    "exact_duplicate",
    "conflicting_label",
    "near_duplicate",
    "off_topic",
    "outlier",
)
Images = NDArray[np.uint8]


class Bench:
    """Real cells, their embeddings, and a network to embed what is planted among them."""

    def __init__(self, data: Path, photographs: Photographs, seed: int) -> None:
        every = load(data, preparation=PREPARATIONS["contest"])
        vectors = embed(every, Embedder(views=4))
        _, once = np.unique(np.asarray(every.content_hash), return_index=True)
        self.seed, self.photographs = seed, photographs
        self.rng = np.random.default_rng([seed, 5])
        chosen = np.concatenate([self._of_class(every, once, name, count) for name, count in CONTEST.items()])
        self.cells = every.subset(np.sort(chosen))
        self.embedder = Embedder(views=4)
        self.vectors = Embeddings(vectors.vectors[np.sort(chosen)], vectors.levels, vectors.description)

    def _of_class(self, cells: CellDataset, rows: NDArray[np.intp], name: str, count: int) -> NDArray[np.intp]:
        own = rows[cells.labels[rows] == cells.class_names.index(name)]
        return self.rng.permutation(own)[: min(count, len(own))]

    def material(
        self, images: Images, labels: NDArray[np.int64], *, without: NDArray[np.intp] | None = None
    ) -> Material:
        """The cells, less those rows, and after them the planted images."""
        kept = np.setdiff1d(np.arange(len(self.cells)), [] if without is None else without)
        good = self.cells.subset(kept)
        names = [f"planted/{index}.png" for index in range(len(images))]
        hashes = [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
        # Equal pictures are embedded once.
        first, back = np.unique(hashes, return_index=True, return_inverse=True)[1:]
        vectors = self.embedder(images[first])[back]
        cells = replace(
            good,
            images=np.concatenate([good.images, images]),
            labels=np.concatenate([good.labels, labels]),
            ids=[*good.ids, *names],
            content_hash=[*good.content_hash, *hashes],
            original_size=None,
        )
        together = np.concatenate([self.vectors.vectors[kept], vectors])
        embeddings = Embeddings(together, self.vectors.levels, self.vectors.description)
        return Material(cells, measure_prepared(cells), embeddings, self.embedder, self.seed)


def contest(bench: Bench, groups: tuple[int, int], *, different: bool) -> dict[str, Any]:
    """The contest's set: two pictures laid over cells, ``groups`` times, as copies or each over its own cell."""
    rng = np.random.default_rng([bench.seed, 11, different])
    cells, photographs = bench.cells, bench.photographs
    order = rng.permutation(len(cells))
    planted, labels = [], []
    monocyte = cells.class_names.index("monocyte")
    start = 0
    for number, count in enumerate(groups):
        picture = photographs.cut(rng, 96, among=(photographs.names[int(rng.integers(len(photographs.names)))],))
        opacity = rng.uniform(*OPACITY)
        for index in range(count):
            row = order[start + (index if different else 0)]
            if different:
                opacity = rng.uniform(*OPACITY)
            planted.append(laid_over(cells.images[row], picture, float(opacity)))
            labels.append(int(rng.integers(8)) if number == 0 else monocyte)
        start += count
    copied = order[start : start + COPIES]
    pictures = np.stack([*planted, *cells.images[copied]])
    every = np.concatenate([labels, cells.labels[copied]])
    # Eight good cells make room for the eight copies; cells that were overlaid stay in the set as good ones too.
    material = bench.material(pictures, every.astype(np.int64), without=order[-COPIES:])
    hashes = list(material.cells.content_hash)
    for index, row in enumerate(copied):  # the same pixels: the same hash as the cell copied
        hashes[len(hashes) - COPIES + index] = cells.content_hash[row]
    material = replace(material, cells=replace(material.cells, content_hash=hashes))
    good = len(material.cells) - len(pictures)
    started = time.perf_counter()
    results = conduct(material, checks=REMOVING)
    seconds = time.perf_counter() - started
    dropped = {finding.id for result in results for finding in result.findings if finding.suggestion == "drop"}
    is_dropped = np.array([name in dropped for name in material.cells.ids])
    copies = {
        name
        for name, content in zip(material.cells.ids, hashes, strict=True)
        if content in {cells.content_hash[row] for row in copied}
    }
    copies_found = sum(name in dropped for name in copies)
    overlays = slice(good, good + len(planted))
    # Of a cell and its copy one is dropped, whichever stands first; that is no good cell lost.
    lost = is_dropped[:good].sum() - sum(name in dropped and name in copies for name in material.cells.ids[:good])
    by_check = {
        result.check: sum(f.suggestion == "drop" and not f.id.startswith("planted/") for f in result.findings)
        for result in results
    }
    return {
        "images": len(material.cells),
        "overlays": len(planted),
        "overlays_found": int(is_dropped[overlays].sum()),
        "copies_found": int(copies_found),
        "good_proposed": int(lost),
        "good_proposed_share": float(lost / good),
        "good_proposed_by_check": {name: count for name, count in by_check.items() if count},
        "seconds": seconds,
    }


def hard(bench: Bench, count: int, opacity: tuple[float, float]) -> dict[str, Any]:
    """Every overlay with its own picture, opacity and cell."""
    rng = np.random.default_rng([bench.seed, 13])
    rows = rng.permutation(len(bench.cells))[:count]
    strength = rng.uniform(*opacity, size=count)
    pictures = np.stack(
        [
            laid_over(bench.cells.images[row], bench.photographs.cut(rng, 96), float(s))
            for row, s in zip(rows, strength, strict=True)
        ]
    )
    scores, planted, result = _scored(bench, pictures, bench.cells.labels[rows], without=rows)
    flagged = scores <= 0.5
    weak = np.concatenate([np.zeros((~planted).sum(), bool), strength < 0.3])
    return {
        "planted": count,
        "average_precision": float(average_precision_score(planted, -scores)),
        "auroc": float(roc_auc_score(planted, -scores)),
        "auroc_below_0.3": float(roc_auc_score(planted[weak | ~planted], -scores[weak | ~planted])),
        "recall": float(flagged[planted].mean()),
        "good_flagged": float(flagged[~planted].mean()),
        "seconds": result.seconds,
    }


def foreign(bench: Bench, kinds: dict[str, Images]) -> dict[str, Any]:
    """Foreign images of several kinds among the cells, all at once: AUROC of each kind against the good cells."""
    rng = np.random.default_rng([bench.seed, 17])
    pictures = np.concatenate(list(kinds.values()))
    labels = rng.integers(len(bench.cells.class_names), size=len(pictures))
    material = bench.material(pictures, labels.astype(np.int64))
    results = conduct(material, checks=["off_topic", "odd_stain"])
    good = np.arange(len(material.cells)) < len(material.cells) - len(pictures)
    start = int(good.sum())
    found: dict[str, Any] = {}
    for kind, own in kinds.items():
        rows = np.arange(start, start + len(own))
        start += len(own)
        for result in results:
            assert result.scores is not None
            scores = np.concatenate([result.scores[good], result.scores[rows]])
            planted = np.repeat([False, True], [good.sum(), len(rows)])
            found.setdefault(kind, {"planted": len(own)})[result.check] = {
                "auroc": float(roc_auc_score(planted, -scores)),
                "recall": float((scores <= 0.5)[planted].mean()),
                "good_flagged": float((scores <= 0.5)[~planted].mean()),
            }
    return found


def clean(bench: Bench) -> dict[str, Any]:
    """Nothing planted: what is proposed all the same, by class."""
    result = conduct(
        Material(bench.cells, measure_prepared(bench.cells), bench.vectors, bench.embedder, bench.seed),
        checks=["off_topic"],
    )[0]
    dropped = [finding.label for finding in result.findings if finding.suggestion == "drop"]
    return {
        "images": len(bench.cells),
        "proposed": len(dropped),
        "flagged": len(result.findings),
        "by_class": {name: dropped.count(name) for name in bench.cells.class_names if name in dropped},
    }


def rare(bench: Bench, name: str, count: int) -> dict[str, Any]:
    """A rare real class among neutrophils must not be proposed for removal as a whole."""
    cells = bench.cells
    own = np.flatnonzero(cells.labels == cells.class_names.index(name))[:count]
    rest = np.flatnonzero(cells.labels == cells.class_names.index("neutrophil"))
    rows = np.concatenate([rest, own])
    part = cells.subset(rows)
    vectors = Embeddings(bench.vectors.vectors[rows], bench.vectors.levels, bench.vectors.description)
    result = conduct(Material(part, measure_prepared(part), vectors, bench.embedder, bench.seed), checks=["off_topic"])[
        0
    ]
    dropped = {finding.id for finding in result.findings if finding.suggestion == "drop"}
    return {
        "rare": name,
        "count": len(own),
        "rare_proposed": sum(part.ids[i] in dropped for i in range(len(rest), len(rows))),
        "others_proposed": sum(part.ids[i] in dropped for i in range(len(rest))),
    }


def _scored(
    bench: Bench, pictures: Images, labels: NDArray[np.int64], without: NDArray[np.intp] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_], CheckResult]:
    material = bench.material(pictures, labels.astype(np.int64), without=without)
    result = conduct(material, checks=["off_topic"])[0]
    assert result.scores is not None
    planted = np.zeros(len(material.cells), dtype=bool)
    planted[-len(pictures) :] = True
    return result.scores, planted, result


def foreign_kinds(bench: Bench, smears: Path | None) -> dict[str, Images]:
    """Pictures of each kind, uint8 (n, 96, 96, 3)."""
    rng = np.random.default_rng([bench.seed, 19])
    shots = bench.photographs
    kinds = {"photographs": [shots.cut(rng, 96) for _ in range(FOREIGN)]}
    for title, names in (("textures", TEXTURES), ("text", TEXTS)):
        present = tuple(name for name in names if shots.has(name))
        if present:
            kinds[title] = [shots.cut(rng, 96, among=present) for _ in range(FOREIGN)]
    for stain in STAINS:
        rows = rng.permutation(len(bench.cells))[:FOREIGN]
        kinds[f"stain: {stain}"] = [restained(bench.cells.images[row], stain) for row in rows]
    kinds["synthetic cells"] = list(render_cells(FOREIGN // 8, size=96, seed=bench.seed + 100).images)
    if smears is not None:
        kinds["crops of smears, another microscope"] = [
            _smear(path, rng) for path in sorted(smears.rglob("*.jpg"))[:FOREIGN]
        ]
    return {title: np.stack(pictures) for title, pictures in kinds.items()}


def _smear(path: Path, rng: np.random.Generator) -> Images:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    top, left = (int(rng.integers(side - 200 + 1)) for side in pixels.shape[:2])
    square = Image.fromarray(pixels[top : top + 200, left : left + 200])
    return np.asarray(square.resize((96, 96), Image.Resampling.BICUBIC))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with one folder of images a class")
    parser.add_argument("--photographs", type=Path, help="folder of photographs (png, jpg)")
    parser.add_argument("--smears", type=Path, help="folder of fields of another microscope")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--half", type=int, choices=(0, 1), default=1, help="of the photographs")
    parser.add_argument("--parts", nargs="+", default=["clean", "contest", "hard", "foreign", "rare"])
    add_json_option(parser, "audit_off_topic")
    options = parser.parse_args()
    bench = Bench(options.data, Photographs(options.photographs, half=options.half), options.seed)
    figures: dict[str, Any] = {"seed": options.seed, "photographs": bench.photographs.names}
    rows = []

    def add(task: str, found: dict[str, Any], sentence: str) -> None:
        figures[task] = found
        rows.append([task, sentence])
        print(f"{task}: {sentence}", flush=True)

    if "clean" in options.parts:
        found = clean(bench)
        add("nothing planted", found, f"{found['proposed']} of {found['images']} proposed ({found['by_class']})")
    if "contest" in options.parts:
        for different, groups in ((False, (1600, 200)), (True, (800, 200))):
            found = contest(bench, groups, different=different)
            add(
                f"{groups[0]} + {groups[1]} {'different overlays' if different else 'copies of two overlays'}",
                found,
                f"{found['overlays_found']} of {found['overlays']} overlays, {found['copies_found']} of {COPIES} "
                f"copies; {found['good_proposed_share']:.2%} of the good proposed {found['good_proposed_by_check']}",
            )
    if "hard" in options.parts:
        found = hard(bench, HARD, HARD_OPACITY)
        add("every overlay its own", found, f"average precision {found['average_precision']:.4f}, {found}")
    if "foreign" in options.parts:
        kinds = foreign_kinds(bench, options.smears)
        stains = {kind: pictures for kind, pictures in kinds.items() if "stain" in kind or "smears" in kind}
        for part in ({kind: kinds[kind] for kind in kinds if kind not in stains}, stains):
            for kind, found in foreign(bench, part).items():
                check = "odd_stain" if kind in stains else "off_topic"
                own = found[check]
                add(f"foreign: {kind}", found, f"{check}: AUROC {own['auroc']:.4f}, recall {own['recall']:.2f}")
    if "rare" in options.parts:
        for name in ("platelet", "erythroblast", "basophil"):
            found = rare(bench, name, 24)
            add(
                f"rare: {name}",
                found,
                f"{found['rare_proposed']} of {found['count']} proposed; {found['others_proposed']} of the neutrophils",
            )
    publish(options.json, figures, ["task", "found"], rows)


if __name__ == "__main__":
    main()
