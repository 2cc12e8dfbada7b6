"""The stress test: a trained model on cells as a bad slide, a bad camera or a contest would show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hemascope.atomic import atomic_folder, write_json, write_text
from hemascope.cells import UNLABELLED, CellDataset
from hemascope.config import RunConfig
from hemascope.content import known_content
from hemascope.corruptions import CORRUPTIONS, SEVERITIES, STACKS, corrupt, stack
from hemascope.data.splits import load_splits
from hemascope.errors import DataError, SplitError, UsageError
from hemascope.evaluation.stress_measures import Plan, check_gate, gate_limits, measured
from hemascope.evaluation.stress_record import BaselineRuns, read_baseline, save_stress, stress_csv
from hemascope.manifest import familiar, now
from hemascope.names import listed, suggestion
from hemascope.progress import SILENT, Progress
from hemascope.report.render_stress import render_stress
from hemascope.stress_gate import Gate
from hemascope.stress_results import StressReport
from hemascope.workflow.cells import Data, cells_of, prepared_for
from hemascope.workflow.evaluation import with_classes_of
from hemascope.workflow.places import check_replaceable
from hemascope.workflow.stress_examples import save_examples

if TYPE_CHECKING:
    from hemascope.predict import Predictor

SEED = 20_240
"""Seed of the test's draws, apart from those of training, which start at 0."""

_BATCH = 256


@dataclass(frozen=True)
class Stressed:
    """A folder with ``stress.json``, ``stress.csv``, ``predictions.npz`` and ``report.html``."""

    folder: Path
    report: StressReport
    page: Path


def stress(
    run: str | Path,
    data: Data,
    *,
    output: str | Path | None = None,
    part: str | None = None,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    limit: int | None = None,
    seed: int = SEED,
    baseline: str | Path | None = None,
    gate: Gate | None = None,
    tta: Sequence[str] | None = None,
    resamples: int = 1000,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    command: str = "",
    progress: Progress = SILENT,
) -> Stressed:
    """Measure the model of ``run`` on the labelled cells of ``data``, clean and corrupted, and write a report.

    run          a run's or bundle's folder, or the name of a shipped model
    part         test, validation, calibration, train or all; left out: test where ``data`` is what the run was split
                 from, else all
    corruptions  names of CORRUPTIONS; left out: all eleven
    limit        at most this many cells, drawn from the classes in proportion
    baseline     an earlier stress test's folder (or its stress.json), which BE and rBE are relative to; left out: the
                 one that comes with hemascope, a network fine-tuned without augmentation
    gate         limits; whether they hold is in the report, and nothing is raised where they do not
    tta          views averaged at test time; None: the model's own

    Corruptions are done to prepared images, the size the network sees. Each image's draws depend on the seed, the
    corruption and its own id, in a stream that training cannot draw from; their code shares nothing with that of
    augmentation. Raises BundleError, DataError, UsageError, OutputError.
    """
    from hemascope.predict import load_model

    plan = _plan(corruptions, severities)
    check_gate(gate, [one.name for one in plan.corruptions])
    predictor = load_model(run, batch_size=_BATCH, tta=tta, progress=progress)
    bundle, folder = predictor.bundle, predictor.folder
    target = Path(output) if output is not None else default_folder(predictor, "stress")
    check_replaceable(target, "stress.json", "a stress test")
    if seed < 0:
        raise UsageError(f"a seed must be at least 0, found {seed}.")
    if seed == bundle.provenance.get("seed"):
        raise UsageError(f"the model was trained with seed {seed}: test it with another one.")
    config = prepared_for(RunConfig(), bundle.preparation)
    cells = with_classes_of(
        bundle.class_names, cells_of(data, config, format=format, class_names=class_names, progress=progress)
    )
    rows, chosen, notes = tested_rows(folder, cells, part)
    known = known_content(folder, cells)
    if known is not None and known[rows].any():
        notes.append(familiar(int(known[rows].sum()), len(rows)))
        progress.warn(notes[-1])
    if limit is not None and limit < len(rows):
        rows = fewer(cells, rows, limit)
        notes.append(f"{len(rows):,} cells drawn from the classes in proportion, not all of them.")
    ids, labels = [str(cells.ids[row]) for row in rows], cells.labels[rows].astype(np.int64)
    relative_to = _baseline(baseline, plan, ids, labels, bundle.class_names, seed)  # damage is said before the work
    predicted, laid = _predict_all(predictor, cells, rows, ids, plan, seed, progress)
    report = measured(
        plan, predicted, labels, laid, bundle.class_names, bundle.provenance, relative_to, resamples, seed,
    )  # fmt: skip
    report = report.model_copy(
        update={
            "model": predictor.name,
            "model_sha256": bundle.sha256,
            "n": len(rows),
            "part": chosen,
            "size": bundle.preparation.size,
            "views": predictor.tta,
            "policy": str(bundle.provenance.get("augmentation_policy", "")),
            "notes": tuple(notes),
            "data_source": cells.source,
            "data_fingerprint": cells.fingerprint(),
            "created": now(),
            "command": command,
        }
    )
    report = report.model_copy(update={"gate": gate_limits(gate, report)})
    with atomic_folder(target) as temporary:
        examples = save_examples(temporary, plan, cells, rows, ids, labels, predicted, bundle.class_names, laid, seed)
        report = report.model_copy(update={"examples": tuple(examples)})
        write_json(temporary / "stress.json", report.model_dump(mode="json"))
        write_text(temporary / "stress.csv", stress_csv(report))
        save_stress(temporary / "predictions.npz", ids, labels, predicted, plan.conditions, bundle.class_names, seed)
        render_stress(report, temporary)
    return Stressed(target, report, target / "report.html")


