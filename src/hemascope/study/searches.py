"""From a file with a ``[search]`` to its record and table: what ``hemascope study search`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hemascope.atomic import write_text
from hemascope.errors import UsageError
from hemascope.evaluation.record import load_predictions, scorable
from hemascope.metrics import balanced_accuracy, confusion_matrix
from hemascope.progress import SILENT, Progress
from hemascope.report.search_text import search_csv, search_markdown
from hemascope.search_results import Engine, SearchResult
from hemascope.study.cells import study_cells
from hemascope.study.places import study_folder
from hemascope.study.plan import Trial, read_study
from hemascope.study.runner import Work, execute
from hemascope.study.search import search
from hemascope.study.studies import check_names, engine_of, record_plan


@dataclass(frozen=True)
class Searched:
    """The folder with ``search.json``, ``search.csv`` and ``search.md``, and what they hold."""

    folder: Path
    result: SearchResult


def run_search(
    file: str | Path,
    *,
    output: str | Path,
    data: str | Path | None = None,
    engine: Engine = "halving",
    jobs: int | None = None,
    cluster: str | None = None,
    format: str | None = None,
    class_names: tuple[str, ...] | None = None,
    command: str = "",
    progress: Progress = SILENT,
) -> Searched:
    """Search as the file says; arguments as for ``run_studies``.

    Runs share the folder of all studies, and what is finished there is kept: a search that was stopped goes on.
    Raises as ``run_studies`` does, and UsageError where every run failed.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs must be at least 1, found {jobs}.")
    plan, target = read_study(file), Path(output)
    check_names([plan])
    source = data or plan.data
    if source is None:
        raise UsageError(f"{file} names no cells: give them with --data.")
    cells = study_cells(
        source, plan.base_config(), plan.cells, target, format=format, class_names=class_names, progress=progress
    )
    folder = study_folder(target, plan.name)
    record_plan(plan, folder, "search.toml")
    made = engine_of(jobs, cluster)
    reasons: dict[str, str] = {}

    def carry_out(trials: Sequence[Trial]) -> Mapping[str, Path]:
        work = [Work(trial, cells, ("validation",)) for trial in trials]
        done = execute(work, target, engine=made, command=command, progress=progress)
        reasons.update(done.failed)
        return done.runs

    result = search(
        plan,
        execute=carry_out,
        score=validation_score,
        cells_fingerprint=cells.fingerprint,
        cells=cells.counts,
        output=folder / "search.json",
        engine=engine,
        jobs=jobs or 1,
        command=command,
        progress=progress,
    )
    write_text(folder / "search.csv", search_csv(result))
    write_text(folder / "search.md", search_markdown(result))
    if result.best is None:
        problems = [*reasons.values(), *(one.problem for one in result.trials if one.problem)]
        raise UsageError(f"every run of the search failed; the last: {problems[-1]}")
    return Searched(folder, result)


def validation_score(run: Path) -> float:
    """Balanced accuracy of a finished run's validation cells."""
    found = load_predictions(run / "predictions" / "validation.parquet")
    keep = scorable(found)
    assert found.labels is not None  # scorable() has checked
    confusion = confusion_matrix(found.labels[keep], found.predicted[keep], len(found.class_names))
    return float(np.asarray(balanced_accuracy(confusion)))
