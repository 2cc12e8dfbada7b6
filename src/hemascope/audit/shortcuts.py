"""Can the class be told without looking at the cell: from size, colour, border or the file alone?"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemascope.audit.material import Material, Measures
from hemascope.bootstrap import percentile_interval, resample_counts
from hemascope.cells import UNLABELLED
from hemascope.data.split_clusters import clusters, cut
from hemascope.findings import CheckResult
from hemascope.metrics import confusion_matrix
from hemascope.progress import SILENT, Progress

MOST_IMAGES = 10_000
"""Images the probes are trained and tried on, at most; the time does not grow beyond."""

FOLDS = 5
FEWEST = 2 * FOLDS
"""Images a class needs to be part of the question."""

SKILL = 0.1
"""Share of the way from chance to certainty above which a probe is said to tell the class."""

_RESAMPLES = 1000
_TREES = 50
_LEAF = 5
_TOKENS = 30  # most frequent things files say of themselves


@dataclass(frozen=True)
class _Probe:
    """One thing to tell the class by; ``tells_of_cell``: a cell's own look is in it, so skill is no proof."""

    title: str
    features: NDArray[np.float32]
    tells_of_cell: bool
    missing: str = "it is the same in every image"


def check_shortcuts(material: Material, *, limit: int = MOST_IMAGES, progress: Progress = SILENT) -> CheckResult:
    """``shortcut``: balanced accuracy, against chance, of a random forest that sees no picture of the cell.

    Five probes: size, border (mean and deviation of the colours in the outer 6 %), metadata (format, mode and what else
    the file says), colour (mean of the whole image), file_bytes. Each is tried in five folds that keep exact copies and
    groups together, on at most ``limit`` images, each class equally; the interval is a 95 % bootstrap of the images.
    Skill is (balanced accuracy - chance) / (1 - chance). The verdict is "found" where the lower limit of the skill of
    size, border or metadata is above 0.1. Colour and file_bytes are reported but do not decide: cells differ in both.

    A check of the whole set: no scores, no findings; ``summary`` holds ``verdict``, ``sentence``, ``chance``,
    ``classes``, ``images`` and ``probes``: a list of dictionaries, each with ``name``, ``chance`` and
    ``not_applicable`` ("" where it was made), and where it was made ``balanced_accuracy``, ``low``, ``high``,
    ``skill``, ``found``, ``tells_of_cell`` and ``sentence``.
    """
    began = time.perf_counter()
    cells = material.cells
    usable = np.flatnonzero(cells.class_counts() >= FEWEST)
    if len(usable) < 2:
        return CheckResult("shortcut", not_applicable=f"it needs two classes of at least {FEWEST} labelled images")
    rng = np.random.default_rng(material.seed)
    rows = _sample(cells.labels, usable, limit, rng)
    labels = np.searchsorted(usable, cells.labels[rows]).astype(np.int64)
    hashes = [cells.content_hash[row] for row in rows.tolist()]
    _, together = clusters(hashes, None if cells.groups is None else cells.groups[rows])
    fold = cut(labels, together, [1 / FOLDS] * FOLDS, [True] * FOLDS, rng)
    lacking = [int(k) for k in range(len(usable)) if len(np.unique(fold[labels == k])) < 2]
    if lacking:
        name = cells.class_names[int(usable[lacking[0]])]
        return CheckResult(
            "shortcut",
            not_applicable=f"all images of {name} are copies or of one group, so none can be told by the others",
        )
    probes = _probes(material.measures, rows)
    chance = 1 / len(usable)
    found: dict[str, dict[str, object]] = {}
    with progress.task("looking for shortcuts", len(probes), "probes") as advance:
        for name, probe in probes.items():
            found[name] = _try(probe, labels, fold, chance, material.seed)
            advance(1)
    telling = [name for name, result in found.items() if result.get("found") and not probes[name].tells_of_cell]
    return CheckResult(
        "shortcut",
        cut_rule=(
            f"found where size, border or metadata alone tell the class: the 95 % interval lies above chance "
            f"by more than {SKILL:.0%} of what is left to certainty. Colour and bytes are shown only: cells differ in "
            "both"
        ),
        summary={
            "verdict": "found" if telling else "passed",
            "sentence": _sentence(telling, found, chance),
            "chance": round(chance, 4),
            "classes": len(usable),
            "images": len(rows),
            "probes": [{"name": name, "chance": round(chance, 4), **result} for name, result in found.items()],
        },
        seconds=time.perf_counter() - began,
    )


