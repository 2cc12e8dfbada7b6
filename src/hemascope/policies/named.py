"""The policies that come with hemascope: one TOML file each, found by name."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from hemascope.names import suggestion

_FOLDER = files("hemascope.policies") / "files"


@cache
def policy_names() -> tuple[str, ...]:
    """The names of the packaged policies, sorted."""
    return tuple(sorted(item.name.removesuffix(".toml") for item in _FOLDER.iterdir() if item.name.endswith(".toml")))


def named_policy(name: str) -> dict[str, Any]:
    """The packaged policy ``name`` as TOML gave it, not yet checked. Raises ValueError for an unknown name."""
    if name not in policy_names():
        if name.endswith(".toml"):  # a file is read where a configuration or a command names it, and nowhere else
            raise ValueError(f"a policy within a policy must be one that comes with hemascope, found {name!r}")
        raise ValueError(f"no policy is called {name!r}; {suggestion(name, policy_names())}")
    return tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
