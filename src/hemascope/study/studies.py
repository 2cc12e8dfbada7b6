"""From study files to tables: what ``hemascope study run`` and ``study report`` do."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w

from hemascope.atomic import write_json, write_text
from hemascope.errors import ConfigError, RunError, UsageError
from hemascope.progress import SILENT, Progress
from hemascope.report.render_study import render_studies, render_study
from hemascope.report.study_text import studies_markdown, study_csv
from hemascope.study.cells import StudyCells, study_cells
from hemascope.study.maps import draw_maps, map_pictures
from hemascope.study.places import study_folder
from hemascope.study.plan import (
    StudyPlan,
    metric_titles,
    read_study,
    study_config,
    variant_trials,
    variants,
)
from hemascope.study.runner import Engine, Executed, Work, execute, jobs_here
from hemascope.study.table import study_table
from hemascope.study_results import StudyResult


@dataclass(frozen=True)
class Studied:
    """The results of some studies, their pages, and why runs failed, by ``study: variant, seed N``."""

    results: tuple[StudyResult, ...]
    pages: tuple[Path, ...]
    failed: Mapping[str, str]


def run_studies(
    files: Sequence[str | Path],
    *,
    output: str | Path,
    data: str | Path | None = None,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    cluster: str | None = None,
    format: str | None = None,
    class_names: tuple[str, ...] | None = None,
    command: str = "",
    progress: Progress = SILENT,
) -> Studied:
    """Carry out the studies of some files, and write their tables and pages.

    output   a folder for many studies: equal runs of different studies are made once, and what is finished there is
             kept
    data     labelled cells; left out: those the file names
    seeds    these instead of the file's
    jobs     runs at once on this machine; left out: one a GPU, else one a core as far as memory has room
    cluster  "auto" or the address of a Ray cluster, which sees ``output`` under the same path; left out: this machine

    Raises ConfigError for a file that is no study, UsageError, SourceError, OutputError, MissingExtraError; RunError
    where a process was killed from outside. Runs that fail are in ``failed``, and missing in the tables.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs must be at least 1, found {jobs}.")
    target = Path(output)
    plans = [_with_seeds(read_study(file), seeds) for file in files]
    check_names(plans)
    for file, plan in zip(files, plans, strict=True):
        if not variants(plan):
            raise UsageError(f"{file} is a search and lists no variants: give it to hemascope study search.")
    work: list[Work] = []
    for file, plan in zip(files, plans, strict=True):
        work += prepare(
            plan, Path(file), data, target, format=format, class_names=class_names, command=command, progress=progress
        )
    done = execute(work, target, engine=engine_of(jobs, cluster), command=command, progress=progress)
    for plan in plans:
        if plan.maps is not None:
            draw_maps(plan, _read_cells(target, plan), target, progress)
    studied = report_studies(target, [plan.name for plan in plans], progress=progress)
    return Studied(studied.results, studied.pages, _failures(work, done))


def report_studies(
    output: str | Path,
    names: Sequence[str] = (),
    *,
    markdown: str | Path | None = None,
    preface: str | Path | None = None,
    progress: Progress = SILENT,
) -> Studied:
    """Make the tables and pages of the studies in ``output`` again from saved results; all of them without ``names``.

    markdown  a file for one page with all of them
    preface   a file with the words that page begins with

    Raises RunError where there is no such study, or a saved result is damaged.
    """
    target = Path(output)
    chosen = list(names) or sorted(path.parent.name for path in target.glob("*/study.toml"))
    if not chosen:
        raise RunError(f"{target} holds no study. Run one with hemascope study run FILE --data CELLS -o {target}.")
    words = "" if preface is None else _text(Path(preface))
    results, pages = [], []
    with progress.task("tables of the studies", len(chosen), "studies") as advance:
        for name in chosen:
            folder = study_folder(target, name)
            if not (folder / "study.toml").is_file():
                raise RunError(f"{target} holds no study called {name!r}. Leave the name out for all there are.")
            about = _about(folder)
            plan = _with_seeds(read_study(folder / "study.toml"), about["seeds"])
            plan = plan.model_copy(update={"name": name})
            result = study_table(
                plan, _read_cells(target, plan), target, command=about["command"], machine=about["machine"]
            )
            pictures, notes = map_pictures(folder)
            result = result.model_copy(update={"notes": (*result.notes, *notes)})
            write_json(folder / "study.json", result.model_dump(mode="json"))
            write_text(folder / "study.csv", study_csv(result))
            pages.append(render_study(result, folder, pictures=pictures))
            results.append(result)
            advance(1)
    pages.append(render_studies(_all_results(target), target))
    if markdown is not None:
        write_text(Path(markdown), studies_markdown(results, words))
    return Studied(tuple(results), tuple(pages), {})


