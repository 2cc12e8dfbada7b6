"""Label errors: how many planted flips the audit finds.

    python benchmarks/audit_labels.py PATH_TO_CELLS [--seeds 1 2 3] [--draw LABELS.png]

0, 1, 3 and 10 % of the labels are flipped, uniformly or between confusable classes (``planted_labels.CONFUSABLE``).
Positives are what was planted: real label errors of the set and cells on the border of two classes count as false
alarms. "Own cut" is what the check calls findings; "relabels right" the share of its suggestions to relabel that name
the true class. The settings of the check were chosen with seed 0 on one half of the real cells; on the other half and
with other seeds the figures are the same within the spread of the seeds.

--draw saves the images of the lowest score among the labels as published, for the eye: label given, class suggested.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from figures import add_json_option, publish
from PIL import Image, ImageDraw
from planted_labels import flip_labels
from sklearn.metrics import average_precision_score

from hemascope.audit.label_errors import check_label_errors
from hemascope.audit.material import Material
from hemascope.audit.measure import measure_prepared
from hemascope.cells import CellDataset
from hemascope.config import PREPARATIONS
from hemascope.data.load import load
from hemascope.embeddings import Embedder, embed
from hemascope.findings import CheckResult

HEADER = (
    "flips",
    "planted",
    "average precision",
    "precision at the number planted",
    "findings",
    "precision at the own cut",
    "recall at the own cut",
    "relabels",
    "relabels right",
    "estimated share wrong",
    "seconds",
)
LISTED = 100  # of the labels as published


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with one folder of images a class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.03, 0.1])
    parser.add_argument("--draw", type=Path, help="where to save the most suspicious labels as pictures")
    add_json_option(parser, "audit_labels")
    options = parser.parse_args()
    cells = load(options.data, preparation=PREPARATIONS["contest"])
    material = Material(cells, measure_prepared(cells), embed(cells, Embedder(views=4)))

    published = check_label_errors(material)
    figures: list[dict[str, Any]] = [_figures(material, published, cells.labels, "as published", 0.0, 0)]
    rows = [_row("as published", figures)]
    for kind in ("uniform", "confusable"):
        for share in options.shares:
            found = []
            for seed in options.seeds:
                labels = flip_labels(cells.labels, cells.class_names, share, seed, kind=kind)
                result = check_label_errors(replace(material, cells=replace(cells, labels=labels), seed=seed))
                found.append(_figures(material, result, labels, kind, share, seed))
            figures += found
            rows.append(_row(f"{share:.0%} {kind}", found))
            print(rows[-1], flush=True)
    if options.draw:
        draw(options.draw, cells, published)
    listed = [[one.id, one.label, one.new_label, round(one.score, 6), one.why] for one in published.findings[:LISTED]]
    record = {"seeds": options.seeds, "runs": figures, "published": {**published.summary, "findings": listed}}
    publish(options.json, record, HEADER, rows)


def _figures(
    material: Material, result: CheckResult, labels: np.ndarray, kind: str, share: float, seed: int
) -> dict[str, Any]:
    """What one run found, the labels of ``material`` being the truth. None where nothing was planted."""
    cells = material.cells
    planted = labels != cells.labels
    assert result.scores is not None
    scores = np.nan_to_num(result.scores, nan=1.0)
    row = {name: number for number, name in enumerate(cells.ids)}
    called = np.zeros(len(cells), dtype=bool)
    called[[row[finding.id] for finding in result.findings]] = True
    relabelled = [
        cells.class_names[cells.labels[row[finding.id]]] == finding.new_label
        for finding in result.findings
        if finding.suggestion == "relabel"
    ]
    worst = np.argsort(scores, kind="stable")[: planted.sum()]
    some = bool(planted.any())
    return {
        "kind": kind,
        "share": share,
        "seed": seed,
        "planted": int(planted.sum()),
        "average_precision": float(average_precision_score(planted, -scores)) if some else None,
        "precision_at_planted": float(planted[worst].mean()) if some else None,
        "findings": int(called.sum()),
        "precision": float(planted[called].mean()) if some else None,
        "recall": float(called[planted].mean()) if some else None,
        "relabels": len(relabelled),
        "relabels_right": float(np.mean(relabelled)) if some and relabelled else None,
        "estimated_share": float(result.summary["estimated_share_of_errors"]),
        "balanced_accuracy": float(result.summary["out_of_fold_balanced_accuracy"]),
        "shrinkage": float(result.summary["shrinkage"]),
        "seconds": round(result.seconds, 1),
    }


def _row(name: str, found: list[dict[str, Any]]) -> list[object]:
    def spread(key: str) -> str:
        values = [one[key] for one in found]
        if None in values:
            return "–"
        many = f" ({min(values):.4f} to {max(values):.4f})" if len(values) > 1 else ""
        return f"{np.mean(values):.4f}{many}"

    def mean(key: str) -> int:
        return round(float(np.mean([one[key] for one in found])))

    return [
        name,
        mean("planted"),
        spread("average_precision"),
        spread("precision_at_planted"),
        mean("findings"),
        spread("precision"),
        spread("recall"),
        mean("relabels"),
        spread("relabels_right"),
        spread("estimated_share"),
        mean("seconds"),
    ]


def draw(path: Path, cells: CellDataset, result: CheckResult, shown: int = 60) -> None:
    """The findings of the lowest score, ten a row, lowest first; below each its label and the suggestion."""
    row = {name: number for number, name in enumerate(cells.ids)}
    findings = result.findings[:shown]
    side = cells.images.shape[1]
    sheet = Image.new("RGB", (10 * (side + 4), -(-len(findings) // 10) * (side + 28)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, finding in enumerate(findings):
        left, top = place % 10 * (side + 4), place // 10 * (side + 28)
        sheet.paste(Image.fromarray(np.asarray(cells.images[row[finding.id]])), (left, top))
        pen.text((left, top + side), finding.label, fill="black")
        pen.text((left, top + side + 12), f"> {finding.new_label or 'review'}", fill="black")
    sheet.save(path)


if __name__ == "__main__":
    main()
