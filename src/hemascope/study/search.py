"""Search the fields of a configuration within a budget: successive halving, or Optuna; every trial is kept.

Points are compared by the balanced accuracy of validation cells alone, for a test part that chose could not test.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from hemascope.atomic import write_json
from hemascope.config_files import compose_config
from hemascope.errors import ConfigError
from hemascope.manifest import now
from hemascope.progress import SILENT, Progress
from hemascope.search_results import Engine, SearchResult, Tried
from hemascope.study.halving import halve, shortened
from hemascope.study.plan import MeasurePlan, SearchPlan, StudyPlan, Trial, make_trial
from hemascope.study.space import Point, Settings, Space, draw, holds, read_space

Execute = Callable[[Sequence[Trial]], Mapping[str, Path]]
"""Carries out trials; the run folders by fingerprint, without those that failed."""

Score = Callable[[Path], float]
"""Balanced accuracy of a finished run's validation cells."""


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
    progress: Progress = SILENT,
) -> SearchResult:
    """Search as ``plan.search`` says; ``output`` (search.json) is written before and after every round.

    jobs  points Optuna proposes at once, before it hears how any of them did

    A search that was killed and is begun again finds its finished runs by fingerprint: halving draws the same points,
    and Optuna is told what the record holds. A point whose settings together are no configuration failed, as one
    whose run did. Raises ConfigError for a space that is none, MissingExtraError for Optuna where it is not installed.
    """
    wanted = _wanted(plan)
    space = read_space(wanted.space)
    _check(plan, space)
    last = wanted.rungs - 1
    earlier = _earlier(plan, wanted, space, cells_fingerprint, output, progress) if engine == "optuna" else []
    tried: list[Tried] = []

    def carry_out(points: Sequence[Point], rung: int, budget: float) -> list[Tried]:
        begun = len(tried)
        planned = [_planned(plan, point, rung, budget, cells_fingerprint) for point in points]
        tried.extend(one for one, _ in planned)
        write_json(output, _result(plan, engine, tried, cells, command).model_dump(mode="json"))
        trials = [trial for _, trial in planned if trial is not None]
        runs = execute(trials) if trials else {}
        tried[begun:] = [
            one if trial is None else _heard(one, runs.get(trial.fingerprint), score) for one, trial in planned
        ]
        write_json(output, _result(plan, engine, tried, cells, command).model_dump(mode="json"))
        scores = [one.validation for one in tried[begun:] if one.validation is not None]
        found = f"the best at {max(scores):.3f} on validation cells" if scores else "all failed"
        progress.note(f"{len(points):,} points with {budget:.0%} of the epochs: {found}.")
        return tried[begun:]

    if engine == "optuna":
        from hemascope.study.optuna_search import propose_and_tell

        propose_and_tell(wanted, space, jobs, lambda points: carry_out(points, last, 1.0), earlier)
    else:
        halve(wanted, space, carry_out)
    return _result(plan, engine, tried, cells, command)


def _planned(
    plan: StudyPlan, point: Point, rung: int, budget: float, cells_fingerprint: str
) -> tuple[Tried, Trial | None]:
    """A point as it stands before its run, and the run; None where its settings together are no configuration."""
    one = Tried(number=point.number, rung=rung, budget=budget, settings=dict(point.settings), status="running")
    try:
        trial = _trial(plan, point, rung, budget, cells_fingerprint)
    except ConfigError as error:
        return one.model_copy(update={"status": "failed", "problem": str(error)}), None
    return one.model_copy(update={"run": trial.folder}), trial


def _heard(one: Tried, run: Path | None, score: Score) -> Tried:
    """The same trial after its run, None where that failed."""
    if run is None:
        return one.model_copy(update={"status": "failed"})
    found = score(run)
    heard = one.model_copy(update={"run": run.name, "seconds": _seconds(run)})
    if not math.isfinite(found):
        return heard.model_copy(update={"status": "failed", "problem": "its validation cells give no score."})
    return heard.model_copy(update={"status": "finished", "validation": found})


