"""Images that cannot be read, are stored unlike the others, or show too little: nine checks of the originals."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hemascope.audit.material import Material, Measures
from hemascope.cells import UNLABELLED
from hemascope.findings import CheckResult, Finding, Suggestion

Floats = NDArray[np.float64]

COMMON = 0.2
"""A mode, size or aspect ratio that so large a share of the images has is one of the set's own, never odd."""

LEAST_RATIO = {"odd_size": 0.6, "odd_aspect": 0.75}
"""Sides, or aspect ratios, within this ratio of a usual one are never odd."""

MIDDLE = 0.5
"""The cut of the checks that have an absolute limit and one relative to the set: the score at the later of the two."""

BLANK = 1.5
"""Standard deviation of the luminance, in levels, up to which an image shows nothing."""

_GREY = 0.5  # levels by which the channels' means may differ in an image without colour
_SPREADS = 4.0  # robust deviations within which a set's own variety of sizes lies


@dataclass(frozen=True)
class Limit:
    """A line below which a measure is bad: in itself, and compared with the set. Both must be crossed.

    value   the measure there
    spread  robust deviations below the set's median
    floor   the least such deviation: sets made alike must not call a small difference a large one
    log     deviations are of the measure's logarithm
    """

    value: float
    spread: float
    floor: float
    log: bool = False

    def scores(self, measure: Floats) -> Floats:
        """0 to 1, MIDDLE where the later of the two lines is crossed."""
        absolute = measure / (2 * self.value)
        compared = np.log(np.maximum(measure, 1e-6)) if self.log else measure
        median = np.median(compared)
        deviation = max(1.4826 * float(np.median(np.abs(compared - median))), self.floor)
        relative = 1 + (compared - median) / (2 * self.spread * deviation)
        return np.asarray(np.clip(np.maximum(absolute, relative), 0, 1))


# Chosen on spoilt copies of one half of the PBC cells; docs/checks.md says what the other half gave.
DARK = Limit(140, 6, 4)
WASHED_OUT = Limit(75, 6, 4)
SATURATED = Limit(2, 4, 3)
BLURRED = Limit(0.012, 4, 0.1, log=True)
FLAT = Limit(13, 4, 2)
FEW_LEVELS = Limit(0.8, 4, 0.3)


def check_quality(material: Material) -> tuple[CheckResult, ...]:
    """unreadable, odd_mode, odd_size, odd_aspect, blank, dark, bright, blurred and low_information, in this order.

    All work on ``material.measures``; docs/checks.md says how each score is made. A set without a readable image has
    all but ``unreadable`` not applicable.
    """
    checks = (_odd_mode, _odd_size, _odd_aspect, _blank, _dark, _bright, _blurred, _low_information)
    results = [_timed(_unreadable, material)]
    for check in checks:
        if len(material.cells):
            results.append(_timed(check, material))
        else:
            results.append(CheckResult(check.__name__[1:], not_applicable="no image could be read"))
    return tuple(results)


def _timed(check: Callable[[Material], CheckResult], material: Material) -> CheckResult:
    began = time.perf_counter()
    result = check(material)
    return replace(result, seconds=time.perf_counter() - began)


def _unreadable(material: Material) -> CheckResult:
    bad = material.cells.unreadable
    findings = [
        Finding("unreadable", item.id, "", 0.0, "drop", f"It cannot be read: {item.reason.rstrip('.')}.")
        for item in bad
    ]
    return CheckResult(
        "unreadable",
        scores=np.ones(len(material.cells), dtype=np.float32),
        cut=0.0,
        cut_rule="0 for a file that cannot be decoded, 1 for all others; nothing to choose",
        findings=findings,
        summary={"unreadable": len(bad), "readable": len(material.cells)},
    )


