"""How far the accuracy a shift card expects lies from the true one, on damage that nothing of it was fitted on.

    python benchmarks/shift_card.py RUN PATH_TO_CELLS [--cells 200]

Every corruption of MedMNIST-C at every severity, and the two stacked tests with three seeds, each on the same test
cells: the three estimates, the true accuracy, and whether the interval of the one in use holds it. The model was
calibrated on calibration cells, clean and damaged by training's augmentation, which shares no code with these.
Then what 20, 50 and 100 labels of damaged validation cells do to the log loss of the test cells damaged alike.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from figures import add_json_option, publish

from hemascope.assessment import TrustRecord
from hemascope.corruptions import CORRUPTIONS, SEVERITIES, STACKS, corrupt, stack
from hemascope.data.load import load
from hemascope.metrics import log_loss
from hemascope.predict import load_model
from hemascope.shift.recalibrate import refit
from hemascope.uncertainty.expected_accuracy import METHODS, estimate_of, expected_accuracy, read_expected_accuracy
from hemascope.uncertainty.temperature import softmax
from hemascope.workflow.cells import spread
from hemascope.workflow.stressing import tested_rows

SEED = 20_270
LABELS = (20, 50, 100)


def damaged(images: np.ndarray, name: str, severity: int, seed: int, ids: list[str]) -> np.ndarray:
    if name in STACKS:
        return stack(images, name, seed=seed, ids=ids)[0]
    return corrupt(images, name, severity, seed=seed, ids=ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cells", type=int, default=200)
    add_json_option(parser, "shift_card")
    options = parser.parse_args()
    predictor = load_model(options.run)
    assessor = predictor.assessor
    assert assessor is not None and assessor.record.expected_accuracy is not None
    record = read_expected_accuracy(assessor.record.expected_accuracy)
    cells = load(options.data, preparation=predictor.bundle.preparation)
    parts = {}
    for part in ("test", "validation"):
        rows, _, _ = tested_rows(predictor.folder, cells, part)
        rows = np.sort(rows[spread(cells.labels[rows], 0)[: options.cells if part == "test" else max(LABELS)]])
        ids = [str(cells.ids[row]) for row in rows]
        parts[part] = np.stack([cells.images[row] for row in rows]), cells.labels[rows], ids
    images, labels, ids = parts["test"]
    work = [(name, severity, SEED) for name in CORRUPTIONS for severity in SEVERITIES]
    work += [(name, 0, SEED + k) for name in STACKS for k in range(3)]
    found, by_name = [], defaultdict(list)
    for name, severity, seed in work:
        said = predictor.predict_images(damaged(images, name, severity, seed, ids), ids)
        truth = float((said.predicted == labels).mean())
        expected = expected_accuracy(record, said.probs)
        row = {
            "name": name,
            "severity": severity,
            "accuracy": truth,
            **{method: estimate_of(record, said.probs, method) for method in METHODS},
            "held": bool(expected.low <= truth <= expected.high),
        }
        found.append(row)
        by_name[name].append(row)
        print(f"{name} {severity}: {truth:.3f}, expected {row[record.method]:.3f}", flush=True)
    recalibrations = [recalibrated(predictor, assessor.record, parts, name) for name in STACKS]
    table = []
    for name, rows in [*by_name.items(), ("all", found)]:
        errors = [np.mean([abs(row[method] - row["accuracy"]) for row in rows]) for method in METHODS]
        largest = max(abs(row[record.method] - row["accuracy"]) for row in rows)
        table.append(
            [
                name,
                len(rows),
                f"{np.mean([row['accuracy'] for row in rows]):.3f}",
                *(f"{one:.4f}" for one in errors),
                f"{largest:.4f}",
                f"{np.mean([row['held'] for row in rows]):.2f}",
            ]
        )
    publish(
        options.json,
        {
            "command": "python benchmarks/shift_card.py",
            "cells": len(ids),
            "method": record.method,
            "stated_error": record.error,
            "fitted_errors": record.errors,
            "rows": found,
            "recalibrations": recalibrations,
        },
        ("damage", "sets", "true accuracy", *METHODS, "largest error of the one in use", "interval holds"),
        table,
    )
    for one in recalibrations:
        print(one)


def recalibrated(predictor, record: TrustRecord, parts, name: str) -> dict:
    """Log loss of damaged test cells with the old temperature, and with one refitted on labels of others."""
    logits = {}
    for part, (images, _, ids) in parts.items():
        logits[part] = predictor.predict_images(damaged(images, name, 0, SEED, ids), ids).logits
    test = parts["test"][1]
    result = {"name": name, "before": log_loss(softmax(logits["test"], record.temperature), test)}
    order = spread(parts["validation"][1], 1)
    for count in LABELS:
        new, _ = refit(record, logits["validation"][order[:count]], parts["validation"][1][order[:count]])
        result[f"after_{count}"] = log_loss(softmax(logits["test"], new.temperature), test)
    return result


if __name__ == "__main__":
    main()
