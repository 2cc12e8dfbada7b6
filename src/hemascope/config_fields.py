"""What the configuration offers: each field's key, type, range, default and meaning, read off the classes.

``hemascope config``, ``docs/config.md`` and the sentences about wrong values are all made from here, so they cannot
disagree with what is accepted.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo as PydanticField

from hemascope.config import RunConfig
from hemascope.policies import Policy

Section = type[BaseModel]
"""One table of the configuration."""

_WORDS: dict[object, str] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    Policy: "policy's name, .toml file or table",
}
_LONGEST = 60  # characters of a found value that a sentence repeats
_DEEPEST = 8  # lists within lists that it follows


@dataclass(frozen=True)
class FieldInfo:
    """One field. ``key`` is dotted, with N for an entry of a list; ``default`` is TOML, "" where there is none."""

    key: str
    type: str
    default: str
    description: str
    constraints: str


def list_fields() -> list[FieldInfo]:
    """Every field that holds a value, in the order of the classes."""
    return [
        FieldInfo(key, field_type(field), _default(field), field.description or "", _constraints(field))
        for key, field in _walk(RunConfig, "")
    ]


def list_sections() -> dict[str, str]:
    """Every table's key with its meaning, "" for the top."""
    found = {"": (RunConfig.__doc__ or "").strip()}
    _sections(RunConfig, "", found)
    return found


def leaf_keys() -> list[str]:
    """The dotted keys of all fields that hold a value; list entries as 0, ready to be typed."""
    return [key.replace(".N.", ".0.") for key, _ in _walk(RunConfig, "")]


def nested(field: PydanticField) -> Section | None:
    """The table class behind a field that holds a table or a list of tables, else None."""
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return None if getattr(candidate, "one_value", False) else candidate
    return None


def field_type(field: PydanticField) -> str:
    """The type of a field's value in words."""
    return _type_words(field.annotation)


def allowed_values(location: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """What the field at ``location`` may hold: in words, and as choices where it is one of a few.

    Words are "" where the location is no field.
    """
    section: Section = RunConfig
    field: PydanticField | None = None
    index = False
    for part in location:
        if field is not None and part.isdigit():
            index = True
            continue
        field = section.model_fields.get(part)
        if field is None:
            return "", ()
        index = False
        section = nested(field) or section
    if field is None:
        return "", ()
    inner = nested(field)
    if inner is not None:
        is_list = get_origin(field.annotation) is tuple
        words = "a table" if index or not is_list else " ".join(filter(None, ["a list of tables", _constraints(field)]))
        return words, ()
    choices = tuple(str(choice) for choice in _choices(get_args(field.annotation)[0] if index else field.annotation))
    if choices:
        return f"one of {', '.join(choices)}", choices
    words = field_type(field).removesuffix(" or none")
    if index:
        one = f"a {words.removeprefix('list of ').removesuffix('s')}"
        item = get_args(field.annotation)[0]
        limits = [_constraints(rule) for rule in get_args(item)[1:]] if get_origin(item) is Annotated else []
        return " ".join(filter(None, [one, *limits])), ()
    article = "" if words.startswith(("text", "true")) else "a "
    return " ".join(filter(None, [article + words, _constraints(field)])), ()


def spell(value: object, depth: int = 0) -> str:
    """A found value as a person would type it, cut short where it is long or nested (``depth`` lists around it)."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, list | tuple):
        text = "[…]" if depth > _DEEPEST else "[" + ", ".join(spell(item, depth + 1) for item in value[:10]) + "]"
    else:
        text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _walk(section: Section, prefix: str) -> Iterator[tuple[str, PydanticField]]:
    for name, field in section.model_fields.items():
        inner = nested(field)
        if inner is None:
            yield f"{prefix}{name}", field
        else:
            yield from _walk(inner, f"{prefix}{name}{_list_mark(field)}.")


def _sections(section: Section, prefix: str, found: dict[str, str]) -> None:
    for name, field in section.model_fields.items():
        inner = nested(field)
        if inner is not None:
            key = f"{prefix}{name}{_list_mark(field)}"
            found[key] = field.description or ""
            _sections(inner, f"{key}.", found)


def _list_mark(field: PydanticField) -> str:
    return ".N" if get_origin(field.annotation) is tuple else ""


def _choices(annotation: Any) -> tuple[object, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return ()


def _type_words(annotation: Any) -> str:
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in inside)
    if origin in (Union, types.UnionType):
        known = [_type_words(part) for part in inside if part is not type(None)]
        return " or ".join([*known, "none"])
    if origin is tuple:
        if choices := _choices(inside[0]):
            return f"list of any of {', '.join(str(choice) for choice in choices)}"
        return f"list of {_type_words(inside[0])}s"
    if origin is Annotated:
        return _type_words(inside[0])
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: PydanticField) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, Policy):
        value = value.name
    return f'"{value}"' if isinstance(value, str) else spell(value)


def _constraints(field: PydanticField) -> str:
    """The range in words, such as "at least 0 and less than 1"."""
    lower, upper = [], []
    for rule in field.metadata:
        if isinstance(rule, annotated_types.Ge):
            lower.append(f"at least {rule.ge:,}")
        elif isinstance(rule, annotated_types.Gt):
            lower.append(f"more than {rule.gt:,}")
        elif isinstance(rule, annotated_types.Le):
            upper.append(f"at most {rule.le:,}")
        elif isinstance(rule, annotated_types.Lt):
            upper.append(f"less than {rule.lt:,}")
        elif isinstance(rule, annotated_types.MinLen):
            lower.append(f"at least {rule.min_length}")
        elif isinstance(rule, annotated_types.MaxLen):
            upper.append(f"at most {rule.max_length}")
        elif getattr(rule, "pattern", None):
            lower.append(f"matching {rule.pattern}")
    words = " and ".join([*lower, *upper])
    if words and get_origin(field.annotation) is tuple:
        return f"with {words} entries"
    return words
