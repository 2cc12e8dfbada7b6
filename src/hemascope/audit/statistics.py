"""Stain, sharpness and scale of the originals, per class and per source, and which of them stand apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemascope.audit.material import Material
from hemascope.cells import UNLABELLED
from hemascope.data.sources.source import SPLIT_ALIASES

FEWEST = 10
"""Images a class or source needs before its median is compared."""

MOST_SOURCES = 100
"""Sources listed: the largest, and all that stand apart. More would be no table for people."""

_WITHIN = 1.5  # robust deviations inside the groups by which a median must differ from the others' median
_BETWEEN = 3.0  # robust deviations of the others' medians by which it must differ as well

Numbers = NDArray[np.float64]
Group = dict[str, Any]


def describe_statistics(material: Material) -> dict[str, Any]:
    """What ``AuditReport.statistics`` holds, plain JSON: for each measure ``title``, ``by_class`` and ``by_source``.

    Measures: stain_h and stain_e (mean optical densities), sharpness, foreground (share of the image) and side (root of
    the number of pixels). ``by_class`` and ``by_source`` map a name to ``n``, ``q1``, ``median``, ``q3`` and ``flag``:
    "high" or "low" where the median is far from that of the others, "" elsewhere. Sources are the cells' groups
    (patients, slides) where there are any, else the folders beside those of class and split, else what the files say of
    themselves (format, mode, JPEG quantisation, software): the first of these that takes two values. Of more than 100
    the largest and the flagged are listed. A median is far where it differs from the median of the others' medians by
    more than 1.5 robust deviations within groups and, of three groups or more, by more than 3 robust deviations between
    the others' medians. Groups of fewer than 10 images are neither flagged nor compared with.
    """
    measures, cells = material.measures, material.cells
    values = {
        "stain_h": ("Haematoxylin-like stain (mean optical density)", measures.stain[:, 0]),
        "stain_e": ("Eosin-like stain (mean optical density)", measures.stain[:, 1]),
        "sharpness": ("Sharpness", measures.sharpness),
        "foreground": ("Foreground (share of the image)", measures.foreground),
        "side": ("Side (root of the pixels)", np.sqrt(measures.size.astype(np.float64).prod(axis=1))),
    }
    classes = np.where(cells.labels == UNLABELLED, len(cells.class_names), cells.labels)
    sources, source_names = _sources(material)
    return {
        name: {
            "title": title,
            "by_class": _described(found.astype(np.float64), classes, [*cells.class_names, ""]),
            "by_source": _largest(_described(found.astype(np.float64), sources, source_names)),
        }
        for name, (title, found) in values.items()
    }


def _sources(material: Material) -> tuple[NDArray[np.int64], Sequence[str]]:
    """The source of each image, as int64 (N,), and the sources' names; "" for an image of no group."""
    cells, measures = material.cells, material.measures
    if cells.groups is not None and (cells.groups != "").any():
        return _numbered(cells.groups.tolist())
    # A folder named as a class or a part says what an image is for, not where it comes from.
    others = {name.lower() for name in (*cells.class_names, *SPLIT_ALIASES)}
    folders = ["/".join(one for one in name.split("/")[:-1] if one.lower() not in others) for name in cells.ids]
    if len(set(folders)) > 1:
        return _numbered([folder or "(no folder)" for folder in folders])
    said = zip(measures.format, measures.mode, measures.metadata, strict=True)
    return _numbered([f"{kind} {mode}{'; ' if more else ''}{more}" for kind, mode, more in said])


def _numbered(values: Sequence[str]) -> tuple[NDArray[np.int64], Sequence[str]]:
    names = {name: number for number, name in enumerate(sorted(set(values)))}
    return np.fromiter((names[value] for value in values), dtype=np.int64, count=len(values)), list(names)


def _described(values: Numbers, group: NDArray[np.int64], names: Sequence[str]) -> dict[str, Group]:
    """Quartiles of each group that has images and a name, with its flag."""
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(len(names) + 1))
    present = [k for k, name in enumerate(names) if name and bounds[k] < bounds[k + 1]]
    if not present:
        return {}
    quartiles = np.array([np.percentile(values[order[bounds[k] : bounds[k + 1]]], [25, 50, 75]) for k in present])
    size = np.diff(bounds)[present]
    flags = _flags(quartiles, size)
    return {
        names[k]: {"n": int(n), "q1": _short(q[0]), "median": _short(q[1]), "q3": _short(q[2]), "flag": flag}
        for k, n, q, flag in zip(present, size.tolist(), quartiles.tolist(), flags, strict=True)
    }


def _flags(quartiles: Numbers, size: NDArray[np.int64]) -> list[str]:
    """One of "high", "low" and "" for each of G groups, of their quartiles (G, 3)."""
    flags = [""] * len(size)
    enough = np.flatnonzero(size >= FEWEST)
    within = float(np.median(quartiles[enough, 2] - quartiles[enough, 0])) / 1.349 if len(enough) > 1 else 0.0
    for row in enough.tolist() if len(enough) > 1 else []:
        others = quartiles[enough[enough != row], 1]
        middle = float(np.median(others))
        between = 1.4826 * float(np.median(np.abs(others - middle)))
        apart = float(quartiles[row, 1]) - middle
        if abs(apart) > max(_WITHIN * within, _BETWEEN * between, 1e-6 * abs(middle)):
            flags[row] = "high" if apart > 0 else "low"
    return flags


def _largest(groups: dict[str, Group]) -> dict[str, Group]:
    if len(groups) <= MOST_SOURCES:
        return groups
    ranked = sorted(groups, key=lambda name: -int(groups[name]["n"]))
    kept = {*ranked[:MOST_SOURCES], *[name for name in ranked if groups[name]["flag"]][:MOST_SOURCES]}
    return {name: group for name, group in groups.items() if name in kept}


def _short(value: float) -> float:
    return float(f"{value:.5g}")
