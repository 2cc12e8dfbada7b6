"""What a search may choose: ranges and lists of values for dotted keys of the configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from hemascope.errors import ConfigError
from hemascope.search_results import Value

DIGITS = 3
"""Significant digits of a drawn number: finer steps of a rate or a decay are not what a network can tell apart."""

_REPEATS = 100
"""Draws in a row of points there are already, after which a space counts as exhausted."""

_NUMBERS = ConfigDict(strict=True, allow_inf_nan=False)


class Range(BaseModel):
    """Numbers from ``low`` to ``high``; ``log``: every decade is as likely; ``integer``: whole ones alone."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    low: float
    high: float
    log: bool = False
    integer: bool = False

    @model_validator(mode="after")
    def _sound(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, found {self.low:g} and {self.high:g}")
        if not math.isfinite(self.high - self.low):
            raise ValueError(f"the range is wider than a number can be, from {self.low:g} to {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range must begin above 0, found {self.low:g}")
        if self.integer and (self.low != int(self.low) or self.high != int(self.high)):
            raise ValueError("whole numbers need whole ends")
        return self

    def holds(self, value: object) -> bool:
        """Whether ``value`` is a number within the range."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (not self.integer or value == int(value))


Settings = Mapping[str, Value | list[Value]]
Space = Mapping[str, Range | list[Any]]

_RANGE = TypeAdapter(Range)
_CHOICES: TypeAdapter[list[Value | list[Value]]] = TypeAdapter(
    Annotated[list[Value | list[Value]], Field(min_length=1)], config=_NUMBERS
)


@dataclass(frozen=True)
class Point:
    """A place in the space, by its number in the order drawn."""

    number: int
    settings: Settings


def read_space(values: Mapping[str, Any]) -> Space:
    """The space of ``[search.space]``: a list of choices, or a table with low and high, for each key.

    Raises ConfigError, naming the key.
    """
    space: dict[str, Range | list[Any]] = {}
    for key, one in values.items():
        try:
            space[key] = _CHOICES.validate_python(one) if isinstance(one, list) else _RANGE.validate_python(one)
        except ValidationError as error:
            reason = _reason(one, error.errors(include_url=False)[0])
            raise ConfigError(f"search.space '{key}': {reason}.") from error
    return space


def draw(space: Space, rng: np.random.Generator) -> dict[str, Any]:
    """One point, a value for each key in the space's order."""
    return {key: _drawn(one, rng) for key, one in space.items()}


def draw_points(space: Space, count: int, rng: np.random.Generator) -> list[Point]:
    """``count`` points, each unlike the others; fewer where the space has no more."""
    found: dict[str, Point] = {}
    repeats = 0
    while len(found) < count and repeats < _REPEATS:
        settings = draw(space, rng)
        mark = json.dumps(settings)
        repeats = repeats + 1 if mark in found else 0
        found.setdefault(mark, Point(len(found), settings))
    return list(found.values())


def holds(space: Space, settings: Settings) -> bool:
    """Whether a point is of this space: its keys, each with a value that could be drawn."""
    return list(settings) == list(space) and all(
        one.holds(settings[key]) if isinstance(one, Range) else settings[key] in one for key, one in space.items()
    )


def rounded(one: Range, value: float) -> float | int:
    """``value`` with few digits, still inside the range."""
    if one.integer:
        return int(min(max(round(value), one.low), one.high))
    # As fine as the range is narrow: three digits of a number do not tell 0.9991 from 0.9994.
    places = DIGITS - 1 - math.floor(math.log10(one.high - one.low))
    if value != 0:
        places = max(places, DIGITS - 1 - math.floor(math.log10(abs(value))))
    return min(max(round(value, places), one.low), one.high)


def _drawn(one: Range | Sequence[Any], rng: np.random.Generator) -> Any:
    if not isinstance(one, Range):
        return one[int(rng.integers(len(one)))]
    # Half a step beyond the ends of whole numbers: else the ends would be half as likely as the rest.
    beyond = 0.5 if one.integer else 0.0
    low, high = one.low - beyond, one.high + beyond
    if one.log:
        return rounded(one, math.exp(rng.uniform(math.log(low), math.log(high))))
    return rounded(one, float(rng.uniform(low, high)))


def _reason(found: object, problem: ErrorDetails) -> str:
    """What is wrong with one key's entry, in words."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "value_error":
        reason = str(problem["ctx"]["error"])
    elif found == []:
        reason = "the list of choices is empty"
    elif isinstance(found, list):
        reason = "a choice is a finite number, a word, true or false, or a list of these; give the keys of a table one "
        reason += "by one, such as model.head.kind"
    elif not isinstance(found, dict):
        reason = "a list of choices, or a table { low, high, log, integer } is needed"
    elif problem["type"] == "missing":
        reason = f"'{key}' is missing from the table {{ low, high, log, integer }}"
    elif problem["type"] == "extra_forbidden":
        reason = f"there is no '{key}' in a range; its keys are low, high, log and integer"
    else:
        reason = f"'{key}' must be {'true or false' if key in ('log', 'integer') else 'a finite number'}"
    return reason
