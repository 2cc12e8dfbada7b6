"""From what pydantic found wrong in a policy to one sentence: where, what may stand there, what stood there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from hemascope.names import suggestion
from hemascope.policies.nodes import NODES, Fill, Policy

MAY_BE = {
    "name": "text of 1 to 60 letters, digits, dots, dashes and underscores",
    "description": "text of at most 2,000 characters",
    "steps": "a list of tables",
    "sequence": "a list of tables",
    "of": "a list of at least one table",
    "operation": "the name of an operation",
    "strength": "a number, or two from low to high",
    "either_sign": "true or false",
    "replace": "true or false",
    "probability": "a number from 0 to 1",
    "fill": f"one of {', '.join(get_args(Fill))}",
    "order": "one of given, random",
    "choose": "a whole number from 0 to 64, or two from low to high",
    "weights": "a list of numbers from 0.000001 to 1,000,000",
    "augmix": "a whole number from 1 to 8",
    "depth": "a whole number from 1 to 8, or two from low to high",
    "alpha": "a number from 0.01 to 10",
}
"""What each key of a policy may hold, in words; a test holds the table to the classes."""

_LONGEST = 60  # characters of a found value that a sentence repeats


def policy_problem(problem: ErrorDetails, location: Sequence[int | str], prefix: str = "") -> str:
    """One sentence about ``problem``, which lies at ``location`` within a policy.

    prefix  the policy's own place, with a dot at its end, put before every key
    """
    section: type[BaseModel] = Policy
    keys: list[str] = []
    after_index = False
    for part in location:
        if after_index and part in NODES:  # pydantic says here which kind of node it took the table for
            section, after_index = NODES[str(part)], False
            continue
        keys.append(str(part))
        after_index = isinstance(part, int)
    where = f"{prefix}{'.'.join(keys)}"
    kind, found = problem["type"], problem["input"]
    if kind == "value_error":  # the classes' own checks already say it in words
        return ended(f"{where}: {problem['ctx']['error']}")
    if kind == "missing" and not after_index:
        return f"'{where}' must be given."
    if kind == "extra_forbidden":
        return f"no such key '{where}'; {suggestion(keys[-1], list(section.model_fields))}"
    if kind == "policy_node":
        return f"'{where}' {problem['msg']}, found {_spelt(found)}."
    if kind == "missing":  # the second of two numbers
        where = where.rpartition(".")[0]
    words = MAY_BE[next(key for key in reversed(keys) if key in MAY_BE)]
    return f"'{where}' must be {words}, found {_spelt(found)}."


def ended(sentence: str) -> str:
    """``sentence`` with a full stop, where it has no end yet."""
    return sentence if sentence.endswith((".", "?")) else f"{sentence}."


def _spelt(value: Any) -> str:
    if isinstance(value, dict):
        return f"a table with {', '.join(str(key) for key in value)}"[:_LONGEST] if value else "an empty table"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
