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

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hemascope.errors import ConfigError
from hemascope.names import suggestion

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
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the gate {path}: {error.strerror or error}.") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_BYTES:,} bytes, which no gate is.")
    try:
        values = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a TOML file: it is not UTF-8 text.") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is not a gate: its values are nested too deeply.") from error
    except ValueError as error:  # TOMLDecodeError is one; so is a number of thousands of digits
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
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
