"""From TOML files, recipes and ``key=value`` words to one RunConfig, and back to TOML.

The layers, each over the one before: defaults, recipe, file, overrides. Tables merge key by key; a list such as
``[[stages]]`` replaces the whole list, and ``stages.1.epochs`` or ``stages.finetune.epochs`` changes one entry.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from hemascope.config import PREPARATIONS, RunConfig
from hemascope.config_fields import Section, allowed_values, field_type, leaf_keys, nested, spell
from hemascope.errors import ConfigError
from hemascope.names import suggestion
from hemascope.policies import Policy
from hemascope.policies.problems import ended, policy_problem
from hemascope.toml_text import parse_toml, read_toml

_POLICY = ["augmentation", "policy"]
_WHOLE = ("policy",)
"""Tables that replace the one before them instead of changing it key by key."""

MAX_CONFIG_BYTES = 1_000_000
"""A configuration is a page of text; anything larger is another kind of file."""


@dataclass(frozen=True)
class Recipe:
    """A named partial RunConfig that comes with the package; ``summary`` is the first comment of its file."""

    name: str
    summary: str


def list_recipes() -> list[Recipe]:
    """All packaged recipes, by name."""
    recipes = []
    for entry in sorted(files("hemascope").joinpath("recipes").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            first_line = entry.read_text(encoding="utf-8").split("\n", 1)[0]
            recipes.append(Recipe(entry.name.removesuffix(".toml"), first_line.lstrip("# ").strip()))
    return recipes


def load_config(*, file: Path | None = None, recipe: str | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run: defaults, then ``recipe``, then ``file``, then ``overrides`` (``key=value``).

    Raises ConfigError, naming the key, what was found and what is allowed, for anything that does not fit.
    """
    table = {} if file is None else _file_values(file)
    values = _layered(recipe, table)
    for override in overrides:
        _apply(values, override)
    return _validated(values)


def compose_config(
    *, recipe: str | None = None, table: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
) -> RunConfig:
    """As ``load_config``, from values already read: a ``table`` like a file's, then ``settings`` by dotted key.

    Raises ConfigError.
    """
    values = _layered(recipe, _checked(dict(table or {}), "the table"))
    for key, value in (settings or {}).items():
        _set(values, key.split("."), value, RunConfig, "")
    return _validated(values)


