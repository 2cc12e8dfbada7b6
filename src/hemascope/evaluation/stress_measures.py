"""From predicted labels to the report of a stress test, and whether it passes a gate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemascope.corruptions import LAYERS, STACKS, Corruption
from hemascope.errors import UsageError
from hemascope.evaluation.robustness import (
    RelativeErrors,
    Resampled,
    accuracy_estimate,
    by_group,
    mean_relative,
    relative_errors,
    resample,
)
from hemascope.evaluation.stress_record import BaselineRuns
from hemascope.names import suggestion
from hemascope.results import Estimate
from hemascope.stress_gate import Gate
from hemascope.stress_results import (
    Condition,
    CorruptionResult,
    Exposure,
    GateLimit,
    StackResult,
    StressReport,
)


@dataclass(frozen=True)
class Plan:
    """What is predicted: (name, severity) in order, clean cells first as ("clean", 0), stacks with severity 0."""

    corruptions: tuple[Corruption, ...]
    severities: tuple[int, ...]

    @property
    def conditions(self) -> list[tuple[str, int]]:
        """Clean, every corruption at every severity, the stacks: (name, severity) in the order predicted."""
        single = [(one.name, severity) for one in self.corruptions for severity in self.severities]
        return [("clean", 0), *single, *((name, 0) for name in STACKS)]


def measured(
    plan: Plan,
    predicted: NDArray[np.int64],
    labels: NDArray[np.int64],
    laid: dict[str, list[tuple[str, ...]]],
    class_names: tuple[str, ...],
    provenance: Mapping[str, Any],
    baseline: BaselineRuns | None,
    resamples: int,
    seed: int,
) -> StressReport:
    """The figures of a stress test; what they are of (model, cells, part) is left to the caller.

    predicted  int64 (C, n), a row for each of ``plan.conditions``
    labels     int64 (n,)
    laid       for each stack the layers of each image
    """
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


def _exposures(provenance: Mapping[str, Any]) -> Callable[[str], Exposure]:
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


def check_gate(gate: Gate | None, corruptions: Iterable[str]) -> None:
    """Raise UsageError for a limit of what a test of these corruptions does not measure; the stacks it always does."""
    measurable = ["clean", "mean", *STACKS, *corruptions]
    for name in gate.limits() if gate is not None else ():
        if name not in measurable:
            raise UsageError(
                f"the gate has a limit for {name!r}, which is not measured; {suggestion(name, measurable)}"
            )


def gate_limits(gate: Gate | None, report: StressReport) -> tuple[GateLimit, ...]:
    """Every limit of ``gate`` beside what ``report`` found. Raises UsageError for a limit of what was not measured."""
    if gate is None:
        return ()
    check_gate(gate, [one.name for one in report.corruptions])
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
        estimate = found[name]
        value = estimate.low if gate.bound == "low" and estimate.low is not None else estimate.value
        limits.append(GateLimit(name=name, limit=limit, found=value or 0.0, bound=gate.bound))
    return tuple(limits)
