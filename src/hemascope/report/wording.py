"""Numbers and findings in plain words: the verdict, its limits, and how figures are written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hemascope.cells import SPLIT_NAMES
from hemascope.report.figures import finite
from hemascope.results import Comparison, Estimate, Evaluation, SplitEvaluation

NOT_RECORDED = "not recorded"
FEW_CELLS = 50
"""Below this many test cells a class's own numbers are rough: one cell is more than 2 points."""


def percent(value: float | None) -> str:
    """A share as per cent with one decimal, two near 0 and 100. Only what is exactly 0 or 1 reads as that."""
    value = finite(value)
    if value is None:
        return "–"
    if 0 < value < 0.00005:
        return "<\N{NO-BREAK SPACE}0.01\N{NO-BREAK SPACE}%"
    if 0.99995 <= value < 1:
        return ">\N{NO-BREAK SPACE}99.99\N{NO-BREAK SPACE}%"
    return f"{100 * value:.{_percent_digits(value)}f}\N{NO-BREAK SPACE}%"


def number(value: float | None) -> str:
    """A plain number with three decimals, four where three would round it to a perfect 1, or a dash."""
    value = finite(value)
    if value is None:
        return "–"
    return f"{value:.{_digits(value)}f}"


def interval(estimate: Estimate, as_percent: bool = True) -> str:
    """``97.9–99.0 %``, or nothing where no interval was made. Both ends have the same number of decimals."""
    low, high = finite(estimate.low), finite(estimate.high)
    if low is None or high is None:
        return ""
    if as_percent:
        digits = max(_percent_digits(low), _percent_digits(high))
        return f"{100 * low:.{digits}f}–{100 * high:.{digits}f}\N{NO-BREAK SPACE}%"
    digits = max(_digits(low), _digits(high))
    return f"{low:.{digits}f}–{high:.{digits}f}"


def _percent_digits(share: float) -> int:
    return 2 if 0.9995 <= share < 1 or 0 < share < 0.0005 else 1


def _digits(value: float) -> int:
    return 4 if 0.9995 <= value < 1 else 3


