"""Results as lines of plain words for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from hemascope.report.wording import comparison_verdict, headline_split, interval, number, percent, points
from hemascope.results import Comparison, Estimate, Evaluation, SplitEvaluation

_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "macro_auroc": "macro AUROC",
    "log_loss": "log loss",
}


def evaluation_lines(evaluation: Evaluation) -> Iterator[str]:
    """The split that counts: accuracy and balanced accuracy with 95 % intervals, and the weakest class."""
    split = headline_split(evaluation)
    yield f"{split.split.capitalize()}: {split.n:,} cells"
    for name in ("accuracy", "balanced_accuracy"):
        if name in split.metrics:
            yield f"  {_TITLES[name]:<18} {_with_interval(split.metrics[name])}"
    weakest = _weakest(split)
    if weakest:
        yield f"  {'weakest class':<18} {weakest}"
    if evaluation.left_out:
        yield f"  {evaluation.left_out:,} images could not be scored and were left out"


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """Both runs and their difference for each metric, then McNemar's counts and what they mean."""
    yield f"first:  {comparison.first}"
    yield f"second: {comparison.second}"
    yield f"{'metric':<18} {'first':>9} {'second':>9}  difference (95 % interval)"
    for name, difference in comparison.difference.items():
        share = name != "log_loss"
        show, gap = (percent, points) if share else (number, _signed)
        first, second = comparison.first_metrics[name].value, comparison.second_metrics[name].value
        spread = f" ({gap(difference.low)} to {gap(difference.high)})" if difference.low is not None else ""
        unit = " points" if share else ""
        yield f"{_TITLES.get(name, name):<18} {show(first):>9} {show(second):>9}  {gap(difference.value)}{unit}{spread}"
    yield (
        f"Right in the first alone: {comparison.only_first_correct:,}; in the second alone: "
        f"{comparison.only_second_correct:,}; McNemar's exact p = {comparison.p_value:.3g}"
    )
    yield comparison_verdict(comparison)


def _with_interval(estimate: Estimate) -> str:
    spread = interval(estimate)
    return f"{percent(estimate.value)} ({spread})" if spread else percent(estimate.value)


def _weakest(split: SplitEvaluation) -> str:
    """The class of lowest recall, "" where none was measured."""
    measured = [(one.recall.value, one) for one in split.per_class if one.recall.value is not None]
    if not measured:
        return ""
    _, one = min(measured, key=lambda pair: pair[0])
    return f"{one.name}: {_with_interval(one.recall)} of its {one.support:,} cells found"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"
