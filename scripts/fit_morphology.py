"""Fit the words for white cells to a model's features, and say how well they are told.

    python scripts/fit_morphology.py RUN CELLS WBCATT -o OUT [--views 8] [--levels final]

RUN is a run's or a bundle's folder with its splits.json, or a shipped model's name; CELLS the very cells it was trained
on; WBCATT the folder with WBCAtt's three CSV files. Writes OUT.json (the record) and OUT.safetensors (the arrays).

What is fitted on: cells of WBCAtt's train and val that are in the model's training part; choices are made on those in
its validation and calibration parts, and the cut for contradictions on all white cells there. No cell of WBCAtt's test
part or of the model's test part is fitted. On WBCAtt's test part the network may still have learnt from a cell with its
class: how many is printed. The model's own test part is clean.

--views   as the model predicts: 8 where it brings dihedral views of its own, else 1
--levels  "final" is what the classifier's head is given; "stages" means and deviations of the maps of every stage of
          the network, without it; "all" both
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from hemascope.atomic import atomic_path, write_json
from hemascope.data.load import load
from hemascope.data.splits import load_splits
from hemascope.embeddings import VIEWS, Embedder, embed
from hemascope.errors import HemascopeError
from hemascope.models.bundle import load_bundle
from hemascope.models.shipped import locate
from hemascope.morphology.collect import DescribedCells, collect
from hemascope.morphology.fit import fit_attributes
from hemascope.morphology.head import AttributeHead, Floats
from hemascope.morphology.read_wbcatt import read_wbcatt
from hemascope.morphology.scores import score_attributes

TESTS = ("WBCAtt's test part", "of these in the model's test part", "the model's test part")


def features_of(
    model: str, cells: Path, wbcatt: Path, views: int, levels: str
) -> tuple[DescribedCells, Floats, tuple[str, ...]]:
    """The described cells, their features (M, D) and the names of the classes."""
    folder = locate(model).folder
    whole = load(cells, preparation=load_bundle(folder).preparation)
    described = collect(whole, load_splits(folder / "splits.json", whole).assignment, read_wbcatt(wbcatt))
    found = embed(whole.subset(described.rows), Embedder(run=folder, views=views))
    start = found.levels[-1].start
    vectors = {"final": found.vectors[:, start:], "stages": found.vectors[:, :start], "all": found.vectors}[levels]
    return described, vectors.astype(np.float32), whole.class_names


def table(head: AttributeHead, features: Floats, described: DescribedCells) -> str:
    """Macro F1 of each attribute with its interval on three sets of test cells, as Markdown."""
    sets = (described.published_test, described.published_test & described.clean_test, described.clean_test)
    columns = [score_attributes(head, features[mask], described.values[mask]) for mask in sets]
    seen = int((described.published_test & (described.part == "train")).sum())
    lines = [
        f"Of {int(sets[0].sum()):,} cells of WBCAtt's test part the network learnt from {seen:,} with their classes.",
        "",
        f"| attribute | {' | '.join(f'{name} ({int(m.sum()):,})' for name, m in zip(TESTS, sets, strict=True))} |",
        "|---|---|---|---|",
    ]
    for results in zip(*columns, strict=True):
        figures = [f"{r.macro_f1.value:.3f} ({r.macro_f1.low:.3f} to {r.macro_f1.high:.3f})" for r in results]
        lines.append(f"| {results[0].title} | {' | '.join(figures)} |")
    means = [f"{np.mean([result.macro_f1.value or 0 for result in results]):.3f}" for results in columns]
    return "\n".join([*lines, f"| mean | {' | '.join(means)} |"]) + "\n"


def main() -> None:
    """Parse, fit, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("cells", type=Path)
    parser.add_argument("wbcatt", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--views", type=int, choices=VIEWS, default=8)
    parser.add_argument("--levels", choices=("final", "stages", "all"), default="final")
    options = parser.parse_args()
    try:
        described, features, names = features_of(
            options.run, options.cells, options.wbcatt, options.views, options.levels
        )
        record, arrays = fit_attributes(
            features,
            described.values,
            described.labels,
            names,
            fit=described.fit,
            choose=described.choose,
            cut=described.cut,
        )
        with atomic_path(options.output.with_suffix(".safetensors")) as temporary:
            save_file(arrays, temporary)
        write_json(options.output.with_suffix(".json"), record)
    except HemascopeError as error:
        sys.exit(f"error: {error}")
    head = AttributeHead.from_saved(record, arrays)
    sys.stdout.write(table(head, features, described))
    clean = described.clean_test
    alarms = head.disagrees(features[clean], names, described.labels[clean])
    sys.stdout.write(
        f"{sum(array.nbytes for array in arrays.values()):,} bytes of arrays. Right labels marked on the model's test "
        f"part: {int(alarms.sum())} of {len(alarms):,}.\n"
    )


if __name__ == "__main__":
    main()
