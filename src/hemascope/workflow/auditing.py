"""Auditing a set of cells: every check, the ledger, the page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.atomic import atomic_folder
from hemascope.audit.conduct import EMBEDDED_CHECKS, conduct
from hemascope.audit.material import Material, Measures
from hemascope.audit.measure import measure, measure_prepared
from hemascope.audit.statistics import describe_statistics
from hemascope.audit_record import rows_shown, save_audit
from hemascope.cells import CellDataset
from hemascope.config import Preparation, RunConfig
from hemascope.content import known_content
from hemascope.data.splits import load_splits
from hemascope.data.store import read_store_header
from hemascope.embeddings import FINAL, Embedder, Embeddings, Level, embed
from hemascope.errors import OutputError, StoreError, UsageError
from hemascope.findings import CHECKS, AuditReport, MapPoints
from hemascope.ledger import from_findings, merge, previous_ledger, write_ledger
from hemascope.manifest import git_commit, now, versions
from hemascope.names import suggestion
from hemascope.progress import SILENT, Progress
from hemascope.report import render_audit
from hemascope.workflow.cells import Data, cells_of
from hemascope.workflow.mapping import POINTS, map_of

VIEWS = 4


@dataclass(frozen=True)
class Audited:
    """An audit on disk: its folder, its page, its ledger (CSV)."""

    folder: Path
    report: AuditReport
    page: Path
    ledger: Path


def audit(
    data: Data,
    config: RunConfig | None = None,
    *,
    output: str | Path,
    run: str | Path | None = None,
    splits: str | Path | None = None,
    ledger: str | Path | None = None,
    checks: Sequence[str] | None = None,
    map_points: int = POINTS,
    views: int = VIEWS,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    command: str = "",
    progress: Progress = SILENT,
) -> Audited:
    """Look for what does not belong among the cells of ``data``. Nothing of them is changed.

    config      its preparation, backbone, label pattern, device and seed are used
    output      the audit's folder; an audit already there is replaced, its decisions are kept
    run         embed with this run's network, on its preparation, instead of ``config.model``
    splits      a split file: leaks between its parts are looked for
    ledger      an earlier ledger whose decisions stand
    checks      codes of findings.CHECKS; None for all
    map_points  the largest number of cells on the map, 0 for no map

    Raises UsageError for unknown checks, DataError, BundleError, LedgerError, OutputError.
    """
    began = time.time()
    wanted = _wanted(checks)
    if map_points and map_points < 10:
        raise UsageError(f"a map needs at least 10 points, or 0 for none; found {map_points}")
    folder = Path(output)
    _check_folder(folder)
    earlier = previous_ledger(
        None if isinstance(data, CellDataset) else Path(data), folder, None if ledger is None else Path(ledger)
    )
    network = None if run is None else Path(run)
    config = _prepared_as(data, config or RunConfig(), network)
    # Nothing is too bad for an audit: unreadable images are its first findings.
    config = config.model_copy(update={"data": config.data.model_copy(update={"max_unreadable": 1.0})})
    cells = cells_of(data, config, format=format, class_names=class_names, progress=progress)
    split = None if splits is None else load_splits(Path(splits), cells).assignment
    embedder = Embedder(
        run=network,
        model=config.model,
        size=config.data.preparation.size,
        views=views,
        device=config.runtime.device,
    )
    needed = bool(wanted & EMBEDDED_CHECKS) or map_points > 0
    material = Material(
        cells,
        _measures(data, cells, config, format, class_names, progress),
        embed(cells, embedder, progress=progress) if needed else _nothing(len(cells)),
        embedder if needed else None,
        config.seed,
    )
    known = None if network is None else known_content(network, cells)
    results = conduct(
        material,
        checks=wanted,
        split=split,
        trained_on_these=known is not None and bool(known.any()),
        progress=progress,
    )
    report = AuditReport(
        results=results,
        ids=cells.ids,
        content_hash=cells.content_hash,
        labels=cells.labels,
        class_names=cells.class_names,
        fingerprint=cells.fingerprint(),
        source=cells.source,
        embedding=material.embeddings.description,
        split=cells.split if split is None else split,
        statistics=describe_statistics(material),
        facts={
            "created": now(),
            "command": command,
            "seed": config.seed,
            "preparation": cells.preparation or config.data.preparation.describe(),
            "versions": versions(),
            "git_commit": git_commit(),
            "cleaning": cells.cleaning,
        },
    )
    report = _with_map(report, material, map_points, time.time() - began, progress)
    record = from_findings(report)
    if earlier is not None:
        record = merge(record, earlier)
    with atomic_folder(folder) as temporary:
        save_audit(temporary, report, {int(row): cells.images[row] for row in rows_shown(report)})
        written = write_ledger(temporary, record).name
        page = render_audit(temporary).name
    return Audited(folder, report, folder / page, folder / written)


def _wanted(checks: Sequence[str] | None) -> set[str]:
    unknown = next((name for name in checks or () if name not in CHECKS), None)
    if unknown is not None:
        raise UsageError(f"there is no check '{unknown}'; {suggestion(unknown, list(CHECKS))}")
    if checks is not None and not checks:
        raise UsageError("no check was named; leave --checks out to make all of them")
    return set(CHECKS if checks is None else checks)


def _check_folder(folder: Path) -> None:
    """Only an audit is ever replaced by an audit."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"cannot write the audit to {folder}: it is a file. Choose another place with -o")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "audit.json").exists():
        raise OutputError(f"{folder} is not empty and holds no audit. Choose another folder with -o")


def _prepared_as(data: Data, config: RunConfig, run: Path | None) -> RunConfig:
    """The preparation of the run, of the packed store, of the cells at hand, or else the config's."""
    preparation: Preparation | None = None
    if run is not None:
        from hemascope.models.bundle import load_bundle

        preparation = load_bundle(run).preparation
    elif not isinstance(data, CellDataset) and (Path(data) / "store.json").is_file():
        try:
            preparation = read_store_header(Path(data)).preparation
        except StoreError:
            preparation = None  # loading says what is wrong with it
    if preparation is None:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"preparation": preparation})})


def _measures(
    data: Data,
    cells: CellDataset,
    config: RunConfig,
    format: str | None,
    class_names: Sequence[str] | None,
    progress: Progress,
) -> Measures:
    if isinstance(data, CellDataset):
        return measure_prepared(cells, progress=progress)
    return measure(
        data,
        cells,
        format=format,
        class_names=class_names,
        label_pattern=config.data.label_pattern,
        progress=progress,
    )


def _nothing(count: int) -> Embeddings:
    return Embeddings(np.zeros((count, 1), np.float16), [Level(FINAL, 0, 1)], "none: no check that was made needs them")


def _with_map(report: AuditReport, material: Material, points: int, seconds: float, progress: Progress) -> AuditReport:
    drawn: MapPoints | None = None
    if points and len(report) >= 10:
        from hemascope.projection import choose_rows

        rows = choose_rows(report.labels, points, seed=material.seed, must=_found_rows(report))
        vectors = material.embeddings.level(FINAL)[rows]
        drawn = map_of(material.cells, vectors, rows, material.embeddings.description, material.seed, progress)
    return replace(report, map=drawn, facts={**report.facts, "seconds": round(seconds, 1)})


def _found_rows(report: AuditReport) -> NDArray[np.int64]:
    """Rows of images proposed for dropping or another label: what a person looks for on the map."""
    found = {finding.id for finding in report.findings if finding.suggestion != "review"}
    return np.flatnonzero(np.array([name in found for name in report.ids], dtype=bool))
