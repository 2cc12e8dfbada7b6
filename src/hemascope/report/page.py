"""One page from a template: self-contained, with no outside request, and no script but the page's own."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemascope.atomic import write_text
from hemascope.report.wording import NOT_RECORDED, change, count, duration, interval, number, percent, points


@dataclass(frozen=True)
class Script:
    """The one script a page may run: its text, and what the Content-Security-Policy calls it."""

    text: Any
    hash: str


def page(template: str, view: Mapping[str, Any]) -> str:
    """The template filled in; every value is escaped unless it is marked as markup.

    A ``script`` in the view (see ``inline_script``) is put at the end and is the only one the page's policy lets run.
    """
    environment = _environment()
    environment.filters.update(
        percent=percent, number=number, interval=interval, points=points, change=change, count=count, duration=duration
    )
    environment.globals.update(NOT_RECORDED=NOT_RECORDED)
    return str(environment.get_template(template).render({"script": None, **view}))


def write_page(path: Path, html: str) -> None:
    """Write ``html`` as UTF-8, atomically. Raises OutputError."""
    # A file name that is no valid Unicode holds lone surrogates, which UTF-8 cannot say.
    write_text(path, html.encode("utf-8", "replace").decode("utf-8"))


def markup(svg: str | None) -> Any:
    """An SVG whose text is escaped already, as safe for the page."""
    from markupsafe import Markup

    return None if svg is None else Markup(svg)


def inline_script(names: Sequence[str]) -> Script:
    """The scripts of these templates as one, with the hash of exactly that text."""
    environment = _environment()
    assert environment.loader is not None
    parts = [environment.loader.get_source(environment, name)[0] for name in names]
    # A browser hashes the text after making line ends one, so ours must be so already.
    text = "\n" + "\n".join(parts).replace("\r\n", "\n").strip() + "\n"
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return Script(markup(text), f"sha256-{digest}")


def data_block(value: Any) -> Any:
    """``value`` as JSON for a ``<script type="application/json">``: no text in it can end the block or begin another.

    Raises ValueError for NaN, which is no JSON.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("hemascope.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