def _odd_mode(material: Material) -> CheckResult:
    measures = material.measures
    flat = measures.contrast <= BLANK  # black and white have no colour whatever the mode
    grey = _without_colour(measures) & ~flat
    kinds = [
        f"{mode} without colour" if colourless and mode not in ("L", "I;16") else mode
        for mode, colourless in zip(measures.mode, grey.tolist(), strict=True)
    ]
    count = Counter(kinds)
    scores = np.array([count[kind] / len(kinds) for kind in kinds])
    usual = count.most_common(1)[0][0]
    scores[np.array([kind == usual for kind in kinds])] = 1.0
    return _result(
        material,
        "odd_mode",
        scores,
        np.nextafter(np.float32(COMMON), np.float32(0)),
        f"the share of the images stored in the same mode, 1 for the most frequent one; odd below {COMMON}",
        lambda row: f"It is stored as {kinds[row]}, {count[kinds[row]]:,} of {len(kinds):,} are; most are {usual}.",
        summary={"modes": dict(count.most_common(20))},
    )


def _without_colour(measures: Measures) -> NDArray[np.bool_]:
    means = np.concatenate([measures.colour, measures.border], axis=1).reshape(-1, 3, 3)
    return np.asarray((np.ptp(means, axis=2) < _GREY).all(axis=1))


def _odd_size(material: Material) -> CheckResult:
    size = material.measures.size
    side = np.sqrt(size[:, 0].astype(np.float64) * size[:, 1])
    scores, cut, usual = _ratios(side, LEAST_RATIO["odd_size"])
    return _result(
        material,
        "odd_size",
        scores,
        cut,
        _ratio_rule("side (root of the pixels)", LEAST_RATIO["odd_size"], cut),
        lambda row: f"It is {size[row, 1]} x {size[row, 0]} pixels; a usual side is {usual[row]:.0f}.",
        summary={"median_side": float(np.median(side))},
    )


def _odd_aspect(material: Material) -> CheckResult:
    size = material.measures.size
    aspect = size[:, 1] / size[:, 0]
    scores, cut, usual = _ratios(aspect, LEAST_RATIO["odd_aspect"])
    return _result(
        material,
        "odd_aspect",
        scores,
        cut,
        _ratio_rule("aspect ratio", LEAST_RATIO["odd_aspect"], cut),
        lambda row: (
            f"It is {size[row, 1]} x {size[row, 0]} pixels, an aspect ratio of {aspect[row]:.2f}; "
            f"usual is {usual[row]:.2f}."
        ),
        summary={"median_aspect": float(np.median(aspect))},
    )


def _ratios(values: Floats, least: float) -> tuple[Floats, float, Floats]:
    """Ratio (0 to 1) of each value to the usual one nearest to it, the cut, and that usual value."""
    found, count = np.unique(np.round(values, 3), return_counts=True)
    usual = np.unique(np.append(found[count >= COMMON * len(values)], np.median(values)))
    apart = np.abs(np.log(values)[:, None] - np.log(usual)[None, :])
    nearest = apart.argmin(axis=1)
    distance = apart[np.arange(len(values)), nearest]
    own = np.exp(-_SPREADS * 1.4826 * float(np.median(distance)))
    return np.exp(-distance), min(least, float(own)), usual[nearest]


def _ratio_rule(what: str, least: float, cut: float) -> str:
    return (
        f"the ratio of its {what} to the nearest usual one (the median, and any that {COMMON:.0%} of the images have); "
        f"odd at or below {cut:.3g}, which is the lower of {least} and {_SPREADS:.0f} robust deviations of the set"
    )


def _blank(material: Material) -> CheckResult:
    contrast = material.measures.contrast.astype(np.float64)
    return _result(
        material,
        "blank",
        np.clip(contrast / (2 * BLANK), 0, 1),
        MIDDLE,
        f"the standard deviation of the luminance over {2 * BLANK:g} levels, at most 1; blank up to {BLANK} levels",
        lambda row: f"Its luminance varies by {contrast[row]:.2f} levels of 256 only: it shows nothing.",
        "drop",
    )


def _dark(material: Material) -> CheckResult:
    brightest = material.measures.brightest.astype(np.float64)
    usual = float(np.median(brightest))
    return _result(
        material,
        "dark",
        DARK.scores(brightest),
        MIDDLE,
        _limit_rule("level that 99 % of its pixels are below", DARK, "levels"),
        lambda row: f"Its bright parts have the level {brightest[row]:.0f} of 255; the usual image has {usual:.0f}.",
    )


