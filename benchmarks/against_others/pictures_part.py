"""Overlays and foreign pictures among the cells: against cleanlab's outliers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from planted_pictures import TEXTS, TEXTURES, Photographs, laid_over

from against_others.measures import auroc, image_average_precision
from against_others.rows import Row, Setting
from against_others.sets import Added, PlantedSet, make_set, png
from against_others.theirs import feature_files
from hemascope.audit.off_topic import check_off_topic


def picture_set(setting: Setting, label: str, pictures: Iterable[tuple[NDArray[np.uint8], str]]) -> PlantedSet:
    """The cells and, beside them, pictures uint8 (H, W, 3), each with the class that it pretends to be of."""
    added = [
        Added(f"{name}/{label}_{number:05}.png", png(pixels), {"label": name})
        for number, (pixels, name) in enumerate(pictures)
    ]
    return make_set(setting.base, setting.work / label, added)


def pictures_rows(setting: Setting, task: str, label: str, planted: PlantedSet, measures: Sequence[str]) -> list[Row]:
    """What both say of one set."""
    given = setting.ours.give(planted.folder)
    cells = given.material.cells
    started = time.perf_counter()
    result = check_off_topic(given.material)[0]
    seconds = given.seconds + time.perf_counter() - started
    assert result.scores is not None
    foreign = np.array([name in planted.planted for name in cells.ids])
    everything = np.ones(len(foreign), dtype=bool)
    rows = []
    for words, (path, more) in feature_files(setting.work, label, given.material.embeddings).items():
        answer = setting.theirs.cleanlab(f"{label}_{len(more)}", path, "outliers", *more)
        spent = float(answer["seconds"]) + given.loading + given.embedding
        detail = {"planted": int(foreign.sum()), "our_steps": given.steps()}
        for measure in measures:
            score = {"theirs": answer["score"], "ours": result.scores}
            found = {
                who: auroc(foreign, each) if measure == "AUROC" else image_average_precision(foreign, each, everything)
                for who, each in score.items()
            }
            tool = f"cleanlab: outliers of our embeddings, {words}"
            rows.append(Row(task, measure, tool, found["theirs"], found["ours"], spent, seconds, "", detail))
    return rows


def overlays_part(setting: Setting, photographs: Photographs) -> list[Row]:
    """Every overlay with its own picture, strength 0.2 to 0.6 and cell: 8 in 100 of the cells."""
    rng = np.random.default_rng([setting.seed, 23])
    chosen = rng.permutation(len(setting.base.names))[: len(setting.base.names) // 12]
    pictures = []
    for index in chosen:
        cell = setting.base.pixels(int(index))
        picture = photographs.cut(rng, min(cell.shape[:2]))
        side = min(cell.shape[:2])
        laid = laid_over(cell[:side, :side], picture, float(rng.uniform(0.2, 0.6)))
        pictures.append((laid, setting.base.names[int(index)].split("/")[0]))
    planted = picture_set(setting, "overlays", pictures)
    return pictures_rows(setting, "overlays, each its own picture", "overlays", planted, ("average precision",))


def foreign_part(setting: Setting, photographs: Photographs) -> list[Row]:
    """Photographs, textures and text among the cells: 2 in 100."""
    rng = np.random.default_rng([setting.seed, 29])
    classes = sorted({name.split("/")[0] for name in setting.base.names})
    kinds = [None, *(names for names in (TEXTURES, TEXTS) if all(map(photographs.has, names)))]
    pictures = [
        (photographs.cut(rng, 208, among=kinds[number % len(kinds)]), classes[int(rng.integers(len(classes)))])
        for number in range(max(30, len(setting.base.names) // 50))
    ]
    planted = picture_set(setting, "foreign", pictures)
    return pictures_rows(setting, "foreign pictures", "foreign", planted, ("AUROC",))