def points(value: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    value = finite(value)
    return "–" if value is None else f"{100 * value:+.2f}".replace("-", "\N{MINUS SIGN}")


def change(value: float | None) -> str:
    """A difference of plain numbers, with its sign."""
    value = finite(value)
    return "–" if value is None else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def count(value: int | None) -> str:
    """An amount with thousands separated, or ``not recorded``."""
    return NOT_RECORDED if value is None else f"{value:,}"


def duration(seconds: float | None) -> str:
    """Seconds for people: ``0.42 s``, ``38 s``, ``12 min 5 s``, ``3 h 20 min``."""
    seconds = finite(seconds)
    if seconds is None:
        return NOT_RECORDED
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


@dataclass(frozen=True)
class Card:
    """One large number with what it means."""

    value: str
    title: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """The top of the report: one sentence, a few numbers, and what they do not say."""

    headline: str
    cards: tuple[Card, ...]
    limits: tuple[str, ...]


def headline_split(evaluation: Evaluation) -> SplitEvaluation:
    """The split that counts: test, else the one that the mistakes are of, else the last."""
    for name in ("test", evaluation.mistakes_of):
        if name in evaluation.splits:
            return evaluation.splits[name]
    return list(evaluation.splits.values())[-1]


def confusions(split: SplitEvaluation, class_names: Sequence[str]) -> list[tuple[str, str, int, float]]:
    """(true class, taken for, cells, share of the true class), most frequent first."""
    found = []
    for true, row in zip(class_names, split.confusion, strict=True):
        for predicted, cells in zip(class_names, row, strict=True):
            if cells and predicted != true:
                found.append((true, predicted, cells, cells / sum(row)))
    return sorted(found, key=lambda item: (-item[2], -item[3], item[0], item[1]))


def wrong_of_100(accuracy: float, n: int) -> str:
    """How many of 100 cells would be named wrongly, as part of a sentence."""
    wrong = 100 * (1 - accuracy)
    if wrong <= 0:
        return "none"
    if wrong < 1:
        return "fewer than 1"
    return f"about {wrong:.1f}" if wrong < 10 else f"about {wrong:.0f}"


def verdict(evaluation: Evaluation, split_notes: Sequence[str] = (), grouped: bool | None = None) -> Verdict:
    """What a haematologist should take away, and what not.

    ``split_notes`` are the sentences recorded with the split; ``grouped`` says whether patients or slides were
    known, None where that is not recorded.
    """
    split = headline_split(evaluation)
    cards = []
    parts = []
    balanced, accuracy = split.metrics.get("balanced_accuracy"), split.metrics.get("accuracy")
    if balanced is not None and finite(balanced.value) is not None:
        spread = interval(balanced)
        cards.append(Card(percent(balanced.value), "balanced accuracy", f"95 % interval {spread}" if spread else ""))
        parts.append(
            f"{percent(balanced.value)} were named correctly, every class counting alike"
            + (f" (95\N{NO-BREAK SPACE}% interval {spread})" if spread else "")
        )
    if accuracy is not None and (value := finite(accuracy.value)) is not None:
        cards.append(_wrong_card(accuracy, value, split.n))
        words = wrong_of_100(value, split.n)
        parts.append(
            "no cell was named wrongly"
            if words == "none"
            else f"in the same mix of classes {words} of 100 cells would be named wrongly"
        )
    weakest = _weakest(split, evaluation.class_names)
    if weakest is not None:
        cards.append(weakest)
        if weakest.title == "is the weakest class":
            parts.append(f"the weakest class is {weakest.value}")
    cards.append(Card(f"{split.n:,}", f"{split.split} cells", "read only for this measurement"
                      if split.split == "test" else "these also steered the training"
                      if split.split in {"train", "validation"} else "measured"))  # fmt: skip
    headline = f"Of {split.n:,} {split.split} cells " + ("; ".join(parts) if parts else "nothing could be measured")
    return Verdict(f"{headline}.", tuple(cards), tuple(_limits(evaluation, split, split_notes, grouped)))


def _wrong_card(accuracy: Estimate, value: float, n: int) -> Card:
    words = wrong_of_100(value, n)
    low, high = finite(accuracy.low), finite(accuracy.high)
    if words == "none":
        # The bootstrap cannot see errors that did not happen; the rule of three can (Hanley and Lippman-Hand 1983).
        detail = f"but up to {min(300 / n, 100):.1f} cannot be ruled out from {n:,} cells" if n else ""
    elif low is not None and high is not None:
        detail = f"95 % interval {100 * (1 - high):.1f}–{100 * (1 - low):.1f}, in this mix of classes"
    else:
        detail = "in this mix of classes"
    return Card("0" if words == "none" else words.removeprefix("about "), "of 100 cells named wrongly", detail)


def _weakest(split: SplitEvaluation, class_names: Sequence[str]) -> Card | None:
    measured = [(recall, one) for one in split.per_class if (recall := finite(one.recall.value)) is not None]
    if not measured:
        return None
    recall, one = min(measured, key=lambda item: item[0])
    if recall >= 1:
        return Card("none", "class is weakest", "every cell of every class was found")
    partner = next((taken for true, taken, _, _ in confusions(split, class_names) if true == one.name), None)
    spread = interval(one.recall)
    detail = f"{percent(recall)} of its cells found" + (f" ({spread})" if spread else "")
    return Card(one.name, "is the weakest class", detail + (f"; most often taken for {partner}" if partner else ""))


def _limits(
    evaluation: Evaluation, split: SplitEvaluation, split_notes: Sequence[str], grouped: bool | None
) -> list[str]:
    if split.split in SPLIT_NAMES:
        held_out = "" if split.split == "test" else f" There is no test split: these are the {split.split} cells."
        limits = [
            f"Measured on {split.n:,} {split.split} cells from the same source as the training cells; "
            f"says nothing about other laboratories, stains or microscopes.{held_out}"
        ]
        if grouped is False:
            limits.append(
                "Patients and slides were not known, so cells of one person may be among both the training and the "
                f"{split.split} cells; on new patients the results may be lower."
            )
    else:
        limits = [
            f"Measured on {split.n:,} cells of one source; says nothing about other laboratories, stains or "
            "microscopes. Cells that were also trained on would make the numbers too good."
        ]
    limits += [note if note.endswith((".", "!", "?")) else f"{note}." for note in split_notes]
    absent = [one.name for one in split.per_class if not one.support]
    few = [f"{one.name} ({one.support})" for one in split.per_class if 0 < one.support < FEW_CELLS]
    if absent:
        limits.append(f"Not measured at all, because no {split.split} cell has the class: {_listed(absent)}.")
    if few:
        limits.append(f"Rough, because of fewer than {FEW_CELLS} {split.split} cells: {_listed(few)}.")
    train = evaluation.splits.get("train")
    if train is not None and train is not split:
        own, other = (s.metrics.get("balanced_accuracy") for s in (train, split))
        low, high = finite(own.low if own else None), finite(other.high if other else None)
        if own and other and low is not None and high is not None and low - high > 0.02:
            limits.append(
                f"The model does clearly better on the cells it was trained on ({percent(own.value)} against "
                f"{percent(other.value)}): part of it was learnt by heart."
            )
    return limits


def _listed(names: Sequence[str], most: int = 12) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def comparison_verdict(comparison: Comparison) -> str:
    """Whether one of two runs is better, in one sentence or two."""
    difference = comparison.difference.get("balanced_accuracy") or comparison.difference.get("accuracy")
    low = finite(difference.low) if difference else None
    high = finite(difference.high) if difference else None
    if difference is None or low is None or high is None:
        return f"The two runs were compared on the same {comparison.n:,} cells; no interval could be made."
    what = "balanced accuracy" if "balanced_accuracy" in comparison.difference else "accuracy"
    spread = f"{points(difference.value)} points of {what}, 95 % interval {points(low)} to {points(high)}"
    if low > 0 or high < 0:
        better = "second" if low > 0 else "first"
        return f"On the same {comparison.n:,} cells the {better} run is better ({spread})."
    return (
        f"On the same {comparison.n:,} cells no difference can be told from chance ({spread}). "
        "That is not proof that the two are equal."
    )
