"""The same space through Optuna's tree of Parzen estimators (Akiba et al. 2019; Bergstra et al. 2011)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from hemascope.errors import MissingExtraError
from hemascope.search_results import Tried
from hemascope.study.plan import SearchPlan
from hemascope.study.space import Point, Range, Settings, Space, rounded

MISSING = "searching with Optuna needs it: pip install 'hemascope[search]'"

_DRAWN_AT_FIRST = 4
"""Points drawn by chance before the sampler begins to learn; a small budget cannot afford its usual ten."""


def propose_and_tell(
    plan: SearchPlan,
    space: Space,
    at_once: int,
    carry_out: Callable[[Sequence[Point]], Sequence[Tried]],
    earlier: Sequence[Point] = (),
) -> None:
    """Propose ``plan.trials`` points, ``at_once`` at a time, all with the full budget, and tell how they did.

    carry_out  trains points and says how each did, in their order
    earlier    points of a search that was stopped: carried out first, of which what is finished is kept

    What is proposed depends on the seed and on what was told, and on nothing else: a search that is begun again from
    its record goes on as if it had never been stopped, with other numbers at once as well. Raises MissingExtraError.
    """
    if find_spec("optuna") is None:
        raise MissingExtraError(MISSING)
    told = list(carry_out(earlier)) if earlier else []
    while len(told) < plan.trials:
        count = min(max(1, at_once), plan.trials - len(told))
        proposed = _proposals(plan, space, told, count)
        told += carry_out([Point(len(told) + place, settings) for place, settings in enumerate(proposed)])


def _proposals(plan: SearchPlan, space: Space, told: Sequence[Tried], count: int) -> list[Settings]:
    """``count`` points for a study that knows ``told``."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # A new sampler each time, for the state of an old one is not in the record. The number told is part of its seed:
    # else it would draw its first points again.
    seed = int(np.random.SeedSequence([plan.seed, len(told)]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Points asked for together know nothing of each other: the liar keeps them apart (Ginsbourger et al. 2010).
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=count > 1, n_startup_trials=_DRAWN_AT_FIRST)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {key: _distribution(one) for key, one in space.items()}
    for one in told:
        failed = one.validation is None
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE,
                params=_parameters(space, one.settings),
                distributions=distributions,
                value=one.validation,
            )
        )
    return [_settings(space, study.ask(distributions).params) for _ in range(count)]


def _distribution(one: Range | list[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(one, Range):
        # By place in the list: a choice may be a list, which Optuna does not take.
        return CategoricalDistribution(tuple(range(len(one))))
    if one.integer:
        return IntDistribution(int(one.low), int(one.high), log=one.log)
    return FloatDistribution(one.low, one.high, log=one.log)


def _parameters(space: Space, settings: Settings) -> dict[str, Any]:
    return {key: settings[key] if isinstance(one, Range) else one.index(settings[key]) for key, one in space.items()}


def _settings(space: Space, parameters: dict[str, Any]) -> Settings:
    return {
        key: rounded(one, parameters[key]) if isinstance(one, Range) else one[parameters[key]]
        for key, one in space.items()
    }
