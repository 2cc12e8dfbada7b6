"""The stress test: a trained model on cells as a bad slide, a bad camera or a contest would show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.atomic import atomic_folder, write_json, write_text
from hemascope.cells import UNLABELLED, CellDataset
from hemascope.config import RunConfig
from hemascope.content import known_content
from hemascope.corruptions import CORRUPTIONS, LAYERS, SEVERITIES, STACKS, Corruption, corrupt, stack
from hemascope.data.splits import load_splits
from hemascope.errors import DataError, SplitError, UsageError
from hemascope.evaluation.robustness import (
    RelativeErrors,
    Resampled,
    accuracy_estimate,
    by_group,
    mean_relative,
    relative_errors,
    resample,
)
from hemascope.evaluation.stress_record import BaselineRuns, read_baseline, save_stress, stress_csv
from hemascope.manifest import familiar, now
from hemascope.names import listed, suggestion
from hemascope.progress import SILENT, Progress
from hemascope.report.render_stress import render_stress
from hemascope.results import Estimate
from hemascope.stress_gate import Gate
from hemascope.stress_results import (
    Condition,
    CorruptionResult,
    Example,
    Exposure,
    GateLimit,
    StackResult,
    StressReport,
)
from hemascope.workflow.cells import Data, cells_of
from hemascope.workflow.evaluation import with_classes_of

if TYPE_CHECKING:
    from hemascope.predict import Predictor

SEED = 20_240
"""Seed of the test's draws, apart from those of training, which start at 0."""

EXAMPLES = 16
_BATCH = 256


@dataclass(frozen=True)
class Stressed:
    """A folder with ``stress.json``, ``stress.csv``, ``predictions.npz`` and ``report.html``."""

    folder: Path
    report: StressReport
    page: Path


