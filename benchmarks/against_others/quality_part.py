"""Blank, dark, bright, blurred, flat, odd size and shape, without colour: against cleanvision."""

from __future__ import annotations

import time

import numpy as np
from planted_quality import plant_quality

from against_others.measures import f1, image_average_precision, recall_and_false
from against_others.rows import Row, Setting
from against_others.sets import Added, make_set
from against_others.theirs import in_order
from hemascope.audit.quality import check_quality

EACH = 60
"""Spoilt copies of each kind; less where there are few cells."""

ASKED = {
    "blank": ("blank", "low_information"),
    "dark": ("dark", "dark"),
    "bright": ("bright", "light"),
    "blurred": ("blurred", "blurry"),
    "low_information": ("low_information", "low_information"),
    "odd_size": ("odd_size", "odd_size"),
    "odd_aspect": ("odd_aspect", "odd_aspect_ratio"),
    "greyscale": ("odd_mode", "grayscale"),
    "greyscale_rgb": ("odd_mode", "grayscale"),
}
"""What was planted: our check for it, and cleanvision's. It has none for blank images; the nearest is taken."""

ALSO = {"blank": ("low_information", "dark", "light")}
"""Of cleanvision's checks, those whose findings count at its own cuts, where more than one would do."""


def quality_part(setting: Setting) -> list[Row]:
    """Each fault by itself: its copies among all cells that nothing was done to; other faults are left aside."""
    base = setting.base
    each = min(EACH, len(base.unseen) // (2 * len(ASKED)))
    added = []
    for number, spoilt in enumerate(plant_quality(base.pixels, base.unseen, each, setting.seed)):
        folder = base.names[spoilt.source].partition("/")[0]
        added.append(Added(f"{folder}/spoilt_{number:05}.jpg", spoilt.file_bytes(), {"fault": spoilt.fault}))
    planted = make_set(base, setting.work / "quality", added)

    given = setting.ours.give(planted.folder, embedded=False)
    started = time.perf_counter()
    results = {result.check: result for result in check_quality(given.material)}
    seconds = given.seconds + time.perf_counter() - started
    names = list(given.material.cells.ids)
    answer = setting.theirs.cleanvision(
        "quality_cleanvision", planted.folder, sorted({theirs for _, theirs in ASKED.values()})
    )

    fault = np.array([planted.planted[name]["fault"] if name in planted.planted else "" for name in names])
    rows: list[Row] = []
    for name, (our_check, their_check) in ASKED.items():
        mine, among = fault == name, (fault == name) | (fault == "")
        result = results[our_check]
        flagged = {finding.id for finding in result.findings}
        our_flag = np.array([each in flagged for each in names])
        their_flag = np.any(
            [in_order(answer, f"flag_{check}", names, missing=0) for check in ALSO.get(name, (their_check,))], axis=0
        ).astype(bool)
        assert result.scores is not None
        detail = {
            "planted": int(mine.sum()),
            "ours_at_cut": recall_and_false(mine[among], our_flag[among]),
            "theirs_at_cut": recall_and_false(mine[among], their_flag[among]),
            "our_steps": given.steps(),
        }
        task, tool, spent = (
            f"quality: {name.replace('_', ' ')}",
            f"cleanvision: {their_check}",
            float(answer["seconds"]),
        )
        theirs = image_average_precision(mine, in_order(answer, f"score_{their_check}", names), among)
        ours = image_average_precision(mine, result.scores, among)
        rows.append(Row(task, "average precision", tool, theirs, ours, spent, seconds, "", detail))
        theirs, ours = f1(mine[among], their_flag[among]), f1(mine[among], our_flag[among])
        rows.append(Row(task, "F1 at each one's own cut", tool, theirs, ours, spent, seconds, "", detail))
    return rows
