"""One self-contained HTML page of an audit: what was found, with pictures, and the place to decide about it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.audit_record import SHOWN, SIDE, SavedAudit, load_audit
from hemascope.cells import SPLIT_NAMES, UNLABELLED
from hemascope.findings import CHECKS, AuditReport, Check, CheckResult
from hemascope.report import audit_figures, figures
from hemascope.report.audit_galleries import MOST_CLASSES, Cluster, Galleries
from hemascope.report.audit_wording import Outcome, Table, audit_verdict, check_order, facts_of, outcome, text_of
from hemascope.report.embedding_map import MapCells, MapView, map_view
from hemascope.report.page import data_block, inline_script, markup, page, write_page

_SEVERITY = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class CheckView:
    """One check as the template shows it.

    clusters  the worst findings with pictures; ``more`` findings beyond them are in the ledger alone
    figure    of a check of the whole set, ``legend`` what its colours mean
    probes    of the shortcut check, one a row
    """

    check: Check
    result: CheckResult | None
    outcome: Outcome
    clusters: Sequence[Cluster] = ()
    more: int = 0
    distribution: Any = None
    figure: Any = None
    legend: Sequence[str] = ()
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    probes: Sequence[Any] = ()

    @property
    def made(self) -> bool:
        """Whether there is anything to show."""
        return self.outcome.kind in ("found", "passed")


def render_audit(folder: Path, output: Path | None = None) -> Path:
    """Write the page of the audit in ``folder`` to ``output`` (default ``folder/report.html``) and return its path.

    Made of the saved audit and the ledger beside it alone, whose decisions it shows. The page can save the ledger with
    what was decided on it. Raises RunError where the audit is missing or damaged, LedgerError where its ledger cannot
    be read, OutputError where the page cannot be written; an older page is then untouched.
    """
    saved = load_audit(folder)
    target = folder / "report.html" if output is None else output
    write_page(target, page("audit.html.j2", _view(saved, folder)))
    return target


def _view(saved: SavedAudit, folder: Path) -> dict[str, Any]:
    report = saved.report
    galleries = Galleries(saved, folder)
    checks = [_check(CHECKS[code], result, report, galleries) for code, result in check_order(report)]
    ledger = galleries.block()
    facts, tables = facts_of({key: value for key, value in report.facts.items() if key != "command"})
    names = list(report.class_names) if len(report.class_names) <= MOST_CLASSES else []
    return {
        "title": f"Audit of {Path(report.source).name or 'cells'}",
        "report": report,
        "verdict": audit_verdict(report),
        "checks": checks,
        "class_choices": names,
        "map": _map(saved),
        "ledger": ledger,
        "ledger_data": data_block(ledger.data),
        "shown": SHOWN,
        "by_class": markup(audit_figures.quartiles("by-class", report.statistics, "by_class")),
        "by_source": markup(audit_figures.quartiles("by-source", report.statistics, "by_source")),
        "statistics": _statistics(report),
        "facts": facts,
        "tables": tables,
        "command": str(report.facts.get("command") or ""),
        "folder": str(folder),
        "script": inline_script(["map.js", "audit.js"]),
    }


def _check(check: Check, result: CheckResult | None, report: AuditReport, galleries: Galleries) -> CheckView:
    came_out = outcome(result)
    if result is None or came_out.kind == "not-applicable":
        return CheckView(check, result, came_out)
    facts, tables = facts_of(result.summary)
    probes = [one for one in result.summary.get("probes") or [] if isinstance(one, dict)]
    figure, counts = None, {}
    if check.code == "class_imbalance":
        counts = _counts(report)
        figure = figures.composition(report.class_names, counts)
    elif check.code == "shortcut":
        figure = audit_figures.probes(probes)
    return CheckView(
        check=check,
        result=result,
        outcome=came_out,
        clusters=galleries.clusters(result),
        more=max(0, len(result.findings) - SHOWN),
        distribution=markup(audit_figures.distribution(result)),
        figure=markup(figure),
        legend=list(counts),
        facts=facts,
        tables=tables,
        probes=probes,
    )


def _counts(report: AuditReport) -> dict[str, list[int]]:
    """Images of each class, by part where there are parts."""
    classes = len(report.class_names)

    def counted(rows: NDArray[np.bool_]) -> list[int]:
        return [int(count) for count in np.bincount(report.labels[rows], minlength=classes)]

    labelled = report.labels != UNLABELLED
    if report.split is None:
        return {"images": counted(labelled)}
    return {name: counted(labelled & (report.split == name)) for name in SPLIT_NAMES if (report.split == name).any()}


def _statistics(report: AuditReport) -> list[tuple[str, list[Table]]]:
    """The statistics as tables: for classes, then sources, one table a measure."""
    found = []
    for key, title in (("by_class", "classes"), ("by_source", "sources")):
        tables = []
        for measure in report.statistics.values():
            groups = measure.get(key) if isinstance(measure, dict) else None
            if not isinstance(groups, dict) or not groups:
                continue
            rows = tuple(
                (name, *(text_of(one.get(part)) for part in ("n", "q1", "median", "q3")), str(one.get("flag") or ""))
                for name, one in groups.items()
                if isinstance(one, dict)
            )
            heads = ("", "Images", "Lower quartile", "Median", "Upper quartile", "Stands apart")
            tables.append(Table(str(measure.get("title", "")), heads, rows))
        if tables:
            found.append((title, tables))
    return found


def _map(saved: SavedAudit) -> MapView | None:
    report = saved.report
    if report.map is None or not len(report.map.rows):
        return None
    drawn = {report.ids[row] for row in report.map.rows.tolist()}
    row_of = {report.ids[row]: row for row in report.map.rows.tolist()}
    worst_first = sorted(report.results, key=lambda one: _SEVERITY[CHECKS[one.check].severity])
    found = {}
    for result in worst_first:
        rows = [row_of[one.id] for one in result.findings if one.id in drawn]
        if rows:
            found[CHECKS[result.check].title] = np.unique(np.array(rows, dtype=np.int64))
    scores = {CHECKS[one.check].title: one.scores for one in report.results if one.scores is not None}

    def picture(row: int) -> Image.Image | None:
        return _decoded(saved.pictures.get(row))

    cells = MapCells(report.ids, report.labels, report.class_names, picture, report.split, scores, found)
    return map_view([report.map], cells)


def _decoded(data: bytes | None) -> Image.Image | None:
    """A saved picture; None where it is missing, damaged or larger than any that was saved."""
    if data is None:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as opened:
            return opened.convert("RGB") if max(opened.size) <= SIDE else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises for bad files
        return None
