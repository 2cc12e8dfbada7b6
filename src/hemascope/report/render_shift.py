"""The page of a shift card, made of its record alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hemascope.report.page import page, write_page
from hemascope.report.wording import Card, interval, number, percent
from hemascope.shift_results import Recommendation, ShiftCard

ADVICE: Mapping[Recommendation, str] = {
    "use": "These cells look like those the model was trained on. Use it as it is.",
    "review": "These cells differ from those the model was trained on. Use it only with more review.",
    "do_not_use": "Do not use this model on these cells as it is. Label some, recalibrate it or train it again.",
}

METHODS = {
    "average_confidence": "mean of the calibrated confidence",
    "atc": "share of the cells above a line of confidence (ATC, Garg et al. 2022)",
    "doc": "known accuracy less the fall of the confidence (DoC, Guillory et al. 2021)",
}


def render_shift(card: ShiftCard, folder: Path) -> Path:
    """Write ``report.html`` into ``folder`` and return its path. Raises OutputError where it cannot be written."""
    path = folder / "report.html"
    write_page(path, page("shift.html.j2", _view(card)))
    return path


def _view(card: ShiftCard) -> Mapping[str, object]:
    widest = max([one.distance for one in card.measures] + [one.usual for one in card.measures] + [1.0])
    return {
        "title": f"Shift card of {card.model}",
        "card": card,
        "advice": ADVICE[card.recommendation],
        "cards": _cards(card),
        "method": METHODS.get(card.method, card.method),
        "bars": [
            (one, round(100 * one.distance / widest, 1), round(100 * one.usual / widest, 1)) for one in card.measures
        ],
        "classes": list(zip(card.class_names, card.class_shares, strict=True)),
    }


def _cards(card: ShiftCard) -> list[Card]:
    found = []
    if card.expected_accuracy is not None:
        known = "" if card.known_accuracy is None else f" · was {percent(card.known_accuracy)}"
        found.append(
            Card(
                percent(card.expected_accuracy.value),
                "accuracy to be expected",
                f"{interval(card.expected_accuracy)}{known}",
            )
        )
    found.append(
        Card(
            percent(card.out_of_distribution.value),
            "unlike the training cells",
            f"{interval(card.out_of_distribution)} · {percent(card.false_alarm)} is usual",
        )
    )
    found.append(Card(percent(card.marked.value), "marked for review", interval(card.marked) or ""))
    found.append(
        Card(
            number(card.embedding_distance),
            "distance of the features",
            f"below {number(card.embedding_usual)} is chance",
        )
    )
    return found