def _seconds(run: Path) -> float | None:
    """How long a run was trained, as its manifest says."""
    try:
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    timing = manifest.get("timing") if isinstance(manifest, dict) else None
    total = timing.get("total") if isinstance(timing, dict) else None
    return float(total) if isinstance(total, int | float) and math.isfinite(total) else None


def _trial(plan: StudyPlan, point: Point, rung: int, budget: float, cells_fingerprint: str) -> Trial:
    seed = plan.seeds[0]
    settings = {**plan.set, **point.settings, "seed": seed}
    config = shortened(compose_config(recipe=plan.recipe, table=plan.config, settings=settings), budget)
    return make_trial(plan.name, f"p{point.number}r{rung}", seed, config, MeasurePlan(), cells_fingerprint)


def _earlier(
    plan: StudyPlan, wanted: SearchPlan, space: Space, cells_fingerprint: str, output: Path, progress: Progress
) -> list[Point]:
    """The points of a record that this search would carry out with the same runs, up to the first of which not."""
    if not output.exists():
        return []
    try:
        record = SearchResult.model_validate_json(output.read_bytes())
    except (OSError, ValidationError):
        progress.warn(f"{output} cannot be read and is made anew; runs that are finished are kept.")
        return []
    points: list[Point] = []
    for place, one in enumerate(record.trials[: wanted.trials]):
        point = Point(place, one.settings)
        if record.engine != "optuna" or one.number != place or not holds(space, one.settings):
            break
        _, trial = _planned(plan, point, one.rung, one.budget, cells_fingerprint)
        if one.budget != 1 or one.run.rpartition(".")[2] != ("" if trial is None else trial.fingerprint):
            break
        points.append(point)
    return points


def _check(plan: StudyPlan, space: Space) -> None:
    """That both ends of every range, and every choice, are configurations, and no field has two keys.

    Raises ConfigError.
    """
    if "seed" in space:
        raise ConfigError("search.space 'seed': a seed is not chosen; every run has the first of the study's seeds.")
    for key, one in space.items():
        values = one if isinstance(one, list) else [draw({key: one}, np.random.default_rng(0))[key], one.low, one.high]
        for value in values:
            whole = not isinstance(one, list) and one.integer
            settings: Settings = {**plan.set, key: int(value) if whole else value}
            compose_config(recipe=plan.recipe, table=plan.config, settings=settings)
    stages = [stage.name for stage in plan.base_config().stages]
    for first, second in itertools.combinations(space, 2):
        one_way, other_way = sorted([_by_name(first, stages), _by_name(second, stages)])
        if one_way == other_way or other_way.startswith(f"{one_way}."):
            raise ConfigError(f"search.space: '{first}' and '{second}' set the same field; leave one of them out.")


def _by_name(key: str, stages: Sequence[str]) -> str:
    """``stages.1.epochs`` as ``stages.finetune.epochs``; other keys as they are."""
    parts = key.split(".")
    if parts[0] == "stages" and len(parts) > 1 and parts[1].isdigit():
        parts[1] = stages[int(parts[1])]
    return ".".join(parts)


def _wanted(plan: StudyPlan) -> SearchPlan:
    if plan.search is None:
        raise ConfigError(f"the study {plan.name} has no [search]: it lists variants, which hemascope study run takes.")
    return plan.search


def _result(
    plan: StudyPlan, engine: Engine, tried: Sequence[Tried], cells: dict[str, int], command: str
) -> SearchResult:
    whole = [(one.validation, -one.number, one) for one in tried if one.budget == 1 and one.validation is not None]
    return SearchResult(
        name=plan.name,
        title=plan.title,
        question=plan.question,
        engine=engine,
        command=command,
        cells=cells,
        trials=tuple(tried),
        best=max(whole, key=lambda found: found[:2])[2] if whole else None,
        created=now(),
    )
