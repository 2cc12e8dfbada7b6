"""The average of several networks' weights: one network, at the price of one (Wortsman et al. 2022).

Running statistics of batch norms are averaged with the rest. That is exact for the mean over the ingredients' own
activations, not for the soup's; networks fine-tuned from one start lie close enough for it to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hemascope.errors import UsageError
from hemascope.models.bundle import ModelBundle

State = Mapping[str, Tensor]


def check_ingredients(bundles: Sequence[ModelBundle]) -> None:
    """Raise UsageError unless there are two or more, of one network, one list of classes and one preparation."""
    if len(bundles) < 2:
        raise UsageError(f"a soup needs at least two models, found {len(bundles)}")
    first = bundles[0]
    for other in bundles[1:]:
        for what, mine, its in (
            (
                "network",
                first.config.model_copy(update={"weights": ""}),
                other.config.model_copy(update={"weights": ""}),
            ),
            ("list of classes", first.class_names, other.class_names),
            ("preparation", first.preparation.describe(), other.preparation.describe()),
        ):
            if mine != its:
                raise UsageError(
                    f"a soup is of models alike; {other.weights.parent} has another {what} than {first.weights.parent}."
                )


def averaged(states: Sequence[State]) -> dict[str, Tensor]:
    """The mean of every floating tensor, running statistics of batch norms included; whole numbers of the first."""
    first = states[0]
    return {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(value.dtype)
        if value.is_floating_point()
        else value.clone()
        for name, value in first.items()
    }


def greedy(states: Sequence[State], score: Callable[[State], float]) -> tuple[list[int], float, list[float]]:
    """Which ingredients to average: from the best on, each is kept if the soup does not score worse with it.

    score  of a state on the validation cells, higher is better

    Returns their numbers, best first, the soup's score, which is never below the best ingredient's, and the score of
    each ingredient alone.
    """
    alone = [score(state) for state in states]
    order = sorted(range(len(states)), key=lambda number: -alone[number])
    kept, best = [order[0]], alone[order[0]]
    for number in order[1:]:
        tried = score(averaged([states[one] for one in [*kept, number]]))
        if tried >= best:
            kept, best = [*kept, number], tried
    return kept, best, alone