def _sample(
    labels: NDArray[np.int64], usable: NDArray[np.intp], limit: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Rows, rising: at most ``limit`` in all and an equal number of each usable class, where it has them."""
    most = max(FEWEST, limit // len(usable))
    wanted = np.zeros(int(labels.max(initial=0)) + 1, dtype=bool)
    wanted[usable] = True
    rows = rng.permutation(np.flatnonzero((labels != UNLABELLED) & wanted[np.maximum(labels, 0)]))
    order = rows[np.argsort(labels[rows], kind="stable")]
    first = np.searchsorted(labels[order], labels[order])
    return np.sort(order[np.arange(len(order)) - first < most])


def _probes(measures: Measures, rows: NDArray[np.intp]) -> dict[str, _Probe]:
    height, width = measures.size[rows].astype(np.float32).T
    stored = measures.file_bytes[rows].astype(np.float32)[:, None]
    files = "there are no files, only arrays" if not stored.any() else "it is the same in every image"
    return {
        "size": _Probe("the size alone", np.stack([height, width, width / height], axis=1), False),
        "border": _Probe("the border alone", measures.border[rows], False),
        "metadata": _Probe("the file's metadata alone", _tokens(measures, rows), False, files),
        "colour": _Probe("the mean colour alone", measures.colour[rows], True),
        "file_bytes": _Probe("the file's number of bytes alone", stored, True, files),
    }


def _tokens(measures: Measures, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Which of the most frequent things each file says of itself: float32 (n, T) of 0 and 1."""
    said: list[Sequence[str]] = [
        (f"format {measures.format[row]}", f"mode {measures.mode[row]}", *measures.metadata[row].split("; "))
        for row in rows.tolist()
    ]
    frequent = [token for token, _ in Counter(token for tokens in said for token in tokens).most_common(_TOKENS)]
    place = {token: column for column, token in enumerate(frequent)}
    table = np.zeros((len(said), len(frequent)), dtype=np.float32)
    for row, tokens in enumerate(said):
        table[row, [place[token] for token in tokens if token in place]] = 1
    return table


def _try(
    probe: _Probe, labels: NDArray[np.int64], fold: NDArray[np.int64], chance: float, seed: int
) -> dict[str, object]:
    """Out-of-fold balanced accuracy of a forest on one probe's features, with its interval."""
    if not len(probe.features) or not np.ptp(probe.features, axis=0).any():
        return {"not_applicable": probe.missing}
    from sklearn.ensemble import RandomForestClassifier

    predicted = np.zeros(len(labels), dtype=np.int64)
    for part in np.unique(fold):
        forest = RandomForestClassifier(
            _TREES, min_samples_leaf=_LEAF, class_weight="balanced", random_state=seed, n_jobs=1
        )
        forest.fit(probe.features[fold != part], labels[fold != part])
        predicted[fold == part] = forest.predict(probe.features[fold == part])
    classes = round(1 / chance)
    confusion = confusion_matrix(labels, predicted, classes)
    rng = np.random.default_rng(seed)
    samples = np.concatenate(
        [_balanced_accuracy(drawn, classes) for drawn in resample_counts(confusion.ravel(), _RESAMPLES, rng)]
    )
    value = float(_balanced_accuracy(confusion.reshape(1, -1), classes)[0])
    low, high = (float(limit) for limit in percentile_interval(samples))
    skill = (value - chance) / (1 - chance)
    found = (low - chance) / (1 - chance) > SKILL
    sentence = (
        f"From {probe.title} the class is told with a balanced accuracy of {value:.1%} (95 % interval {low:.1%} to "
        f"{high:.1%}; chance {chance:.1%})."
    )
    if found and probe.tells_of_cell:
        sentence += " Cells of different kinds differ in this by nature, so it proves nothing by itself."
    return {
        "not_applicable": "",
        "balanced_accuracy": round(value, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "skill": round(skill, 4),
        "found": bool(found),
        "tells_of_cell": probe.tells_of_cell,
        "sentence": sentence,
    }


def _balanced_accuracy(counts: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Mean recall of the classes that occur, of B flattened confusion matrices (B, K * K): float64 (B,)."""
    table = counts.reshape(-1, classes, classes)
    size = table.sum(axis=2)
    right = np.diagonal(table, axis1=1, axis2=2)
    recall = np.divide(right, size, out=np.zeros(right.shape), where=size > 0)
    return np.asarray(recall.sum(axis=1) / np.maximum((size > 0).sum(axis=1), 1))


def _sentence(telling: Sequence[str], found: dict[str, dict[str, object]], chance: float) -> str:
    if telling:
        return " ".join(str(found[name]["sentence"]) for name in telling)
    tried = [name for name in found if "skill" in found[name] and not found[name]["tells_of_cell"]]
    if not tried:
        return "Size, border and metadata are the same in every image."
    return f"None of {', '.join(tried)} tells the class much better than chance ({chance:.1%})."
