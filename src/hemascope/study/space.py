"""What a search may choose: ranges and lists of values for dotted keys of the configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from hemascope.errors import ConfigError

DIGITS = 3
"""Significant digits of a drawn number: finer steps of a rate or a decay are not what a network can tell apart."""


class Range(BaseModel):
    """Numbers from ``low`` to ``high``; ``log``: every decade is as likely; ``integer``: whole ones alone."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    low: float
    high: float
    log: bool = False
    integer: bool = False

    @model_validator(mode="after")
    def _sound(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, found {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range must begin above 0, found {self.low:g}")
        if self.integer and (self.low != int(self.low) or self.high != int(self.high)):
            raise ValueError("whole numbers need whole ends")
        return self


Choices = Annotated[list[Any], Field(min_length=1)]
Space = Mapping[str, Range | list[Any]]

_SPACE: TypeAdapter[dict[str, Range | list[Any]]] = TypeAdapter(dict[str, Range | Choices])


def read_space(values: Mapping[str, Any]) -> Space:
    """The space of ``[search.space]``: a list of choices, or a table with low and high, for each key.

    Raises ConfigError.
    """
    try:
        return _SPACE.validate_python(dict(values))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = problem["loc"][0] if problem["loc"] else "search.space"
        reason = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else "a list of choices, or a table "
        if problem["type"] != "value_error":
            reason += "{ low, high, log, integer } is needed"
        raise ConfigError(f"search.space '{key}': {reason}.") from error


def draw(space: Space, rng: np.random.Generator) -> dict[str, Any]:
    """One point, a value for each key in the space's order."""
    return {key: _drawn(one, rng) for key, one in space.items()}


def rounded(one: Range, value: float) -> float | int:
    """``value`` with few digits, still inside the range."""
    if one.integer:
        return int(min(max(round(value), one.low), one.high))
    short = 0.0 if value == 0 else round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))
    return min(max(short, one.low), one.high)


def _drawn(one: Range | Sequence[Any], rng: np.random.Generator) -> Any:
    if not isinstance(one, Range):
        return one[int(rng.integers(len(one)))]
    if one.log:
        return rounded(one, float(np.exp(rng.uniform(np.log(one.low), np.log(one.high)))))
    return rounded(one, float(rng.uniform(one.low, one.high)))
