"""Morphology in words: how well eleven attributes are told, from which features, and what contradictions are worth.

    python benchmarks/morphology.py RUN CELLS WBCATT [--views 8]
    python benchmarks/morphology.py RUN CELLS WBCATT --own

RUN is a run's or bundle's folder with its splits.json, or a shipped model's name; CELLS the cells it was trained on;
WBCATT the folder with WBCAtt's tables. Macro F1 is given on WBCAtt's test part (from some of its cells the network
learnt their class) and on the model's own test part (clean: neither network nor words learnt from it):

class alone   every cell of a class gets the class's most frequent value: what a label is worth without looking
final         features the classifier's head is given, as the Predictor has them
stages        means and deviations of the maps of every stage of the network, without the final features
both          final and stages together (in the JSON)
published     macro F1 of Tsutsui et al. 2023, where it could be had

With --own nothing is fitted: the words the model carries are tested, with the model's own views, on its test part and
on those of its test cells that WBCAtt tests on too. That is what `predict` says of a cell.

Contradictions (printed, and in the JSON): right labels marked on the model's test part; labels turned at random to
another described class, marked; and of the white labels the network really gets wrong on its validation, calibration
and test parts, how many are marked.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import RESULTS, add_json_option, publish

from hemascope.assessment import described_by
from hemascope.cells import CellDataset
from hemascope.data.load import load
from hemascope.data.splits import load_splits
from hemascope.embeddings import VIEWS, Embedder, embed
from hemascope.metrics import bootstrap_estimates
from hemascope.models.bundle import ModelBundle, load_bundle
from hemascope.models.shipped import locate
from hemascope.morphology.attributes import ATTRIBUTES, DESCRIBED
from hemascope.morphology.collect import DescribedCells, collect
from hemascope.morphology.fit import fit_attributes
from hemascope.morphology.head import AttributeHead, Floats, Ints
from hemascope.morphology.read_wbcatt import read_wbcatt
from hemascope.morphology.scores import PUBLISHED, score_attributes
from hemascope.predict import load_model
from hemascope.trust_results import AttributeResult

PAPER_MEAN = 0.912
"""Mean macro F1 over the attributes of Tsutsui et al. 2023, a fine-tuned network, as another work (Claricyte) quotes
it; the paper's own table could not be had."""
HELD_OUT = ("validation", "calibration", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("cells", type=Path)
    parser.add_argument("wbcatt", type=Path)
    parser.add_argument("--views", type=int, choices=VIEWS, default=8, help="as the model predicts")
    parser.add_argument("--own", action="store_true", help="fit nothing: test the words that the model carries")
    add_json_option(parser, "morphology")
    options = parser.parse_args()
    if options.own:
        if options.json == RESULTS / "morphology.json":
            options.json = RESULTS / "morphology_own.json"
        own_words(options)
        return

    folder = locate(options.run).folder
    bundle = load_bundle(folder)
    whole = load(options.cells, preparation=bundle.preparation)
    parts = load_splits(folder / "splits.json", whole).assignment
    described = collect(whole, parts, read_wbcatt(options.wbcatt))
    rows = np.union1d(described.rows, np.flatnonzero(np.isin(parts, HELD_OUT)))
    found = embed(whole.subset(rows), Embedder(run=folder, views=options.views))
    final = found.level("final").astype(np.float32)
    everything = found.vectors.astype(np.float32)
    kinds = {"final": final, "stages": everything[:, : found.levels[-1].start], "both": everything}
    place = np.searchsorted(rows, described.rows)

    fits = {kind: fitted(features[place], described, whole) for kind, features in kinds.items()}
    heads = {kind: head for kind, (head, _) in fits.items()}
    sizes = {kind: size for kind, (_, size) in fits.items()}
    figures: dict[str, Any] = {
        "model_sha256": bundle.sha256,
        "views": options.views,
        "described": len(described.rows),
        "fitted_on": int(described.fit.sum()),
        "chosen_on": int(described.choose.sum()),
        "cut_on": int(described.cut.sum()),
        "published_test": int(described.published_test.sum()),
        "published_test_learnt_by_the_network": int((described.published_test & (described.part == "train")).sum()),
        "published_test_and_clean": int((described.published_test & described.clean_test).sum()),
        "clean_test": int(described.clean_test.sum()),
        "paper_mean_second_hand": PAPER_MEAN,
    }
    table = []
    for name, mask in (
        ("published_test", described.published_test),
        ("published_test_and_clean", described.published_test & described.clean_test),
        ("clean_test", described.clean_test),
    ):
        values = described.values[mask]
        scored = {kind: score_attributes(head, kinds[kind][place][mask], values) for kind, head in heads.items()}
        alone = by_class_alone(described, mask)
        figures[name + "_macro_f1"] = {
            "class alone": dict(zip(ATTRIBUTES, alone, strict=True)),
            **{kind: {r.attribute: r.macro_f1.model_dump() for r in results} for kind, results in scored.items()},
        }
        table.append((alone, scored))
    (alone, scored), _, (clean_alone, clean_scored) = table
    lines: list[list[object]] = []
    for k, (name, attribute) in enumerate(ATTRIBUTES.items()):
        lines.append(
            [
                attribute.title,
                alone[k],
                interval(scored["final"][k]),
                interval(scored["stages"][k]),
                PUBLISHED.get(name),
                clean_alone[k],
                interval(clean_scored["final"][k]),
                interval(clean_scored["stages"][k]),
            ]
        )
    lines.append(
        [
            "mean",
            float(np.mean(alone)),
            f"{mean(scored['final']):.3f}",
            f"{mean(scored['stages']):.3f}",
            PAPER_MEAN,
            float(np.mean(clean_alone)),
            f"{mean(clean_scored['final']):.3f}",
            f"{mean(clean_scored['stages']):.3f}",
        ]
    )
    for kind, features in kinds.items():
        head = heads[kind]
        figures[f"contradictions, {kind}"] = {
            "bytes": sizes[kind],
            **planted(head, features[place][described.clean_test], described.labels[described.clean_test], whole),
            **real_errors(head, features, final, bundle, whole, rows, parts),
        }
        print(kind, figures[f"contradictions, {kind}"])
    publish(
        options.json,
        figures,
        (
            "attribute",
            "class alone",
            "final",
            "stages",
            "published",
            "clean: class alone",
            "clean: final",
            "clean: stages",
        ),
        lines,
    )


def own_words(options: argparse.Namespace) -> None:
    """Test the head the model carries on described cells of its test part, from which nothing was learnt or chosen."""
    predictor = load_model(options.run)
    if predictor.assessor is None or predictor.assessor.words is None:
        raise SystemExit(f"{options.run} has no words for cells: hemascope calibrate RUN CELLS --words WBCATT")
    whole = load(options.cells, preparation=predictor.bundle.preparation)
    parts = load_splits(predictor.folder / "splits.json", whole).assignment
    described = collect(whole, parts, read_wbcatt(options.wbcatt))
    clean = described.clean_test
    rows, both = described.rows[clean], described.published_test[clean]
    images = np.stack([whole.images[row] for row in rows])
    said = predictor.predict_images(images, [str(whole.ids[row]) for row in rows], features=True)
    assert said.features is not None and said.stages is not None
    head, features = predictor.assessor.words, described_by(said.features, said.stages)
    values, labels = described.values[clean], described.labels[clean]
    scored = {
        "clean_test": score_attributes(head, features, values),
        "published_test_and_clean": score_attributes(head, features[both], values[both]),
    }
    alone = by_class_alone(described, described.published_test & clean)
    figures: dict[str, Any] = {
        "model_sha256": predictor.bundle.sha256,
        "views": list(predictor.bundle.views),
        "clean_test": len(rows),
        "published_test_and_clean": int(both.sum()),
        "paper_mean_second_hand": PAPER_MEAN,
        **planted(head, features, labels, whole),
        "named_wrongly": int((said.predicted != labels).sum()),
        "named_wrongly_marked": int(
            (head.disagrees(features, whole.class_names, said.predicted) & (said.predicted != labels)).sum()
        ),
        "class_alone_published_test_and_clean": dict(zip(ATTRIBUTES, alone, strict=True)),
        **{
            f"{name}_macro_f1": {
                **{one.attribute: one.macro_f1.model_dump() for one in results},
                "mean": mean(results),
            }
            for name, results in scored.items()
        },
    }
    columns = scored["published_test_and_clean"], scored["clean_test"]
    lines: list[list[object]] = [
        [attribute.title, alone[k], *(interval(results[k]) for results in columns)]
        for k, attribute in enumerate(ATTRIBUTES.values())
    ]
    lines.append(["mean", float(np.mean(alone)), *(f"{mean(results):.3f}" for results in columns)])
    for name in ("right_labels_marked", "turned_labels_marked", "named_wrongly_marked"):
        print(f"{name.replace('_', ' ')}: {figures[name]} of {figures.get(name.removesuffix('_marked'), len(rows)):,}")
    publish(
        options.json,
        figures,
        (
            "attribute",
            "class alone",
            f"WBCAtt's and the model's test ({int(both.sum())})",
            f"model's test ({len(rows):,})",
        ),
        lines,
    )


def fitted(features: Floats, described: DescribedCells, whole: CellDataset) -> tuple[AttributeHead, int]:
    """The head, and the bytes of its arrays as they are saved."""
    record, arrays = fit_attributes(
        features,
        described.values,
        described.labels,
        whole.class_names,
        fit=described.fit,
        choose=described.choose,
        cut=described.cut,
    )
    return AttributeHead.from_saved(record, arrays), sum(array.nbytes for array in arrays.values())


def by_class_alone(described: DescribedCells, mask: np.ndarray) -> list[float]:
    """Macro F1 of each attribute where a cell is said to have the value most of its class have."""
    scores = []
    for column, attribute in enumerate(ATTRIBUTES.values()):
        said = np.zeros((int(mask.sum()), len(attribute.values)), dtype=np.float32)
        for k in np.unique(described.labels):
            usual = np.bincount(described.values[described.fit & (described.labels == k), column]).argmax()
            said[described.labels[mask] == k, usual] = 1
        truth = np.ascontiguousarray(described.values[mask, column])
        scores.append(bootstrap_estimates(said, truth, resamples=1).metrics["macro_f1"].value or 0.0)
    return scores


def planted(head: AttributeHead, features: Floats, labels: Ints, whole: CellDataset) -> dict[str, Any]:
    """Right labels and labels turned to another described class, of cells of the model's test part: counts marked."""
    classes = np.unique(labels)
    turned = np.random.default_rng(0).integers(1, len(classes), len(labels))
    wrong = classes[(np.searchsorted(classes, labels) + turned) % len(classes)]
    return {
        "right_labels": len(labels),
        "right_labels_marked": int(head.disagrees(features, whole.class_names, labels).sum()),
        "turned_labels_marked": int(head.disagrees(features, whole.class_names, wrong).sum()),
    }


def real_errors(
    head: AttributeHead,
    features: Floats,
    final: Floats,
    bundle: ModelBundle,
    whole: CellDataset,
    rows: np.ndarray,
    parts: np.ndarray,
) -> dict[str, Any]:
    """White labels the network gets wrong on cells it did not learn from, and how many the words contradict."""
    with torch.inference_mode():
        predicted = bundle.build().head(torch.from_numpy(final)).argmax(dim=1).numpy().astype(np.int64)
    white = np.array([name.lower() in DESCRIBED for name in whole.class_names])
    asked = np.isin(parts[rows], HELD_OUT) & white[predicted]
    wrong = asked & (predicted != whole.labels[rows])
    between = wrong & white[whole.labels[rows]]
    marked = head.disagrees(features, whole.class_names, predicted)
    return {
        "white_predictions": int(asked.sum()),
        "marked": int((asked & marked).sum()),
        "errors": int(wrong.sum()),
        "errors_marked": int((wrong & marked).sum()),
        "errors_between_described_classes": int(between.sum()),
        "errors_between_described_classes_marked": int((between & marked).sum()),
    }


def interval(result: AttributeResult) -> str:
    return f"{result.macro_f1.value:.3f} ({result.macro_f1.low:.3f} to {result.macro_f1.high:.3f})"


def mean(results: list[AttributeResult]) -> float:
    return float(np.mean([result.macro_f1.value or 0.0 for result in results]))


if __name__ == "__main__":
    main()
