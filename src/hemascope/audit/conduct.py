"""All checks of a set of cells, in an order in which the later ones can use what the earlier found."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hemascope.audit.duplicate_pairs import DuplicatePairs
from hemascope.audit.exact_duplicates import check_exact_duplicates
from hemascope.audit.imbalance import check_imbalance
from hemascope.audit.label_errors import check_label_errors
from hemascope.audit.leakage import check_leakage
from hemascope.audit.material import Material
from hemascope.audit.near_duplicates import check_near_duplicates
from hemascope.audit.off_topic import check_off_topic
from hemascope.audit.quality import check_quality
from hemascope.audit.shortcuts import check_shortcuts
from hemascope.audit.stain import check_stain
from hemascope.findings import CHECKS, CheckResult
from hemascope.progress import SILENT, Progress

EMBEDDED_CHECKS = frozenset({"near_duplicate", "off_topic", "outlier", "label_error"})
"""Checks that need embeddings; without them nothing has to be embedded."""

QUALITY_CHECKS = frozenset(list(CHECKS)[: list(CHECKS).index("odd_stain")])
"""Checks of single images by themselves, which are made together."""


def conduct(
    material: Material,
    *,
    checks: Collection[str] = tuple(CHECKS),
    split: NDArray[np.str_] | None = None,
    trained_on_these: bool = False,
    progress: Progress = SILENT,
) -> list[CheckResult]:
    """The results of these checks, in the order of CHECKS.

    split             N parts, where they are not the source's own: for leakage
    trained_on_these  the embeddings come from a run that learnt these labels
    """
    wanted = set(checks)
    found: dict[str, CheckResult] = {}

    def take(make: Callable[[], CheckResult | tuple[CheckResult, ...]]) -> None:
        began = time.perf_counter()
        made = make()
        seconds = time.perf_counter() - began
        for result in made if isinstance(made, tuple) else (made,):
            own = result.seconds or seconds
            found[result.check] = _with_seconds(result, own)

    if wanted & QUALITY_CHECKS:
        take(lambda: check_quality(material))
    if "odd_stain" in wanted:
        take(lambda: check_stain(material))
    if wanted & {"exact_duplicate", "conflicting_label"}:
        take(lambda: check_exact_duplicates(material))
    nothing = np.empty(0, dtype=np.int64)
    unscored = np.empty(0, dtype=np.float32)
    pairs = DuplicatePairs(nothing, nothing, unscored, unscored, len(material.cells))
    if "near_duplicate" in wanted:
        began = time.perf_counter()
        near, pairs = check_near_duplicates(material, progress=progress)
        found["near_duplicate"] = _with_seconds(near, time.perf_counter() - began)
    if wanted & {"off_topic", "outlier"}:
        take(lambda: check_off_topic(material, progress=progress))
    if "label_error" in wanted:
        strange = _no_cells(material, found.get("off_topic"))
        take(lambda: check_label_errors(material, ignore=strange, trained_on_these=trained_on_these, progress=progress))
    if "leakage" in wanted:
        take(lambda: check_leakage(material, pairs.left, pairs.right, split=split))
    if "class_imbalance" in wanted:
        take(lambda: check_imbalance(material))
    if "shortcut" in wanted:
        take(lambda: check_shortcuts(material, progress=progress))
    return [found[code] for code in CHECKS if code in wanted and code in found]


def _no_cells(material: Material, off_topic: CheckResult | None) -> NDArray[np.bool_] | None:
    """Images that off_topic proposes to drop: what they show is no evidence about a class."""
    if off_topic is None or off_topic.not_applicable:
        return None
    dropped = {finding.id for finding in off_topic.findings if finding.suggestion == "drop"}
    return np.array([name in dropped for name in material.cells.ids], dtype=bool)


def _with_seconds(result: CheckResult, seconds: float) -> CheckResult:
    return replace(result, seconds=seconds)
