"""Successive halving (Jamieson and Talwalkar 2016): many points with few epochs, and more for those that do well."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hemascope.config import RunConfig
from hemascope.search_results import Tried
from hemascope.study.plan import SearchPlan
from hemascope.study.space import Point, Space, draw_points

SMALLEST_EPOCHS = 0.05
"""No stage is cut to less than a twentieth of an epoch: then there is nothing to tell points apart by."""


def budgets(plan: SearchPlan) -> list[tuple[int, float]]:
    """Number of points and share of the epochs at each rung, from the smallest budget to the whole."""
    return [
        (max(1, plan.trials // plan.eta**rung), plan.eta ** float(rung + 1 - plan.rungs)) for rung in range(plan.rungs)
    ]


def shortened(config: RunConfig, budget: float) -> RunConfig:
    """``config`` with the epochs of its image stages cut to ``budget``, a share of the whole.

    Stages on saved features keep theirs: they cost next to nothing, and every budget begins with the same head.
    """
    if budget == 1:
        return config
    stages = []
    for stage in config.stages:
        if stage.kind == "images":
            epochs = min(stage.epochs, max(SMALLEST_EPOCHS, stage.epochs * budget))
            # A stage that ends before its first validation would hand on weights that nobody looked at.
            often = min(stage.validate_every, epochs)
            stages.append(stage.model_copy(update={"epochs": epochs, "validate_every": often}))
        else:
            stages.append(stage)
    return config.model_copy(update={"stages": tuple(stages)})


def halve(plan: SearchPlan, space: Space, carry_out: Callable[[Sequence[Point], int, float], Sequence[Tried]]) -> None:
    """Draw points and carry them out rung by rung; the best 1 / eta go on with eta times the epochs.

    carry_out  trains points, at a rung with a budget, and says how each did, in their order

    Each rung trains anew. A failed point goes no further, however many places there are; of equal ones the first
    drawn goes on.
    """
    points = draw_points(space, plan.trials, np.random.default_rng(plan.seed))
    # A small space may have fewer points than were asked for.
    for rung, (count, budget) in enumerate(budgets(plan.model_copy(update={"trials": len(points)}))):
        if not points:
            return
        found = carry_out(points[:count], rung, budget)
        ranked = sorted((-one.validation, one.number) for one in found if one.validation is not None)
        by_number = {point.number: point for point in points}
        points = [by_number[number] for _, number in ranked]
