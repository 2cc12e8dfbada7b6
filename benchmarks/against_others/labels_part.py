"""Labels that were flipped, uniformly and between the classes that are confused: against cleanlab."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from planted_labels import flip_labels

from against_others.measures import f1, image_average_precision, precision_at_planted
from against_others.rows import Row, Setting
from against_others.theirs import feature_files
from hemascope.audit.label_errors import check_label_errors

SHARES = (0.01, 0.03, 0.1)
KINDS = ("uniform", "confusable")
RECIPE_SHARE = 0.03
"""cleanlab on its tutorials' recipe takes minutes: at this share only. The better setting is run at all."""
STRENGTH = "0.001"
"""Of 1, 0.1, 0.01, 0.001 and 0.0001 the inverse penalty with the best average precision for cleanlab, and the second
best log loss, on 3,000 of the cells with 3 % of flips."""


def labels_part(setting: Setting) -> list[Row]:
    """Every share and kind of flips, on the same embeddings for both."""
    given = setting.ours.give(setting.base.folder)
    cells = given.material.cells
    features = feature_files(setting.work, "labels", given.material.embeddings)
    rows = []
    for kind in KINDS:
        for share in SHARES:
            labels = flip_labels(cells.labels, cells.class_names, share, setting.seed, kind=kind)
            flipped = labels != cells.labels
            material = replace(given.material, cells=replace(cells, labels=labels))
            started = time.perf_counter()
            result = check_label_errors(material)
            seconds = given.seconds + time.perf_counter() - started
            assert result.scores is not None
            ours = np.nan_to_num(result.scores, nan=1.0)
            found = {finding.id for finding in result.findings}
            flagged = np.array([name in found for name in cells.ids])

            file = setting.work / "labels_given.npy"
            np.save(file, labels)
            for words, (path, more) in features.items():
                if not more and share != RECIPE_SHARE:
                    continue
                options = [*more, *(("--strength", STRENGTH) if more else ())]
                label = f"labels_{kind}_{share}_{'scaled' if more else 'recipe'}"
                answer = setting.theirs.cleanlab(label, path, "labels", "--labels", file, *options)
                spent = float(answer["seconds"]) + given.loading + given.embedding
                everything = np.ones(len(labels), dtype=bool)
                theirs = answer["self_confidence"]
                margin = image_average_precision(flipped, answer["normalized_margin"], everything)
                detail = {"flipped": int(flipped.sum()), "their_normalised_margin": margin, "our_steps": given.steps()}
                task, tool = f"label errors: {share:.0%} {kind}", f"cleanlab: our embeddings, {words}"
                for measure, one, other in (
                    ("average precision", *(image_average_precision(flipped, s, everything) for s in (theirs, ours))),
                    ("precision at the number planted", *(precision_at_planted(flipped, s) for s in (theirs, ours))),
                    ("F1 at each one's own cut", f1(flipped, answer["flag"]), f1(flipped, flagged)),
                ):
                    rows.append(Row(task, measure, tool, one, other, spent, seconds, "", detail))
    return rows