def _layered(recipe: str | None, table: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = RunConfig().model_dump()
    if recipe is not None:
        values = merged(values, _recipe_values(recipe))
    return merged(values, table)


def _validated(values: dict[str, Any]) -> RunConfig:
    _read_policy_file(values, Path())
    _refuse_unknown_preparation(values)
    try:
        return RunConfig.model_validate(_with_none(values, RunConfig))
    except ValidationError as error:
        raise ConfigError(_first_problem(error)) from error


def dump_config(config: RunConfig) -> str:
    """``config`` as TOML that ``load_config`` reads back to an equal one. Unset (None) fields are left out."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def _recipe_values(name: str) -> dict[str, Any]:
    names = [recipe.name for recipe in list_recipes()]
    if name not in names:
        raise ConfigError(f"no recipe named '{name}'; {suggestion(name, names)}")
    text = files("hemascope").joinpath("recipes", f"{name}.toml").read_text(encoding="utf-8")
    return _checked(parse_toml(text, f"recipe {name}", "configuration"), f"recipe {name}")


def _file_values(path: Path) -> dict[str, Any]:
    values = _checked(_read(path), str(path))
    _read_policy_file(values, path.parent)
    return values


def _read(path: Path) -> dict[str, Any]:
    return read_toml(path, "configuration", MAX_CONFIG_BYTES)


def load_policy(name: str) -> Policy:
    """The policy called ``name``: a packaged one, or a .toml file.

    Raises ConfigError where there is none, or where the file is no policy.
    """
    values: object = _read(Path(name)) if name.endswith(".toml") else name
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        if problem["loc"]:
            raise ConfigError(f"{name}: {policy_problem(problem, problem['loc'])}") from error
        found = ended(str(problem["ctx"]["error"]))
        raise ConfigError(f"{name}: {found}" if name.endswith(".toml") else found) from error


def _read_policy_file(values: Mapping[str, Any], folder: Path) -> None:
    """Put the contents of a policy's file, named relative to ``folder``, in the place of its name."""
    section = values.get("augmentation")
    if isinstance(section, dict) and isinstance(name := section.get("policy"), str) and name.endswith(".toml"):
        section["policy"] = _read(folder / name)


def _checked(values: dict[str, Any], origin: str) -> dict[str, Any]:
    _refuse_unknown(values, RunConfig, "", f" in {origin}")
    return values


def _refuse_unknown(values: Mapping[str, Any], section: Section, prefix: str, where: str) -> None:
    """Raise ConfigError for the first key, at any depth, that ``section`` does not have."""
    for key, value in values.items():
        if key not in section.model_fields:
            raise ConfigError(_no_such_key(prefix, key, list(section.model_fields), where))
        inner = nested(section.model_fields[key])
        items = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, item in items:
            if inner is not None and isinstance(item, dict):
                spot = key if index is None else f"{key}.{index}"
                _refuse_unknown(item, inner, f"{prefix}{spot}.", where)


def _no_such_key(prefix: str, key: str, siblings: Sequence[str], where: str = "") -> str:
    """The sentence for an unknown key: the nearest sibling, or the place where the same name does exist."""
    elsewhere = [full for full in leaf_keys() if full.rsplit(".", 1)[-1] == key]
    if elsewhere:
        return f"no such key '{prefix}{key}'{where}; did you mean '{elsewhere[0]}'?"
    return f"no such key '{prefix}{key}'{where}; {suggestion(key, siblings)}"


def _refuse_unknown_preparation(values: Mapping[str, Any]) -> None:
    data = values["data"]
    name = data.get("preparation") if isinstance(data, dict) else None
    if isinstance(name, str) and name not in PREPARATIONS:
        raise ConfigError(f"no preparation named '{name}'; {suggestion(name, list(PREPARATIONS))}")


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``over`` put in: tables key by key, all else as a whole."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        tables = isinstance(below, dict) and isinstance(value, dict) and key not in _WHOLE
        result[key] = merged(result[key], value) if tables else value
    return result


def _apply(values: dict[str, Any], override: str) -> None:
    """Change one value of ``values`` in place, as ``override`` (``dotted.key=value``) says."""
    path, equals, text = override.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set needs key=value, such as stages.1.epochs=3, found '{override}'.")
    _set(values, parts, _typed(text.strip(), path.strip()), RunConfig, "")


def _set(holder: dict[str, Any], parts: list[str], value: object, section: Section, prefix: str) -> None:
    name, rest = parts[0], parts[1:]
    if name not in section.model_fields:
        raise ConfigError(_no_such_key(prefix, name, list(section.model_fields)))
    inner = nested(section.model_fields[name])
    here = f"{prefix}{name}"
    if not rest:
        _refuse_unknown({name: value}, section, prefix, "")
        holder.update(merged(holder, {name: value}))
        return
    if inner is None:
        raise ConfigError(f"'{here}' is one value, so '{here}.{rest[0]}' does not exist; set '{here}' itself.")
    below = holder.get(name)
    if isinstance(below, str) and below in PREPARATIONS:  # a preparation by name becomes the table it stands for
        below = PREPARATIONS[below].model_dump()
    if isinstance(below, list | tuple):
        entries = list(below)
        holder[name] = entries
        index = _entry(entries, rest[0], here)
        if len(rest) == 1:
            _refuse_unknown({name: [value]}, section, prefix, "")
            entries[index] = value
            return
        below, rest, here = entries[index], rest[1:], f"{here}.{index}"
        if isinstance(below, dict):
            entries[index] = below = dict(below)
    elif below is None or isinstance(below, dict):
        holder[name] = below = dict(below or {})
    if not isinstance(below, dict):
        raise ConfigError(f"'{here}' must be a table, found {spell(below)}.")
    _set(below, rest, value, inner, f"{here}.")


def _entry(entries: Sequence[object], word: str, where: str) -> int:
    """The index of a list's entry given by number (from 0) or by its name."""
    names = [str(entry.get("name", "")) for entry in entries if isinstance(entry, dict)]
    if word.isascii() and word.isdigit():
        if len(word) < 6 and int(word) < len(entries):
            return int(word)
        raise ConfigError(f"no such entry '{where}.{word}': there are {len(entries)}, numbered from 0.")
    if word in names:
        return names.index(word)
    raise ConfigError(f"no such entry '{where}.{word}': give a number from 0, or a name; {suggestion(word, names)}")


def _typed(text: str, key: str) -> object:
    """``text`` as a TOML value; a bare word such as ``last:2`` is a string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError) as error:
        if text[:1] in tuple("[{\"'"):
            raise ConfigError(f"the value of '{key}' is not valid TOML: {spell(text)}.") from error
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _with_none(values: Mapping[str, Any], section: Section) -> dict[str, Any]:
    """The same values, where the word none on a field that may be unset means unset (TOML has no null)."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        field = section.model_fields.get(key)
        inner = None if field is None else nested(field)
        if inner is not None and isinstance(value, dict):
            result[key] = _with_none(value, inner)
        elif inner is not None and isinstance(value, list | tuple):
            result[key] = [_with_none(item, inner) if isinstance(item, dict) else item for item in value]
        else:
            unset = field is not None and value == "none" and field_type(field).endswith(" or none")
            result[key] = None if unset else value
    return result


def _first_problem(error: ValidationError) -> str:
    """One sentence for the first problem pydantic found: the dotted key, what is allowed, what was found."""
    problem = error.errors(include_url=False)[0]
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if location[:2] == _POLICY and len(location) > 2:
        return policy_problem(problem, problem["loc"][2:], "augmentation.policy.")
    if problem["type"] == "value_error":  # our own validators already say it in words
        return ended(f"{key}: {problem['ctx']['error']}" if key else str(problem["ctx"]["error"]))
    if problem["type"] == "missing":
        return f"'{key}' must be given."
    found = problem["input"]
    allowed, choices = allowed_values(location)
    if not allowed:
        allowed = problem["msg"].removeprefix("Input should be ")
    hint = ""
    if choices and isinstance(found, str):
        nearest = suggestion(found, choices)
        hint = f"; {nearest}" if nearest.startswith("did you mean") else ""
    return f"'{key}' must be {allowed}, found {spell(found)}{hint or '.'}"