def _bright(material: Material) -> CheckResult:
    measures = material.measures
    dark_parts = 255 - measures.darkest.astype(np.float64)
    headroom = 255 - measures.brightest.astype(np.float64)
    usual = float(np.median(measures.darkest)), float(np.median(measures.brightest))
    scores = np.minimum(WASHED_OUT.scores(dark_parts), SATURATED.scores(headroom))
    return _result(
        material,
        "bright",
        scores,
        MIDDLE,
        "the lower of two: "
        + _limit_rule("distance from white of the level that 1 % of its pixels are below", WASHED_OUT, "levels")
        + "; and "
        + _limit_rule("distance from white of the level that 99 % are below", SATURATED, "levels"),
        lambda row: (
            f"Its dark and bright parts have the levels {measures.darkest[row]:.0f} and {measures.brightest[row]:.0f} "
            f"of 255; the usual image has {usual[0]:.0f} and {usual[1]:.0f}."
        ),
    )


def _blurred(material: Material) -> CheckResult:
    measures = material.measures
    sharpness = measures.sharpness.astype(np.float64)
    shown = measures.contrast > BLANK
    scores = np.full(len(sharpness), np.nan)
    if shown.any():
        scores[shown] = BLURRED.scores(sharpness[shown])
    usual = float(np.median(sharpness[shown])) if shown.any() else 0.0
    return _result(
        material,
        "blurred",
        scores,
        MIDDLE,
        _limit_rule("sharpness (variance of the Laplacian over that of the luminance, at 96 pixels)", BLURRED, "")
        + "; blank images have none",
        lambda row: f"Its sharpness is {sharpness[row]:.4f}; the usual image has {usual:.3f}.",
    )


def _low_information(material: Material) -> CheckResult:
    measures = material.measures
    contrast, entropy = measures.contrast.astype(np.float64), measures.entropy.astype(np.float64)
    usual = float(np.median(contrast)), float(np.median(entropy))
    return _result(
        material,
        "low_information",
        np.minimum(FLAT.scores(contrast), FEW_LEVELS.scores(entropy)),
        MIDDLE,
        "the lower of two: "
        + _limit_rule("standard deviation of the luminance", FLAT, "levels")
        + "; and "
        + _limit_rule("entropy of the luminance in 64 levels", FEW_LEVELS, "bits"),
        lambda row: (
            f"Its luminance has a deviation of {contrast[row]:.1f} levels and {entropy[row]:.2f} bits; the usual image "
            f"has {usual[0]:.1f} and {usual[1]:.2f}."
        ),
    )


def _limit_rule(what: str, limit: Limit, unit: str) -> str:
    return (
        f"{MIDDLE} where its {what} falls both to {limit.value:g}{' ' + unit if unit else ''} and to {limit.spread:g} "
        f"robust deviations{' of the logarithm' if limit.log else ''} below the set's median"
    )


def _result(
    material: Material,
    check: str,
    scores: Floats,
    cut: float,
    rule: str,
    why: Callable[[int], str],
    suggestion: Suggestion = "review",
    summary: dict[str, object] | None = None,
) -> CheckResult:
    """Findings are the rows whose score, as float32, is at or below the cut; worst first, then by row."""
    kept = scores.astype(np.float32)
    line = float(np.float32(cut))
    rows = np.flatnonzero(kept <= line)
    rows = rows[np.argsort(kept[rows], kind="stable")]
    return CheckResult(
        check,
        scores=kept,
        cut=line,
        cut_rule=rule,
        findings=_findings(material, check, kept, rows.tolist(), why, suggestion),
        summary=summary or {},
    )


def _findings(
    material: Material,
    check: str,
    scores: NDArray[np.float32],
    rows: Sequence[int],
    why: Callable[[int], str],
    suggestion: Suggestion,
) -> list[Finding]:
    cells = material.cells
    labels = cells.labels.tolist()
    return [
        Finding(
            check,
            cells.ids[row],
            cells.content_hash[row],
            float(scores[row]),
            suggestion,
            why(row),
            label="" if labels[row] == UNLABELLED else cells.class_names[labels[row]],
        )
        for row in rows
    ]
