"""The pages of studies, made of their records alone: HTML with forest plots, and an overview of all."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hemascope.report.page import markup, page, write_page
from hemascope.report.study_figures import base_label, forest
from hemascope.report.study_text import difference_words, difference_worth_showing, said_of_intervals
from hemascope.study_results import StudyResult

MAX_PICTURE_BYTES = 5_000_000


def render_study(result: StudyResult, folder: Path, *, pictures: Sequence[tuple[Path, str]] = ()) -> Path:
    """Write ``report.html`` into ``folder`` and return its path.

    pictures  PNG files of our own making with their captions, shown after the plots

    Raises OutputError where the page cannot be written.
    """
    path = folder / "report.html"
    write_page(path, page("study.html.j2", _view(result, pictures)))
    return path


def render_studies(results: Sequence[StudyResult], folder: Path) -> Path:
    """Write ``index.html`` into ``folder``: every claim with what was found, and links to the studies' pages."""
    path = folder / "index.html"
    write_page(
        path,
        page("studies.html.j2", {"title": "Studies", "results": results, "difference_words": difference_words}),
    )
    return path


def _view(result: StudyResult, pictures: Sequence[tuple[Path, str]]) -> Mapping[str, object]:
    shown = [metric for metric in result.metrics if difference_worth_showing(metric)]
    return {
        "title": result.title,
        "result": result,
        "base": base_label(result),
        "plots": [(metric, markup(forest(result, metric))) for metric in shown],
        "difference_words": difference_words,
        "intervals": said_of_intervals(result),
        "pictures": [(_address(path), caption) for path, caption in pictures if path.is_file()],
    }


def _address(path: Path) -> Any:
    """A picture that this program has drawn, as a ``data:`` address; None where it is larger than any it draws."""
    if path.stat().st_size > MAX_PICTURE_BYTES:
        return None
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
