"""Exact and near duplicates, pair by pair, against cleanvision, imagededup and cleanlab."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from planted_duplicates import plant_duplicates

from against_others.measures import code_average_precision, pair_average_precision, pair_f1, set_pairs
from against_others.ours import Given
from against_others.rows import Row, Setting
from against_others.sets import Added, make_set, png
from against_others.theirs import feature_files, renumbered
from hemascope.audit.exact_duplicates import check_exact_duplicates
from hemascope.audit.near_duplicates import check_near_duplicates
from hemascope.findings import Finding

EXACT = 50
"""Copies of the file, and as many of the pixels in a file of another kind."""
NEAR_SHARE = 0.05
HASHES = ("PHash", "DHash", "WHash", "AHash")


def exact_part(setting: Setting) -> list[Row]:
    """Copies byte by byte, and the same pixels saved as another file."""
    base = setting.base
    chosen = np.random.default_rng(setting.seed).permutation(base.unseen)[: 2 * EXACT].tolist()
    added = []
    for number, source in enumerate(chosen):
        name = base.names[source]
        folder, _, file = name.partition("/")
        if number < len(chosen) // 2:
            content, copy = (base.folder / name).read_bytes(), f"{folder}/copy_of_{file}"
        else:
            content, copy = png(base.pixels(source)), f"{folder}/saved_{file.rpartition('.')[0]}.png"
        added.append(Added(copy, content, {"source": name}))
    planted = make_set(base, setting.work / "exact", added)

    given = setting.ours.give(planted.folder, embedded=False)
    started = time.perf_counter()
    findings = [finding for result in check_exact_duplicates(given.material) for finding in result.findings]
    # What loading knows is enough; measures only word the findings.
    seconds = given.loading + time.perf_counter() - started
    names = given.material.cells.ids
    count = len(names)
    wanted = wanted_pairs({name: known["source"] for name, known in planted.planted.items()}, names)
    ours, detail = pair_f1(finding_pairs(findings, names), wanted, count)

    vision = setting.theirs.cleanvision("exact_cleanvision", planted.folder, ["exact_duplicates"])
    found = {"cleanvision: exact duplicates": (set_pairs(vision["set_exact_duplicates"]), vision)}
    dedup = setting.theirs.imagededup("exact_imagededup", planted.folder, "--methods", "PHash", "--search")
    codes = np.unique(dedup["PHash_codes"], return_inverse=True)[1].astype(np.int64)
    found["imagededup: PHash, distance 0"] = (set_pairs(codes), dedup)
    rows = []
    for tool, (pairs, answer) in found.items():
        theirs, their_detail = pair_f1(renumbered(answer, pairs, names), wanted, count)
        spent = float(answer.get("seconds", answer.get("PHash_seconds", np.nan)))
        shown = {"planted": len(wanted), "theirs": their_detail, "ours": detail}
        note = f"false alarms: theirs {their_detail['false_alarms']}, ours {detail['false_alarms']}"
        rows.append(Row("exact duplicates", "F1 of pairs", tool, theirs, ours, spent, seconds, note, shown))
    return rows


@dataclass(frozen=True)
class _Near:
    """What the answers on near duplicates are compared with: names of N images, the planted pairs, our answer."""

    setting: Setting
    folder: Path
    given: Given
    wanted: NDArray[np.int64]
    ours: float
    seconds: float
    detail: dict[str, Any]

    @property
    def names(self) -> Sequence[str]:
        return self.given.material.cells.ids

    def row(
        self, tool: str, theirs: float | None, seconds: float | None, note: str = "", **detail: dict[str, Any]
    ) -> Row:
        shown = self.detail | detail
        return Row(
            "near duplicates", "average precision of pairs", tool, theirs, self.ours, seconds, self.seconds, note, shown
        )

    def pairs_row(self, tool: str, pairs: NDArray[np.int64], distance: NDArray[Any], seconds: float) -> Row:
        count = len(self.names)
        theirs = pair_average_precision(pairs, distance, self.wanted, count)
        return self.row(tool, theirs, seconds, their_pairs=pair_f1(pairs, self.wanted, count)[1])


def near_part(setting: Setting) -> list[Row]:
    """Edited copies of 5 % of the cells: JPEG, resize, turn, crop, brightness, and pairs of these."""
    base = setting.base
    copies = plant_duplicates(base.pixels, base.unseen, round(NEAR_SHARE * len(base.names)), setting.seed)
    added = []
    for number, copy in enumerate(copies):
        name = base.names[copy.source]
        known = {"source": name, "kind": copy.kind}
        added.append(Added(f"{name.partition('/')[0]}/edited_{number:05}.png", png(copy.pixels), known))
    planted = make_set(base, setting.work / "near", added)

    given = setting.ours.give(planted.folder)
    started = time.perf_counter()
    result, verified = check_near_duplicates(given.material)
    seconds = given.seconds + time.perf_counter() - started
    names = given.material.cells.ids
    wanted = wanted_pairs({name: known["source"] for name, known in planted.planted.items()}, names)
    pairs = np.stack([verified.left, verified.right], axis=1)
    detail = {
        "planted": len(wanted),
        "ours": pair_f1(pairs, wanted, len(names))[1],
        "findings": len(result.findings),
        "our_steps": given.steps(),
    }
    ours = pair_average_precision(pairs, verified.score, wanted, len(names))
    near = _Near(setting, planted.folder, given, wanted, ours, seconds, detail)
    return [*_near_cleanvision(near), *_near_imagededup(near), *_near_cleanlab(near)]


def _near_cleanvision(near: _Near) -> list[Row]:
    rows = []
    for side, words in ((8, " (default)"), (4, "")):
        answer = near.setting.theirs.cleanvision(
            f"near_cleanvision_{side}", near.folder, ["near_duplicates"], "--hash-size", str(side)
        )
        pairs = renumbered(answer, set_pairs(answer["set_near_duplicates"]), near.names)
        tool = f"cleanvision: equal phash of {side} × {side}{words}"
        rows.append(near.pairs_row(tool, pairs, np.zeros(len(pairs)), float(answer["seconds"])))
    return rows


def _near_imagededup(near: _Near) -> list[Row]:
    answer = near.setting.theirs.imagededup("near_imagededup", near.folder, "--search", "PHash")
    rows = []
    searched = "PHash_pairs" in answer
    if searched:
        pairs = renumbered(answer, answer["PHash_pairs"], near.names)
        tool = "imagededup: PHash, up to 10 bits (default)"
        rows.append(near.pairs_row(tool, pairs, answer["PHash_distances"], float(answer["PHash_seconds"])))
    place = {name: row for row, name in enumerate(answer["names"].tolist())}
    wanted = np.array([[place[near.names[row]] for row in pair] for pair in near.wanted.tolist()])
    for method in HASHES:
        theirs = code_average_precision(answer[f"{method}_codes"], wanted)
        note = "" if searched and method == "PHash" else "time without their search"
        tool = f"imagededup: {method}, any distance"
        rows.append(near.row(tool, theirs, float(answer[f"{method}_seconds"]), note))
    rows.append(near.row("imagededup: CNN", None, None, "not applicable here: its MobileNetV3 needs a download"))
    return rows


def _near_cleanlab(near: _Near) -> list[Row]:
    rows = []
    features = feature_files(near.setting.work, "near", near.given.material.embeddings)
    for words, (file, more) in features.items():
        answer = near.setting.theirs.cleanlab(f"near_cleanlab_{len(more)}", file, "near_duplicates", *more)
        seconds = float(answer["seconds"]) + near.given.loading + near.given.embedding
        tool = f"cleanlab: Datalab, our embeddings, {words}"
        rows.append(near.pairs_row(tool, answer["pairs"], answer["distances"], seconds))
    return rows


def wanted_pairs(source: dict[str, str], names: Sequence[str]) -> NDArray[np.int64]:
    """Rows of each planted image and of what it was made from: (Q, 2)."""
    row = {name: number for number, name in enumerate(names)}
    return np.array([(row[copy], row[original]) for copy, original in source.items()], dtype=np.int64)


def finding_pairs(findings: list[Finding], names: Sequence[str]) -> NDArray[np.int64]:
    """Rows of each finding and of the image it was compared with: (P, 2)."""
    row = {name: number for number, name in enumerate(names)}
    pairs = [(row[finding.id], row[finding.related]) for finding in findings if finding.related]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