def _baseline(
    source: str | Path | None,
    plan: Plan,
    ids: list[str],
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    seed: int,
) -> BaselineRuns | None:
    """The baseline, where its means are over the same severities; else None, or UsageError if it was asked for."""
    if plan.severities == SEVERITIES:
        return read_baseline(source, plan.conditions, ids, labels, class_names, seed)
    if source is not None:
        raise UsageError("errors relative to a baseline are means over all five severities: leave --severities out.")
    return None


def _plan(names: Sequence[str] | None, severities: Sequence[int]) -> Plan:
    chosen = tuple(CORRUPTIONS) if names is None else tuple(dict.fromkeys(names))
    for name in chosen:
        if name not in CORRUPTIONS:
            raise UsageError(f"no corruption is called {name!r}; {suggestion(name, list(CORRUPTIONS))}")
    if not chosen:
        raise UsageError("no corruption was named; leave --corruptions out to test all of them.")
    wrong = [str(severity) for severity in severities if severity not in SEVERITIES]
    if wrong or not severities:
        raise UsageError(f"severities are numbers from 1 to 5, found {listed(wrong) or 'none'}.")
    return Plan(tuple(CORRUPTIONS[name] for name in chosen), tuple(sorted(set(severities))))


def default_folder(predictor: Predictor, name: str) -> Path:
    """Where results go that nobody named a folder for: in the run, but never in an installed package."""
    if predictor.shipped:
        raise UsageError(f"{predictor.name} comes with hemascope: name a folder for the results with -o.")
    return predictor.folder / name


def tested_rows(folder: Path, cells: CellDataset, part: str | None) -> tuple[NDArray[np.intp], str, list[str]]:
    """Labelled rows of the part asked for, its name, and what a reader should know."""
    labelled = cells.labels != UNLABELLED
    splits, why = None, "the model brings no split"
    if (folder / "splits.json").exists():
        try:
            splits = load_splits(folder / "splits.json", cells)
        except SplitError:
            why = "these are other cells than the run was split from"
    if part not in (None, "all") and splits is None:
        raise UsageError(f"there is no {part} part: {why}. Leave --part out, or give the data the run was made of.")
    if part is None:
        part = "all" if splits is None else "test"
    keep = labelled if part == "all" or splits is None else labelled & (splits.assignment == part)
    if not keep.any():
        raise DataError(f"no labelled cell is in the part {part!r} of {cells.source}, so nothing can be measured.")
    return np.flatnonzero(keep), part, [] if splits is not None else [f"All labelled cells were used: {why}."]


def fewer(cells: CellDataset, rows: NDArray[np.intp], limit: int) -> NDArray[np.intp]:
    """``limit`` rows, each class in proportion and at least one of each, drawn with a fixed seed."""
    if limit < 1:
        raise UsageError(f"a limit must be at least 1, found {limit}")
    order = np.random.default_rng(0).permutation(len(rows))
    labels = cells.labels[rows]
    taken: list[NDArray[np.intp]] = []
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        taken.append(mine[: max(1, round(limit * len(mine) / len(rows)))])
    return np.sort(rows[np.concatenate(taken)])


def _predict_all(
    predictor: Predictor,
    cells: CellDataset,
    rows: NDArray[np.intp],
    ids: list[str],
    plan: Plan,
    seed: int,
    progress: Progress,
) -> tuple[NDArray[np.int64], dict[str, list[tuple[str, ...]]]]:
    """Predicted labels int64 (conditions, n), and the layers of each image of each stack.

    The next batch is corrupted in a thread of its own while the network looks at this one.
    """
    conditions = plan.conditions
    predicted = np.empty((len(conditions), len(rows)), dtype=np.int64)
    laid: dict[str, list[tuple[str, ...]]] = {name: [] for name in STACKS}
    work = [(number, start) for number in range(len(conditions)) for start in range(0, len(rows), _BATCH)]

    def prepare(item: tuple[int, int]) -> NDArray[np.uint8]:
        number, start = item
        name, severity = conditions[number]
        images = np.stack([cells.images[row] for row in rows[start : start + _BATCH]])
        mine = ids[start : start + _BATCH]
        if name in STACKS:
            images, layers = stack(images, name, seed=seed, ids=mine)
            laid[name].extend(layers)
        elif severity:
            images = corrupt(images, name, severity, seed=seed, ids=mine)
        return images

    with (
        ThreadPoolExecutor(max_workers=1) as pool,
        progress.task("stress test", len(conditions) * len(rows), "predictions") as advance,
    ):
        for (number, start), images in zip(work, _ahead(pool, prepare, work), strict=True):
            stop = start + len(images)
            predicted[number, start:stop] = predictor.predict_images(images, ids[start:stop]).predicted
            advance(len(images))
    return predicted, laid


def _ahead(pool: ThreadPoolExecutor, function: Any, items: Sequence[Any]) -> Iterator[Any]:
    """``map`` with one result made ahead, so memory holds two batches whatever the number of items."""
    waiting = pool.submit(function, items[0]) if items else None
    for item in [*items[1:], None]:
        assert waiting is not None
        ready = waiting.result()
        waiting = None if item is None else pool.submit(function, item)
        yield ready


def render_again(folder: str | Path) -> Path:
    """Make ``report.html`` of a stress test's folder again from its saved results. Raises RunError."""
    from hemascope.evaluation.stress_record import load_stress

    return render_stress(load_stress(Path(folder) / "stress.json"), Path(folder))


__all__ = ["SEED", "Stressed", "default_folder", "gate_limits", "render_again", "stress"]
