"""Maps of embeddings side by side as one still picture, for pages and documents that cannot be hovered over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.atomic import atomic_path
from hemascope.findings import MapPoints


def save_map_picture(
    path: Path, maps: Sequence[MapPoints], labels: NDArray[np.int64], class_names: Sequence[str]
) -> None:
    """Write a PNG with one panel a map. ``labels`` (n,) are of the cells the maps' ``rows`` point into."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    colours = mpl.colormaps["tab10" if len(class_names) <= 10 else "tab20"]
    figure = Figure(figsize=(5.4 * len(maps), 5.4), layout="constrained")
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    for panel, one in zip(panels, maps, strict=True):
        own = labels[one.rows]
        for number, name in enumerate(class_names):
            at = one.position[own == number]
            panel.scatter(at[:, 0], at[:, 1], s=7, linewidths=0, color=colours(number % colours.N), label=name)
        panel.set_title(f"{one.title}\nsilhouette {one.silhouette:.3f}, neighbours {one.knn_accuracy:.3f}", fontsize=11)
        panel.set_xticks([])
        panel.set_yticks([])
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)), markerscale=3, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
