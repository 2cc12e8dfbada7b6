"""The features of a study's cells before and after training, as two maps with their separation figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hemascope.atomic import write_json
from hemascope.data.splits import load_splits
from hemascope.data.store import open_store
from hemascope.progress import Progress
from hemascope.report.map_picture import save_map_picture
from hemascope.study.cells import StudyCells
from hemascope.study.places import find_run, is_finished, study_folder
from hemascope.study.plan import StudyPlan, variant_trials, variants


def draw_maps(plan: StudyPlan, cells: Mapping[str, StudyCells], output: Path, progress: Progress) -> None:
    """Draw the test cells of the study where the backbone of ``plan.maps``, first seed, puts them.

    Writes ``maps/``: one page with both maps, a picture, and the figures. Nothing is done where the run is missing or
    its maps are there.
    """
    from hemascope.workflow import draw_map

    variant = next(one for one in variants(plan) if one.name == plan.maps)
    trial = variant_trials(plan, variant, cells[variant.name].fingerprint)[0]
    run = find_run(output, trial)
    folder = study_folder(output, plan.name) / "maps"
    if not is_finished(run) or _run_of(folder) == run.name:
        return
    store = cells[variant.name].folder / "store"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = draw_map(store, output=folder / "maps.html", run=run, part="test", progress=progress)
    kept = open_store(store)
    rows = load_splits(run / "splits.json", kept).indices("test")
    save_map_picture(folder / "maps.png", drawn.maps, kept.labels[rows], kept.class_names)
    figures = [
        {"title": one.title, "silhouette": one.silhouette, "knn_accuracy": one.knn_accuracy} for one in drawn.maps
    ]
    write_json(folder / "maps.json", {"run": run.name, "cells": len(rows), "maps": figures})


def map_pictures(folder: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    """The picture of a study's maps with its caption, and the figures as a sentence; both empty where there is none."""
    try:
        record = json.loads((folder / "maps" / "maps.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [], []
    said = "; ".join(
        f"{one['title']}: silhouette {one['silhouette']:.3f}, balanced accuracy of the nearest neighbours "
        f"{one['knn_accuracy']:.3f}"
        for one in record["maps"]
    )
    sentence = f"t-SNE of the features of {record['cells']:,} test cells. {said}."
    return [(folder / "maps" / "maps.png", sentence)], [sentence]


def _run_of(folder: Path) -> str:
    try:
        record = json.loads((folder / "maps.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(record.get("run", ""))
