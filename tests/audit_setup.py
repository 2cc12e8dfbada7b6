"""A made-up audit of synthetic cells with every kind of outcome in it, for the tests of its record and its page."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hemascope import render_cells
from hemascope.audit_record import rows_shown, save_audit
from hemascope.cells import CellDataset
from hemascope.findings import CHECKS, AuditReport, CheckResult, Finding, MapPoints

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def cells(per_class: int = 6, size: int = 48) -> CellDataset:
    """Synthetic cells of 8 classes; the first id and the first class are hostile text, and parts are known."""
    plain = render_cells(per_class, size=size, seed=3)
    ids = [f"{HOSTILE}/0.png", "=cmd|' /C calc'!A0.png", "'+1.png", *plain.ids[3:]]
    names = (HOSTILE, *plain.class_names[1:])
    split = np.where(np.arange(len(plain)) % 4 == 0, "test", "train")
    return replace(plain, ids=ids, class_names=names, split=split)


def report(cells: CellDataset, *, off_topic: int = 5) -> AuditReport:
    """One result of every kind: findings of each suggestion, passed, not applicable, of the whole set, not made."""
    rng = np.random.default_rng(0)
    n, names = len(cells), cells.class_names
    points = (rng.normal(0, 20, (len(names), 2))[cells.labels] + rng.normal(0, 4, (n, 2))).astype(np.float32)

    def found(check: str, rows: list[int], scores: np.ndarray, suggestion: str, related: int | None = None) -> list:
        return [
            Finding(
                check=check,
                id=cells.ids[row],
                content_hash=cells.content_hash[row],
                score=float(scores[row]),
                suggestion=suggestion,  # type: ignore[arg-type]
                why=f"its score of {scores[row]:.2f} is far below that of the others {HOSTILE}",
                label=names[cells.labels[row]],
                new_label=names[(cells.labels[row] + 1) % len(names)] if suggestion == "relabel" else "",
                related="" if related is None else cells.ids[related],
            )
            for row in sorted(rows, key=lambda row: scores[row])
        ]

    def scores(rows: list[int]) -> np.ndarray:
        values = rng.uniform(0.5, 1, n).astype(np.float32)
        values[rows] = rng.uniform(0, 0.3, len(rows))
        return values

    results = []
    for check, rows, suggestion, related in (
        ("blurred", [7, 8], "review", None),
        ("exact_duplicate", [11, 12, 13], "drop", 10),
        ("near_duplicate", [21], "drop", 20),
        ("off_topic", list(range(off_topic)), "drop", None),
        ("label_error", [4, 5, 6], "relabel", None),
    ):
        values = scores(rows)
        results.append(
            CheckResult(
                check, values, 0.3, "six robust deviations below the median",
                found(check, rows, values, suggestion, related), summary={"images": len(rows), "pairs": [{"left": 1}]},
                seconds=1.5,
            )
        )  # fmt: skip
    unreadable = Finding("unreadable", "broken.png", "", 0.0, "drop", "the file is cut off")
    dark = scores([])
    dark[:3] = np.nan
    results += [
        CheckResult("unreadable", findings=[unreadable], cut=0.0, summary={"unreadable": 1}),
        CheckResult("dark", dark, 0.1, "a tenth of the usual brightness"),
        CheckResult("leakage", not_applicable="no split is known"),
        CheckResult(
            "class_imbalance",
            summary={
                "verdict": "found",
                "sentence": "The largest class has 12 times as many images as the smallest.",
                "counts": dict(zip(names, cells.class_counts().tolist(), strict=True)),
                "ratio": np.float64(12.0),
                "undefined": float("nan"),
            },
        ),
        CheckResult(
            "shortcut",
            cut_rule="found where the interval lies above chance",
            summary={
                "verdict": "passed",
                "sentence": "No shortcut is known.",
                "probes": [
                    {"name": "size", "chance": 0.125, "not_applicable": "all images have one size", "sentence": ""},
                    {"name": "colour", "chance": 0.125, "balanced_accuracy": 0.5, "low": 0.45, "high": 0.55,
                     "found": True, "sentence": "From colour the class is told.", "not_applicable": ""},
                ],
            },
        ),
    ]  # fmt: skip
    order = list(CHECKS)
    quartile = {"n": 6, "q1": 0.1, "median": 0.2, "q3": 0.4, "flag": ""}
    return AuditReport(
        results=sorted(results, key=lambda one: order.index(one.check)),
        ids=cells.ids,
        content_hash=cells.content_hash,
        labels=cells.labels,
        class_names=names,
        fingerprint=cells.fingerprint(),
        source=f"cells/{HOSTILE}",
        embedding="efficientnet, 4 views",
        split=cells.split,
        statistics={
            key: {
                "title": title,
                "by_class": {name: {**quartile, "flag": "high" if k == 2 else ""} for k, name in enumerate(names)},
                "by_source": {"slide 1": quartile, "slide 2": quartile},
            }
            for key, title in (
                ("stain_h", "Haematoxylin-like stain (mean optical density)"),
                ("sharpness", "Sharpness"),
            )
        },
        map=MapPoints(np.arange(n), points, 0.25, 0.8125, "pretrained"),
        facts={"seed": 0, "command": "hemascope audit cells -o audits/x", "versions": {"numpy": "2.0"}},
    )


def saved_audit(folder: Path, made: CellDataset, given: AuditReport) -> Path:
    """``given`` as an audit folder with the pictures the page shows."""
    save_audit(folder, given, ((int(row), made.images[row]) for row in rows_shown(given)))
    return folder