def prepare(
    plan: StudyPlan,
    file: Path,
    data: str | Path | None,
    output: Path,
    *,
    format: str | None,
    class_names: tuple[str, ...] | None,
    command: str,
    progress: Progress,
) -> list[Work]:
    """The work of one study, its cells and its record in ``output`` written. Seed by seed, variants within."""
    source = data or plan.data
    if source is None:
        raise UsageError(f"{file} names no cells: give them with --data.")
    cells: dict[str, StudyCells] = {}
    made: dict[str, StudyCells] = {}
    for variant in variants(plan):
        config = study_config(plan, variant, plan.seeds[0])
        key = config.data.model_dump_json()
        if key not in made:
            made[key] = study_cells(
                source, config, plan.cells, output, format=format, class_names=class_names, progress=progress
            )
        cells[variant.name] = made[key]
    _record(plan, cells, output, command)
    metrics = tuple(metric_titles(plan))
    rows = [
        [Work(trial, cells[one.name], metrics) for trial in variant_trials(plan, one, cells[one.name].fingerprint)]
        for one in variants(plan)
    ]
    # Seed by seed: a study cut short has whole rounds of its variants.
    return [row[number] for number in range(len(plan.seeds)) for row in rows]


def engine_of(jobs: int | None, cluster: str | None) -> Callable[[int], Engine]:
    """What carries out a number of trials: this machine's processes, or a cluster's."""
    if cluster is not None:
        from hemascope.study.on_ray import RayEngine, check_ray

        check_ray()
        return lambda pending: RayEngine(cluster)

    def here(pending: int) -> Engine:
        from hemascope.runtime import gpu_count
        from hemascope.study.workers import Workers

        gpus = gpu_count()
        at_once, threads = jobs_here(pending, jobs, gpus)
        return Workers(at_once, threads, gpus)

    return here


def _record(plan: StudyPlan, cells: Mapping[str, StudyCells], output: Path, command: str) -> None:
    folder = study_folder(output, plan.name)
    record_plan(plan, folder, "study.toml")
    kept = {name: {**asdict(one), "folder": one.folder.relative_to(output).as_posix()} for name, one in cells.items()}
    about = {"version": 1, "command": command, "machine": machine(), "seeds": list(plan.seeds), "cells": kept}
    write_json(folder / "cells.json", about)


def record_plan(plan: StudyPlan, folder: Path, name: str) -> None:
    """Write the plan as it was read, and what it names put in: it can be read from there alone."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / name, tomli_w.dumps(plan.model_dump(mode="json", exclude_none=True)))


def _about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / "cells.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / 'cells.json'} cannot be read: run the study again to mend it") from error
    if not isinstance(about, dict) or about.get("version") != 1:
        raise RunError(f"{folder / 'cells.json'} is of another version of hemascope: run the study again")
    return about


def _read_cells(output: Path, plan: StudyPlan) -> dict[str, StudyCells]:
    """The cells of each variant, as they were recorded; relative, so that a study's folder may be moved."""
    kept = _about(study_folder(output, plan.name))["cells"]
    return {
        name: StudyCells(
            folder=output / one["folder"],
            fingerprint=one["fingerprint"],
            counts=one["counts"],
            class_names=tuple(one["class_names"]),
            source=one["source"],
        )
        for name, one in kept.items()
    }


def _all_results(output: Path) -> list[StudyResult]:
    """Every table in ``output``: also of studies this call is not about."""
    return [
        StudyResult.model_validate_json(path.read_text(encoding="utf-8"))
        for path in sorted(output.glob("*/study.json"))
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the preface {path} cannot be read as text: {error}.") from error


def _failures(work: Sequence[Work], done: Executed) -> dict[str, str]:
    return {
        one.trial.label: done.failed[one.trial.fingerprint]
        for one in work
        if one.trial.fingerprint in done.failed and one.trial.fingerprint not in done.runs
    }


def _with_seeds(plan: StudyPlan, seeds: Sequence[int] | None) -> StudyPlan:
    if not seeds:
        return plan
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise UsageError("--seeds must be different whole numbers from 0.")
    return plan.model_copy(update={"seeds": tuple(seeds)})


def check_names(plans: Sequence[StudyPlan]) -> None:
    """Raise ConfigError where two studies would share a folder, or one would take that of all."""
    names = [plan.name for plan in plans]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two studies are called '{name}': give each its own name.")
        if name in ("runs", "cells"):
            raise ConfigError(f"a study cannot be called '{name}': that folder holds what all studies share.")


def machine() -> str:
    """What kind of machine this is, in words: processor and cores."""
    import os

    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