@dataclass(frozen=True)
class _Plan:
    """What is predicted: (name, severity) in order, clean cells first as ("clean", 0), stacks with severity 0."""

    corruptions: tuple[Corruption, ...]
    severities: tuple[int, ...]

    @property
    def conditions(self) -> list[tuple[str, int]]:
        single = [(one.name, severity) for one in self.corruptions for severity in self.severities]
        return [("clean", 0), *single, *((name, 0) for name in STACKS)]


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
    tta: Sequence[str] = (),
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
    tta          views averaged at test time

    Corruptions are done to prepared images, the size the network sees. Each image's draws depend on the seed, the
    corruption and its own id, in a stream that training cannot draw from; their code shares nothing with that of
    augmentation. Raises BundleError, DataError, UsageError, OutputError.
    """
    from hemascope.predict import load_model

    plan = _plan(corruptions, severities)
    predictor = load_model(run, batch_size=_BATCH, tta=tta)
    bundle, folder = predictor.bundle, predictor.folder
    if seed == bundle.provenance.get("seed"):
        raise UsageError(f"the model was trained with seed {seed}: test it with another one.")
    config = RunConfig()
    config = config.model_copy(update={"data": config.data.model_copy(update={"preparation": bundle.preparation})})
    cells = with_classes_of(
        bundle.class_names, cells_of(data, config, format=format, class_names=class_names, progress=progress)
    )
    rows, chosen, notes = _rows(folder, cells, part)
    known = known_content(folder, cells)
    if known is not None and known[rows].any():
        notes.append(familiar(int(known[rows].sum()), len(rows)))
        progress.warn(notes[-1])
    if limit is not None and limit < len(rows):
        rows = _fewer(cells, rows, limit)
        notes.append(f"{len(rows):,} cells drawn from the classes in proportion, not all of them.")
    target = Path(output) if output is not None else default_folder(predictor, "stress")
    ids, labels = [str(cells.ids[row]) for row in rows], cells.labels[rows].astype(np.int64)
    predicted, laid = _predict_all(predictor, cells, rows, ids, plan, seed, progress)
    report = _measured(
        plan, predicted, labels, laid, bundle.class_names, bundle.provenance,
        _baseline(baseline, plan, ids, labels, bundle.class_names, seed), resamples, seed,
    )  # fmt: skip
    report = report.model_copy(
        update={
            "model": predictor.name,
            "model_sha256": bundle.sha256,
            "n": len(rows),
            "part": chosen,
            "size": bundle.preparation.size,
            "views": tuple(tta),
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
        examples = _examples(temporary, plan, cells, rows, ids, labels, predicted, bundle.class_names, laid, seed)
        report = report.model_copy(update={"examples": tuple(examples)})
        write_json(temporary / "stress.json", report.model_dump(mode="json"))
        write_text(temporary / "stress.csv", stress_csv(report))
        save_stress(temporary / "predictions.npz", ids, labels, predicted, plan.conditions, bundle.class_names, seed)
        render_stress(report, temporary)
    return Stressed(target, report, target / "report.html")


def _baseline(
    source: str | Path | None,
    plan: _Plan,
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


def _plan(names: Sequence[str] | None, severities: Sequence[int]) -> _Plan:
    chosen = tuple(CORRUPTIONS) if names is None else tuple(dict.fromkeys(names))
    for name in chosen:
        if name not in CORRUPTIONS:
            raise UsageError(f"no corruption is called {name!r}; {suggestion(name, list(CORRUPTIONS))}")
    wrong = [severity for severity in severities if severity not in SEVERITIES]
    if wrong or not severities or not chosen:
        raise UsageError(
            f"severities are 1 to 5 and at least one corruption is needed, found {listed([str(one) for one in wrong])}"
        )
    return _Plan(tuple(CORRUPTIONS[name] for name in chosen), tuple(sorted(set(severities))))


def default_folder(predictor: Predictor, name: str) -> Path:
    """Where results go that nobody named a folder for: in the run, but never in an installed package."""
    if predictor.shipped:
        raise UsageError(f"{predictor.name} comes with hemascope: name a folder for the results with -o.")
    return predictor.folder / name


def _rows(folder: Path, cells: CellDataset, part: str | None) -> tuple[NDArray[np.intp], str, list[str]]:
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


def _fewer(cells: CellDataset, rows: NDArray[np.intp], limit: int) -> NDArray[np.intp]:
    """``limit`` rows, each class in proportion and at least one of each, drawn by the order of hashed ids."""
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
    plan: _Plan,
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


def _measured(
    plan: _Plan,
    predicted: NDArray[np.int64],
    labels: NDArray[np.int64],
    laid: dict[str, list[tuple[str, ...]]],
    class_names: tuple[str, ...],
    provenance: Any,
    baseline: BaselineRuns | None,
    resamples: int,
    seed: int,
) -> StressReport:
    classes, conditions = len(class_names), plan.conditions
    found = resample(predicted, labels, classes, resamples=resamples, seed=seed)
    exposure = _exposures(provenance)
    index = {condition: number for number, condition in enumerate(conditions)}

    def condition(name: str, severity: int, title: str, family: str, seen: Exposure) -> Condition:
        number = index[name, severity]
        return Condition(
            name=name, title=title, family=family, severity=severity, exposure=seen,
            balanced_accuracy=found.balanced_accuracy(number), accuracy=accuracy_estimate(predicted[number], labels),
        )  # fmt: skip

    other = None if baseline is None or baseline.predicted is None else resample(
        baseline.predicted, labels, classes, resamples=resamples, seed=seed
    )  # fmt: skip
    single, corruptions, relative = [], [], []
    for one in plan.corruptions:
        columns = [index[one.name, severity] for severity in plan.severities]
        seen = exposure(one.family)
        single += [condition(one.name, severity, one.title, one.family, seen) for severity in plan.severities]
        errors = None
        if baseline is not None and one.name in baseline.record.errors:
            paired = None if other is None else (other, 0, columns)
            errors = relative_errors(found, 0, columns, one.name, baseline.record, paired)
            relative.append(errors)
        corruptions.append(_corruption(one, seen, found, columns, errors))
    every = [number for number, (name, severity) in enumerate(conditions) if severity]
    means = {"mean_balanced_accuracy": found.mean(every)}
    for title, wanted in (
        ("mean_trained_on", ("trained on",)),
        ("mean_not_trained_on", ("not trained on", "held out")),
    ):
        mine = [index[c.name, c.severity] for c in single if c.exposure in wanted]
        if mine:
            means[title] = found.mean(mine)
    stacks = [
        _stack(name, found, index[name, 0], predicted[index[name, 0]], labels, laid[name], classes, resamples, seed)
        for name in STACKS
    ]
    return StressReport(
        model="", model_sha256="", class_names=list(class_names), n=len(labels), part="", seed=seed, size=0,
        clean=condition("clean", 0, "as they are", "", "trained on"), clean_recall=found.class_recall(0),
        conditions=single, corruptions=corruptions, stacks=stacks, means=means | mean_relative(relative, found.n),
        baseline=None if baseline is None else baseline.record,
    )  # fmt: skip


def _exposures(provenance: Any) -> Any:
    trained, held = provenance.get("augmentation_families"), provenance.get("held_out_families") or []

    def exposure(family: str) -> Exposure:
        if trained is None:
            return "not known"
        if family in held:
            return "held out"
        return "trained on" if family in trained else "not trained on"

    return exposure


def _corruption(
    one: Corruption, seen: Exposure, found: Resampled, columns: list[int], errors: RelativeErrors | None
) -> CorruptionResult:
    mean = found.mean(columns)
    loss = found.samples[:, 0] - found.samples[:, columns].mean(axis=1)
    value = float(found.value[0] - found.value[columns].mean())
    low, high = np.percentile(loss, [2.5, 97.5])
    return CorruptionResult(
        name=one.name,
        title=one.title,
        family=one.family,
        exposure=seen,
        error=Estimate(
            value=1 - (mean.value or 0.0),
            low=None if mean.high is None else 1 - mean.high,
            high=None if mean.low is None else 1 - mean.low,
            n=mean.n,
        ),
        relative_error=Estimate(value=value, low=min(float(low), value), high=max(float(high), value), n=mean.n),
        be=_relative(errors, "be", mean.n),
        rbe=_relative(errors, "rbe", mean.n),
    )


def _relative(errors: RelativeErrors | None, name: str, n: int) -> Estimate:
    value = float("nan") if errors is None else getattr(errors, name)
    if errors is None or np.isnan(value):
        return Estimate(value=None, n=n)
    samples = getattr(errors, f"{name}_samples")
    samples = samples[~np.isnan(samples)]
    low, high = np.percentile(samples, [2.5, 97.5])
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value), n=n)


def _stack(
    name: str,
    found: Resampled,
    number: int,
    predicted: NDArray[np.int64],
    labels: NDArray[np.int64],
    laid: list[tuple[str, ...]],
    classes: int,
    resamples: int,
    seed: int,
) -> StackResult:
    families = list(dict.fromkeys(layer.family for layer in LAYERS.values()))
    of = [{LAYERS[layer].family for layer in layers} for layers in laid]
    members = {family: np.array([family in mine for mine in of]) for family in families}
    low, high = STACKS[name]
    return StackResult(
        condition=Condition(
            name=name,
            title=f"{low} or {high} strong layers" if high - low == 1 else f"{low} to {high} strong layers",
            family="",
            severity=0,
            exposure="not known",
            balanced_accuracy=found.balanced_accuracy(number),
            accuracy=accuracy_estimate(predicted, labels),
        ),
        layers=(low, high),
        by_family=by_group(predicted, labels, members, classes, resamples=min(resamples, 300), seed=seed),
        recall=found.class_recall(number),
    )


def gate_limits(gate: Gate | None, report: StressReport) -> tuple[GateLimit, ...]:
    """Every limit of ``gate`` beside what ``report`` found. Raises UsageError for a limit of what was not measured."""
    if gate is None:
        return ()
    found: dict[str, Estimate] = {
        "clean": report.clean.balanced_accuracy,
        "mean": report.means["mean_balanced_accuracy"],
    }
    found |= {one.condition.name: one.condition.balanced_accuracy for one in report.stacks}
    for one in report.corruptions:
        error = one.error
        low = None if error.high is None else 1 - error.high
        found[one.name] = Estimate(value=1 - (error.value or 0.0), low=low, n=error.n)
    limits = []
    for name, limit in gate.limits().items():
        if name not in found:
            raise UsageError(
                f"the gate has a limit for {name!r}, which was not measured; {suggestion(name, list(found))}"
            )
        estimate = found[name]
        value = estimate.low if gate.bound == "low" and estimate.low is not None else estimate.value
        limits.append(GateLimit(name=name, limit=limit, found=value or 0.0, bound=gate.bound))
    return tuple(limits)


def _examples(
    folder: Path,
    plan: _Plan,
    cells: CellDataset,
    rows: NDArray[np.intp],
    ids: list[str],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    class_names: tuple[str, ...],
    laid: dict[str, list[tuple[str, ...]]],
    seed: int,
) -> list[Example]:
    """A strip for each corruption, and single pictures under stacks, of cells spread over the classes."""
    index = {condition: number for number, condition in enumerate(plan.conditions)}
    order = np.random.default_rng(seed).permutation(len(rows))
    spread = order[np.argsort(_rank(labels[order]), kind="stable")]
    examples = []
    (folder / "examples").mkdir()

    def add(name: str, pixels: NDArray[np.uint8], caption: str, place: int, numbers: Sequence[int]) -> None:
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / "examples" / f"{name}.png")
        said = [class_names[predicted[number, place]] for number in numbers]
        examples.append(
            Example(
                picture=f"{name}.png", caption=caption, true_label=class_names[labels[place]], predicted_labels=said
            )
        )

    for number, one in enumerate(plan.corruptions):
        place = int(spread[number % len(spread)])
        image = np.asarray(cells.images[rows[place]])
        strip = [image]
        strip += [corrupt(image[None], one.name, s, seed=seed, ids=[ids[place]])[0] for s in plan.severities]
        numbers = [0, *(index[one.name, severity] for severity in plan.severities)]
        add(f"corruption-{one.name}", np.concatenate(strip, axis=1), one.title, place, numbers)
    for name in STACKS:
        for number, place in enumerate(spread[: EXAMPLES // 2].tolist()):
            image = np.asarray(cells.images[rows[place]])[None]
            changed, _ = stack(image, name, seed=seed, ids=[ids[place]])
            titles = ", ".join(LAYERS[layer].title for layer in laid[name][place])
            add(f"{name}-{number}", changed[0], titles, place, [index[name, 0]])
    return examples


def _rank(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the same label stand before each: int64 (n,)."""
    rank = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        rank[mine] = np.arange(len(mine))
    return rank


def render_again(folder: str | Path) -> Path:
    """Make ``report.html`` of a stress test's folder again from its saved results. Raises RunError."""
    from hemascope.evaluation.stress_record import load_stress

    return render_stress(load_stress(Path(folder) / "stress.json"), Path(folder))


__all__ = ["SEED", "Stressed", "default_folder", "gate_limits", "render_again", "stress"]
