"""Results as lines of plain words for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from hemascope.report.wording import comparison_verdict, headline_split, interval, number, percent, points
from hemascope.results import Comparison, Estimate, Evaluation, SplitEvaluation

if TYPE_CHECKING:
    from hemascope.data.inspection import Inspection

_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "macro_auroc": "macro AUROC",
    "log_loss": "log loss",
}

_EXAMPLES = 3  # duplicates shown
_UNREADABLE = 10  # unreadable images shown


def evaluation_lines(evaluation: Evaluation) -> Iterator[str]:
    """The split that counts: accuracy and balanced accuracy with 95 % intervals, and the weakest class."""
    split = headline_split(evaluation)
    yield f"{split.split.capitalize()}: {split.n:,} cells"
    for name in ("accuracy", "balanced_accuracy"):
        if name in split.metrics:
            yield f"  {_TITLES[name]:<18} {percent_with_interval(split.metrics[name])}"
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


def inspection_lines(found: Inspection) -> Iterator[str]:
    """What is in a set of cells: classes, sizes, formats, what cannot be read, duplicates, and what to mind."""
    yield f"{found.path}: {found.count:,} images, {found.bytes_on_disk / 1e6:,.1f} MB ({found.kind})"
    if found.class_counts:
        yield "Classes:"
        width = max(map(len, found.class_counts))
        labelled = max(1, sum(found.class_counts.values()))
        for name, count in found.class_counts.items():
            yield f"  {name:<{width}} {count:>9,}  {count / labelled:6.1%}"
    if found.unlabelled:
        yield f"Unlabelled: {found.unlabelled:,}"
    if found.imbalance is not None:
        yield f"Imbalance: the largest class has {found.imbalance:.1f} times the images of the smallest"
    if found.sizes:
        yield "Sizes: " + ", ".join(f"{size.width} × {size.height} ({size.count:,})" for size in found.sizes)
    for title, counts in (
        ("Formats", found.formats),
        ("Modes", found.modes),
        ("Converted while reading", found.conversions),
        ("Notes", found.notes),
        ("Its own split", found.own_split or {}),
    ):
        if counts:
            yield f"{title}: {_counted(counts)}"
    if found.groups is not None:
        yield f"Groups (patients, slides): {found.groups:,}"
    yield from _troubles(found)
    if found.suggestions:
        yield "To mind:"
        for suggestion in found.suggestions:
            yield f"  - {suggestion}"


def _troubles(found: Inspection) -> Iterator[str]:
    """Duplicates and unreadable images, with examples."""
    if found.duplicate_groups:
        yield f"Exact duplicates: {found.duplicate_images:,} images in {found.duplicate_groups:,} sets, such as"
        for ids in found.duplicate_examples[:_EXAMPLES]:
            yield "  " + " = ".join(ids[:_EXAMPLES]) + (" = …" if len(ids) > _EXAMPLES else "")
    if found.unreadable_count:
        yield f"Unreadable: {found.unreadable_count:,}"
        for image in found.unreadable[:_UNREADABLE]:
            yield f"  {image.id}: {image.reason}"
        if found.unreadable_count > _UNREADABLE:
            yield f"  … and {found.unreadable_count - _UNREADABLE:,} more (--json lists up to 1,000)"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())


def percent_with_interval(estimate: Estimate) -> str:
    """``97.9 % (97.1–98.5 %)``, or the value alone where no interval was made."""
    spread = interval(estimate)
    return f"{percent(estimate.value)} ({spread})" if spread else percent(estimate.value)


def _weakest(split: SplitEvaluation) -> str:
    """The class of lowest recall, "" where none was measured."""
    measured = [(one.recall.value, one) for one in split.per_class if one.recall.value is not None]
    if not measured:
        return ""
    _, one = min(measured, key=lambda pair: pair[0])
    return f"{one.name}: {percent_with_interval(one.recall)} of its {one.support:,} cells found"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"
