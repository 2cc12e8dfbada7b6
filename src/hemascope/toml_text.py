"""TOML files from outside as values: limited in size, and each thing that can be wrong one sentence."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hemascope.errors import ConfigError


def read_toml(path: Path, what: str, limit: int) -> dict[str, Any]:
    """The values in the file at ``path``, ``what`` it should be named in the sentence of a ConfigError.

    limit  bytes beyond which nothing is read
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the {what} {path}: {error.strerror or error}.") from error
    if len(content) > limit:
        raise ConfigError(f"{path} is larger than {limit:,} bytes, which no {what} is.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a TOML file: it is not UTF-8 text.") from error
    return parse_toml(text, str(path), what)


def parse_toml(text: str, origin: str, what: str) -> dict[str, Any]:
    """The values in ``text``, which came from ``origin``. Raises ConfigError."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{origin} is not a {what}: its values are nested too deeply.") from error
    except ValueError as error:  # TOMLDecodeError is one; so is a number of thousands of digits
        raise ConfigError(f"{origin} is not valid TOML: {error}.") from error
