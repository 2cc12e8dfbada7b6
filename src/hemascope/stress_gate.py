"""A gate: limits a model must reach in the stress test, stated in a TOML file beforehand.

bound = "low"             # the low end of each interval must reach the limit; "value" (default): the figure itself
clean = 0.985
mean = 0.97               # mean balanced accuracy over all corruptions and severities
stacked_1_2 = 0.95
stacked_2_4 = 0.85

[corruptions]             # means over the severities
jpeg = 0.95
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hemascope.errors import ConfigError
from hemascope.names import suggestion
from hemascope.toml_text import read_toml

MAX_BYTES = 100_000
Share = Annotated[float, Field(ge=0, le=1)]


class Gate(BaseModel):
    """Limits of balanced accuracy, each in 0 to 1; what is left out is not asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bound: Literal["value", "low"] = "value"
    clean: Share | None = None
    mean: Share | None = None
    stacked_1_2: Share | None = None
    stacked_2_4: Share | None = None
    corruptions: dict[str, Share] = {}

    def limits(self) -> dict[str, float]:
        """Every limit stated, by the name of what it is of."""
        own = {name: getattr(self, name) for name in ("clean", "mean", "stacked_1_2", "stacked_2_4")}
        return {name: value for name, value in {**own, **self.corruptions}.items() if value is not None}


def load_gate(path: Path) -> Gate:
    """The gate in a TOML file. Raises ConfigError, naming what is wrong, and for a gate without any limit."""
    values = read_toml(path, "gate", MAX_BYTES)
    try:
        gate = Gate.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_problem(error)}") from error
    if not gate.limits():
        raise ConfigError(f"{path} states no limit, so nothing could fail: give clean, mean or a corruption.")
    return gate


def _problem(error: ValidationError) -> str:
    """The first thing wrong with a gate: where, what may stand there, what stood there."""
    first = error.errors(include_url=False)[0]
    where, found = ".".join(str(part) for part in first["loc"]), first["input"]
    if first["type"] == "extra_forbidden":
        return f"no such key '{where}'; {suggestion(where, list(Gate.model_fields))}"
    if where == "bound":
        wanted = '"value" or "low"'
    elif where == "corruptions":
        wanted = "a table of names and limits"
    else:
        wanted = "a balanced accuracy from 0 to 1"
    return f"'{where}' must be {wanted}, found {str(found)[:60]}."
