"""What to do, said plainly, by rules that can be read."""

from __future__ import annotations

from hemascope.report.wording import percent
from hemascope.shift_results import Recommendation, ShiftCard

LARGE = 1.0
"""Deviations by which a measure may lie off before it is called a large shift: half of the cells are then where one in
six of the training cells was."""

MOST_OUTSIDE = 0.5
"""Share out of distribution from which on the cells are another kind of cells."""

SOME_OUTSIDE = 5.0
"""Times the false alarms from which on more must be reviewed."""

GRAVE_FALL = 0.08
LARGEST_FALL = 0.02
"""Of the accuracy to be expected below the known one: a grave one, and one that asks for more review."""


def recommend(card: ShiftCard) -> tuple[Recommendation, tuple[str, ...]]:
    """``do_not_use``, ``review`` or ``use``, with the reasons in words, gravest first.

    Not to be used: MOST_OUTSIDE of the cells out of distribution, or an accuracy expected to fall by GRAVE_FALL. To be
    reviewed more: SOME_OUTSIDE times as many out of distribution as usual, an expected fall of more than LARGEST_FALL
    that its interval does not explain, or a measure more than LARGE deviations off.
    """
    grave, light = [], []
    outside = card.out_of_distribution.value or 0.0
    if outside >= MOST_OUTSIDE:
        grave.append(
            f"{percent(outside)} of the cells are unlike the training cells ({percent(card.false_alarm)} is usual)."
        )
    elif outside >= SOME_OUTSIDE * card.false_alarm and (card.out_of_distribution.low or 0) > card.false_alarm:
        light.append(
            f"{percent(outside)} of the cells are unlike the training cells ({percent(card.false_alarm)} is usual)."
        )
    expected = card.expected_accuracy
    if expected is not None and expected.value is not None and card.known_accuracy is not None:
        known = card.known_accuracy
        if known - expected.value >= GRAVE_FALL:
            grave.append(f"An accuracy of {percent(expected.value)} is to be expected; it was {percent(known)}.")
        elif known - expected.value > LARGEST_FALL and (expected.high or 1.0) < known:
            light.append(f"An accuracy of {percent(expected.value)} is to be expected; it was {percent(known)}.")
    far = [one for one in card.measures if one.shifted and one.distance > LARGE]
    if far:
        named = ", ".join(
            f"{one.title} ({one.distance:.1f} deviations)" for one in sorted(far, key=lambda m: -m.distance)
        )
        light.append(f"The pictures differ: {named}.")
    if grave:
        return "do_not_use", (*grave, *light)
    if light:
        return "review", tuple(light)
    return "use", ("Nothing measured differs by more than chance or a laboratory's usual spread would explain.",)
