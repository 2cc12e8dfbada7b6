"""From the runs' saved results to the study's table: nothing is trained, predicted or read but what was saved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.errors import RunError
from hemascope.evaluation.record import load_predictions, scorable
from hemascope.manifest import now
from hemascope.results import Estimate, Predictions
from hemascope.study.cells import StudyCells
from hemascope.study.intervals import over_seeds_and_cells, seed_values
from hemascope.study.places import find_run, is_finished, is_measured, predictions_of
from hemascope.study.plan import (
    StudyPlan,
    Trial,
    Variant,
    base_of,
    metric_titles,
    settings_text,
    variant_trials,
    variants,
)
from hemascope.study_results import ClaimResult, Measured, Metric, StudyResult, VariantResult, finding


@dataclass(frozen=True)
class _Right:
    """One metric of one variant: right or wrong, float (S, n), of the cells ``ids`` with their labels, int (n,)."""

    seeds: tuple[int, ...]
    right: NDArray[np.float64]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]


def study_table(
    plan: StudyPlan, cells: Mapping[str, StudyCells], output: Path, *, command: str, machine: str
) -> StudyResult:
    """The table of a study's finished runs under ``output``.

    cells  by variant's name: each variant is on the cells its preparation made

    Raises RunError where a finished run's results are damaged.
    """
    metrics = metric_titles(plan)
    found: dict[tuple[str, int], tuple[Trial, Path]] = {}
    missing = []
    base = base_of(plan)
    planned = 0
    for variant in variants(plan):
        record = cells.get(variant.name)
        for trial in [] if record is None else variant_trials(plan, variant, record.fingerprint):
            planned += 1
            run = find_run(output, trial)
            if is_finished(run) and is_measured(run, trial.measure, tuple(metrics)):
                found[variant.name, trial.seed] = trial, run
            else:
                missing.append(f"{variant.name}, seed {trial.seed}")
    rights = {
        variant.name: {name: _rights(plan, variant.name, found, name) for name in metrics} for variant in variants(plan)
    }
    first = next(iter(cells.values()))
    return StudyResult(
        name=plan.name,
        title=plan.title,
        question=plan.question,
        said=plan.said,
        command=command,
        expected=plan.expected,
        conclusion=plan.conclusion,
        base=base,
        metrics=tuple(Metric(name=name, title=title) for name, title in metrics.items()),
        variants=tuple(_variant(plan, one, rights, base, found) for one in variants(plan)),
        claims=tuple(_claims(plan, rights, base)),
        cells=first.counts,
        class_names=first.class_names,
        data_source=first.source,
        data_fingerprint=first.fingerprint,
        planned=planned,
        missing=tuple(missing),
        notes=plan.notes,
        machine=machine,
        created=now(),
    )


def _variant(
    plan: StudyPlan,
    variant: Variant,
    rights: Mapping[str, Mapping[str, _Right | None]],
    base: str,
    found: Mapping[tuple[str, int], tuple[Trial, Path]],
) -> VariantResult:
    measures = {}
    for metric, right in rights[variant.name].items():
        if right is None:
            continue
        values = seed_values(right.right, right.labels)
        other = rights[base][metric] if variant.name != base else None
        measures[metric] = Measured(
            mean=over_seeds_and_cells(right.right, right.labels, lowest=0.0),
            per_seed=values,
            spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
            difference=None if other is None else paired(right, other),
        )
    runs = [found[variant.name, seed][1] for seed in plan.seeds if (variant.name, seed) in found]
    seconds, price = _manifests(runs)
    costs = json.loads((runs[0] / "costs.json").read_text(encoding="utf-8")) if runs else {}
    return VariantResult(
        name=variant.name,
        label=variant.label,
        settings={
            **settings_text(variant.settings),
            **({"views": " ".join(variant.measure.views)} if variant.measure.views else {}),
        },
        seeds=tuple(seed for seed in plan.seeds if (variant.name, seed) in found),
        measures=measures,
        seconds=seconds,
        price=price,
        parameters=costs.get("parameters"),
        gflops=costs.get("gflops"),
        runs=tuple(run.name for run in runs),
    )


def paired(right: _Right, other: _Right) -> Estimate | None:
    """``right`` minus ``other`` on the seeds and cells both have; None where they share none."""
    seeds = [seed for seed in right.seeds if seed in other.seeds]
    place = {name: k for k, name in enumerate(other.ids)}
    mine = [k for k, name in enumerate(right.ids) if name in place]
    if not seeds or not mine:
        return None
    yours = [place[right.ids[k]] for k in mine]
    own = right.right[[right.seeds.index(seed) for seed in seeds]][:, mine]
    others = other.right[[other.seeds.index(seed) for seed in seeds]][:, yours]
    return over_seeds_and_cells(own - others, right.labels[mine], lowest=-1.0)


def _claims(plan: StudyPlan, rights: Mapping[str, Mapping[str, _Right | None]], base: str) -> Sequence[ClaimResult]:
    results = []
    for claim in plan.claims:
        against = claim.against or base
        right, other = rights[claim.variant][claim.metric], rights[against][claim.metric]
        difference = None if right is None or other is None else paired(right, other)
        results.append(
            ClaimResult(
                text=claim.text,
                variant=claim.variant,
                against=against,
                metric=claim.metric,
                expect=claim.expect,
                margin=claim.margin,
                difference=difference,
                finding=finding(difference, claim.expect, claim.margin),
            )
        )
    return results


def _rights(
    plan: StudyPlan, variant: str, found: Mapping[tuple[str, int], tuple[Trial, Path]], metric: str
) -> _Right | None:
    seeds, rows = [], []
    first: Predictions | None = None
    for seed in plan.seeds:
        if (variant, seed) not in found:
            continue
        trial, run = found[variant, seed]
        path = predictions_of(run, trial.measure, metric)
        predictions = load_predictions(path)
        if first is not None and list(first.ids) != list(predictions.ids):
            raise RunError(f"{path} is of other cells than the same metric of another seed: remove {run} and run again")
        first = first or predictions
        seeds.append(seed)
        rows.append(predictions.predicted == predictions.labels)
    if first is None or first.labels is None:
        return None
    keep = scorable(first)
    return _Right(
        tuple(seeds),
        np.array(rows, dtype=np.float64)[:, keep],
        first.labels[keep],
        tuple(name for name, kept in zip(first.ids, keep, strict=True) if kept),
    )


def _manifests(runs: Sequence[Path]) -> tuple[float | None, float | None]:
    """Mean seconds and mean price of some runs."""
    if not runs:
        return None, None
    found = [json.loads((run / "manifest.json").read_text(encoding="utf-8")) for run in runs]
    seconds = [one["timing"]["total"] for one in found]
    return float(np.mean(seconds)), float(np.mean([one["price_epochs"] for one in found]))
