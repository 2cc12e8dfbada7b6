"""Search the fields of a configuration within a budget: successive halving, or Optuna; every trial is kept.

Points are compared by the balanced accuracy of validation cells alone, for a test part that chose could not test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hemascope.atomic import write_json
from hemascope.config import RunConfig
from hemascope.config_files import compose_config
from hemascope.errors import ConfigError
from hemascope.manifest import now
from hemascope.search_results import Engine, SearchResult, Tried
from hemascope.study.plan import MeasurePlan, SearchPlan, StudyPlan, Trial, make_trial
from hemascope.study.space import Space, draw, read_space

Execute = Callable[[Sequence[Trial]], Mapping[str, Path]]
"""Carries out trials; the run folders by fingerprint, without those that failed."""

Score = Callable[[Path], float]
"""Balanced accuracy of a finished run's validation cells."""

SMALLEST_EPOCHS = 0.05
"""No stage is cut to less than a twentieth of an epoch: then there is nothing to tell points apart by."""


@dataclass(frozen=True)
class Point:
    """A place in the space, by its number in the order drawn."""

    number: int
    settings: Mapping[str, Any]


def search(
    plan: StudyPlan,
    *,
    execute: Execute,
    score: Score,
    cells_fingerprint: str,
    cells: dict[str, int],
    output: Path,
    engine: Engine = "halving",
    jobs: int = 1,
    command: str = "",
) -> SearchResult:
    """Search as ``plan.search`` says; ``output`` (search.json) is written after every round, so nothing tried is lost.

    jobs  points Optuna proposes at once, before it hears how any of them did

    The same plan proposes the same points, so a search that was killed finds its finished runs again. Raises
    ConfigError for a space that is none, MissingExtraError for Optuna where it is not installed.
    """
    wanted = _wanted(plan)
    space = read_space(wanted.space)
    _check(plan, space)
    tried: list[Tried] = []

    def carry_out(points: Sequence[Point], rung: int, budget: float) -> list[Tried]:
        trials = [_trial(plan, point, rung, budget, cells_fingerprint) for point in points]
        runs = execute(trials)
        for point, trial in zip(points, trials, strict=True):
            run = runs.get(trial.fingerprint)
            tried.append(
                Tried(
                    number=point.number,
                    rung=rung,
                    budget=budget,
                    settings=dict(point.settings),
                    validation=None if run is None else score(run),
                    run="" if run is None else run.name,
                )
            )
        write_json(output, _result(plan, engine, tried, cells, command).model_dump(mode="json"))
        return tried[-len(points) :]

    if engine == "optuna":
        from hemascope.study.optuna_search import propose_and_tell

        propose_and_tell(wanted, space, jobs, lambda points: carry_out(points, wanted.rungs - 1, 1.0))
    else:
        _halve(wanted, space, carry_out)
    return _result(plan, engine, tried, cells, command)


def budgets(plan: SearchPlan) -> list[tuple[int, float]]:
    """Number of points and share of the epochs at each rung, from the smallest budget to the whole."""
    found = []
    for rung in range(plan.rungs):
        found.append((max(1, plan.trials // plan.eta**rung), plan.eta ** float(rung + 1 - plan.rungs)))
    return found


def shortened(config: RunConfig, budget: float) -> RunConfig:
    """``config`` with the epochs of its image stages cut to ``budget``.

    Stages on saved features keep theirs: they cost next to nothing, and every budget begins with the same head.
    """
    stages = tuple(
        stage
        if stage.kind == "features" or budget == 1
        else stage.model_copy(
            update={
                "epochs": max(SMALLEST_EPOCHS, stage.epochs * budget),
                "validate_every": max(SMALLEST_EPOCHS, min(stage.validate_every, stage.epochs * budget)),
            }
        )
        for stage in config.stages
    )
    return config.model_copy(update={"stages": stages})


def _halve(plan: SearchPlan, space: Space, carry_out: Callable[[Sequence[Point], int, float], list[Tried]]) -> None:
    """Successive halving (Jamieson and Talwalkar 2016): the best 1 / eta go on with eta times the epochs.

    Each rung trains anew. A failed run ranks last; of equal ones the first drawn goes on.
    """
    rng = np.random.default_rng(plan.seed)
    points = [Point(number, draw(space, rng)) for number in range(plan.trials)]
    for rung, (count, budget) in enumerate(budgets(plan)):
        found = carry_out(points[:count], rung, budget)
        places = sorted(range(len(found)), key=lambda place: (-(_or_last(found[place])), points[place].number))
        points = [points[place] for place in places]


def _or_last(one: Tried) -> float:
    return -1.0 if one.validation is None else one.validation


def _trial(plan: StudyPlan, point: Point, rung: int, budget: float, cells_fingerprint: str) -> Trial:
    seed = plan.seeds[0]
    settings = {**plan.set, **point.settings, "seed": seed}
    config = shortened(compose_config(recipe=plan.recipe, table=plan.config, settings=settings), budget)
    return make_trial(plan.name, f"p{point.number}r{rung}", seed, config, MeasurePlan(), cells_fingerprint)


def _check(plan: StudyPlan, space: Space) -> None:
    """That both ends of every range, and every choice, are configurations. Raises ConfigError."""
    for key, one in space.items():
        values = one if isinstance(one, list) else [draw({key: one}, np.random.default_rng(0))[key], one.low, one.high]
        for value in values:
            whole = not isinstance(one, list) and one.integer
            settings = {**plan.set, key: int(value) if whole else value}
            compose_config(recipe=plan.recipe, table=plan.config, settings=settings)


def _wanted(plan: StudyPlan) -> SearchPlan:
    if plan.search is None:
        raise ConfigError(f"the study {plan.name} has no [search]: it lists variants, which hemascope study run takes.")
    return plan.search


def _result(
    plan: StudyPlan, engine: Engine, tried: Sequence[Tried], cells: dict[str, int], command: str
) -> SearchResult:
    whole = [one for one in tried if one.budget == 1 and one.validation is not None]
    return SearchResult(
        name=plan.name,
        title=plan.title,
        question=plan.question,
        engine=engine,
        command=command,
        cells=cells,
        trials=tuple(tried),
        best=max(whole, key=lambda one: (_or_last(one), -one.number), default=None),
        created=now(),
    )
