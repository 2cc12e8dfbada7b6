"""Label errors: how many planted flips the audit finds.

    python benchmarks/audit_labels.py PATH_TO_CELLS [--seeds 1 2 3]

1, 3 and 10 % of the labels are flipped, uniformly or between confusable classes. Positives are what was planted; real
label errors of the set count as false alarms. The settings of the check were chosen with seed 0.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from figures import add_json_option, publish
from planted_labels import flip_labels
from sklearn.metrics import average_precision_score

from hemascope.audit.label_errors import check_label_errors
from hemascope.audit.material import Material
from hemascope.audit.measure import measure_prepared
from hemascope.config import PREPARATIONS
from hemascope.data.load import load
from hemascope.embeddings import Embedder, embed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with one folder of images a class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.03, 0.1])
    add_json_option(parser, "audit_labels")
    options = parser.parse_args()
    cells = load(options.data, preparation=PREPARATIONS["contest"])
    embeddings = embed(cells, Embedder(views=4))
    material = Material(cells, measure_prepared(cells), embeddings)
    rows, figures = [], []
    for kind in ("uniform", "confusable"):
        for share in options.shares:
            found = [_measured(material, kind, share, seed) for seed in options.seeds]
            figures += found
            rows.append(
                [
                    f"{share:.0%} {kind}",
                    found[0]["planted"],
                    _spread([one["average_precision"] for one in found]),
                    _spread([one["precision_at_planted"] for one in found]),
                    _spread([one["precision"] for one in found]),
                    _spread([one["recall"] for one in found]),
                    f"{np.mean([one['seconds'] for one in found]):.0f} s",
                ]
            )
    header = [
        "flips",
        "planted",
        "average precision",
        "precision at the number planted",
        "precision at the own cut",
        "recall at the own cut",
        "time",
    ]
    publish(options.json, {"seeds": options.seeds, "runs": figures}, header, rows)


def _measured(material: Material, kind: str, share: float, seed: int) -> dict[str, float | str]:
    cells = material.cells
    labels = flip_labels(cells.labels, cells.class_names, share, seed, kind=kind)
    flipped = labels != cells.labels
    result = check_label_errors(replace(material, cells=replace(cells, labels=labels), seed=seed))
    assert result.scores is not None
    scores = np.nan_to_num(result.scores, nan=1.0)
    called = {finding.id for finding in result.findings}
    flagged = np.array([name in called for name in cells.ids])
    worst = np.argsort(scores, kind="stable")[: flipped.sum()]
    return {
        "kind": kind,
        "share": share,
        "seed": seed,
        "planted": int(flipped.sum()),
        "average_precision": float(average_precision_score(flipped, -scores)),
        "precision_at_planted": float(flipped[worst].mean()),
        "precision": float(flipped[flagged].mean()),
        "recall": float(flagged[flipped].mean()),
        "estimated_share": float(result.summary["estimated_share_of_errors"]),
        "seconds": result.seconds,
    }


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


if __name__ == "__main__":
    main()
