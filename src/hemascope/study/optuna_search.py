"""The same space through Optuna's tree of Parzen estimators (Akiba et al. 2019; Bergstra et al. 2011)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from hemascope.errors import MissingExtraError
from hemascope.search_results import Tried
from hemascope.study.plan import SearchPlan
from hemascope.study.search import Point
from hemascope.study.space import Range, Space, rounded

MISSING = "searching with Optuna needs it: pip install 'hemascope[search]'"


def propose_and_tell(
    plan: SearchPlan, space: Space, at_once: int, carry_out: Callable[[Sequence[Point]], Sequence[Tried]]
) -> None:
    """Propose ``plan.trials`` points, ``at_once`` at a time, all with the full budget, and tell how they did.

    Nothing is kept but the trials' own record: the sampler is seeded and hears the same, so it proposes the same again.
    """
    if find_spec("optuna") is None:
        raise MissingExtraError(MISSING)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Points asked for together know nothing of each other: the liar keeps them apart (Ginsbourger et al. 2010).
    sampler = optuna.samplers.TPESampler(seed=plan.seed, constant_liar=at_once > 1, n_startup_trials=max(4, at_once))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for start in range(0, plan.trials, at_once):
        asked = [study.ask() for _ in range(min(at_once, plan.trials - start))]
        points = [Point(start + place, _suggested(trial, space)) for place, trial in enumerate(asked)]
        for trial, found in zip(asked, carry_out(points), strict=True):
            if found.validation is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, found.validation)


def _suggested(trial: Any, space: Space) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, one in space.items():
        if not isinstance(one, Range):
            # By place in the list: a choice may be a list, which Optuna does not take.
            settings[key] = one[trial.suggest_int(key, 0, len(one) - 1)]
        elif one.integer:
            settings[key] = trial.suggest_int(key, int(one.low), int(one.high), log=one.log)
        else:
            settings[key] = rounded(one, trial.suggest_float(key, one.low, one.high, log=one.log))
    return settings
