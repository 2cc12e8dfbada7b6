"""The policies that come with hemascope: one TOML file each, found by name."""

from __future__ import annotations

import difflib
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

_FOLDER = files("hemascope.policies") / "files"


@cache
def policy_names() -> tuple[str, ...]:
    """The names of the packaged policies, sorted."""
    return tuple(sorted(item.name.removesuffix(".toml") for item in _FOLDER.iterdir() if item.name.endswith(".toml")))


def named_policy(name: str) -> dict[str, Any]:
    """The packaged policy ``name`` as TOML gave it, not yet checked. Raises ValueError for an unknown name."""
    if name not in policy_names():
        near = difflib.get_close_matches(name, policy_names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(policy_names())}, or a .toml file."
        raise ValueError(f"no policy is called {name!r}; {hint}")
    return tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
