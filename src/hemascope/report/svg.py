"""matplotlib figures as inline SVG whose colours are the page's CSS variables.

A figure is drawn in sentinel colours that nobody would choose. Afterwards they are replaced by ``var(--ink)`` and
so on, so one drawing follows light and dark. The rewriting is done on the parsed tree, never on text: a class name
that looks like a colour or a tag stays what it is.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
import xml.etree.ElementTree as ET  # only ever parses what matplotlib just wrote
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER, MISTAKE = "#010203", "#010204", "#010205", "#010206", "#010207"
SERIES = ("#010301", "#010302", "#010303", "#010304", "#010305")
"""Colours for splits and curves, named --series-1 to --series-5 on the page."""

_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    MISTAKE: "var(--mistake)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)},
}
_SENTINEL = re.compile("|".join(_VARIABLES))
_FAMILY = re.compile(r"font-family: [^;]*;? ?")
_SHORTHAND = re.compile(r"font: (?:(\d+|bold) )?(\d+(?:\.\d+)?px) [^;]*")
"""matplotlib writes text's font in the one way or the other, by version."""

_REFERENCE = re.compile(r"^#([\w.-]+)$|url\(#([\w.-]+)\)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_DRAWING = threading.Lock()
"""matplotlib's settings are one for the whole process."""

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # real text: searchable, read aloud, in the page's font
    "text.parse_math": False,  # a dollar sign in a class name is a dollar sign
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def plain(text: str, limit: int = 40) -> str:
    """``text`` on one line, without characters no SVG may hold, shortened in the middle to ``limit``."""
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split()))
    half = (limit - 1) // 2
    return text if len(text) <= limit else f"{text[:half]}…{text[-half:]}"


def draw(name: str, title: str, width: float, height: float, paint: Callable[[Figure], None]) -> str:
    """An ``<svg>`` of ``width`` × ``height`` CSS pixels, painted by ``paint`` on an empty figure.

    ``name`` prefixes every id, so figures of one page do not collide. ``title`` is what a screen reader says.
    The same input gives the same text: no date, and ids made from ``name``.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with _DRAWING, mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # a user's own matplotlibrc must not change the report
        mpl.rcParams.update({**_SETTINGS, "svg.hashsalt": f"hemascope-{name}"})
        warnings.simplefilter("ignore", UserWarning)  # glyphs its font lacks: the browser has them
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _rewrite(buffer.getvalue(), name, title, width, height)


def _rewrite(svg: bytes, name: str, title: str, width: float, height: float) -> str:
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in {"metadata", "style"}:  # its style rule would reach the whole page
                parent.remove(child)
    values = [value for element in root.iter() for value in element.attrib.values()]
    used = {reference for value in values for match in _REFERENCE.finditer(value) for reference in match.groups()}
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = dict(_attribute(name, key.rpartition("}")[2], value) for key, value in element.attrib.items())
        if element.get("id") not in used:
            attributes.pop("id", None)
        element.attrib.clear()
        element.attrib.update(attributes)
        if element.tag != "text" and element.text and not element.text.strip():
            element.text = None
        if element.tail and not element.tail.strip():
            element.tail = None
    root.attrib.clear()
    root.attrib.update(
        {
            "viewBox": f"0 0 {width:g} {height:g}",
            "role": "img",
            "aria-labelledby": f"{name}-title",
            "style": f"aspect-ratio: {width:g} / {height:g}",
        }
    )
    label = ET.Element("title", {"id": f"{name}-title"})
    label.text = title
    root.insert(0, label)
    return ET.tostring(root, encoding="unicode", short_empty_elements=False)


def _attribute(name: str, key: str, value: str) -> tuple[str, str]:
    """One attribute with ids prefixed, sentinels replaced, and the font left to the page."""
    if key == "id":
        return key, f"{name}-{value}"
    if key == "href":
        return key, f"#{name}-{value[1:]}"
    value = value.replace("url(#", f"url(#{name}-")
    value = _SENTINEL.sub(lambda match: _VARIABLES[match[0]], value)
    value = _SHORTHAND.sub(lambda match: f"font-weight: {match[1] or 'normal'}; font-size: {match[2]}", value)
    return key, _FAMILY.sub("", value)
