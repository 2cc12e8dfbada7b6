"""``hemascope config``: every setting with its meaning, and settings as a file to start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from hemascope.cli.manners import PATH, say, say_json
from hemascope.errors import UsageError


@click.command(short_help="List every setting and its meaning.")
@click.option("--recipe", metavar="NAME", help="Show this recipe's values instead of listing the fields.")
@click.option("--config", "config_file", type=PATH, help="Show this file's values, completed and checked.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one value; may be repeated.")
@click.option("--markdown", is_flag=True, help="The list of fields as a Markdown page.")
@click.option("--json", "as_json", is_flag=True, help="The list of fields as one JSON object.")
@click.option("--toml", is_flag=True, help="All values as TOML, ready for `train --config`.")
def config(
    recipe: str | None, config_file: Path | None, overrides: tuple[str, ...], markdown: bool, as_json: bool, toml: bool
) -> None:
    """List every setting with its meaning, type, range and default.

    \b
    A file to start from:
      hemascope config --recipe fast --toml > my.toml
      hemascope train my_cells/ -o runs/mine --config my.toml
    """
    if markdown + as_json + toml > 1:
        raise UsageError("--markdown, --json and --toml are three ways to show the same: give one of them.")
    chosen = recipe is not None or config_file is not None or bool(overrides)
    if chosen and (markdown or as_json):
        raise UsageError("--markdown and --json list the fields; values are shown with --toml.")
    if toml or chosen:
        from hemascope.config_files import dump_config, load_config

        values = load_config(file=config_file, recipe=recipe, overrides=overrides)
        click.echo(dump_config(values), nl=False)
    elif as_json:
        from dataclasses import asdict

        from hemascope.config_fields import list_fields

        say_json({"fields": [asdict(field) for field in list_fields()]})
    else:
        for line in markdown_lines() if markdown else _plain_lines():
            say(line)


def markdown_lines() -> Iterator[str]:
    """The page docs/config.md: recipes, then a table of fields for each section."""
    from hemascope.config_fields import list_fields, list_sections
    from hemascope.config_files import list_recipes

    fields = list_fields()
    yield "# Settings"
    yield ""
    yield "<!-- Made by `make docs` from hemascope/config.py: change it there. -->"
    yield ""
    yield "A setting is given in a TOML file (`hemascope train PATH -o RUN --config my.toml`) or alone"
    yield "(`--set stages.finetune.epochs=3`). `N` is the number of an entry in a list, from 0; an entry with a name"
    yield "may be called by it. In `--set`, `none` unsets a field that may be unset; in a file, leave it out."
    yield ""
    yield "Recipes, for `--recipe NAME`:"
    yield ""
    for recipe in list_recipes():
        yield f"- `{recipe.name}`: {recipe.summary}"
    for section, meaning in list_sections().items():
        inside = [field for field in fields if field.key.rpartition(".")[0] == section]
        if not inside:
            continue
        yield ""
        yield f"## `{section}`" if section else "## Top"
        yield ""
        yield _cell(meaning)
        yield ""
        yield "| key | meaning | type and range | default |"
        yield "|---|---|---|---|"
        for field in inside:
            kind = " ".join(part for part in (field.type, _code(field.constraints)) if part)
            yield (
                f"| `{field.key}` | {_cell(field.description)} | {_cell(kind)} | "
                f"{f'`{field.default}`' if field.default else 'must be given'} |"
            )


def _plain_lines() -> Iterator[str]:
    from hemascope.config_fields import list_fields
    from hemascope.config_files import list_recipes

    for field in list_fields():
        default = f"default {field.default}" if field.default else "must be given"
        kind = " ".join(part for part in (field.type, field.constraints) if part)
        yield f"{field.key}  ({kind}; {default})"
        yield f"    {field.description}"
    yield ""
    yield "Recipes: " + ", ".join(recipe.name for recipe in list_recipes())


def _cell(text: str) -> str:
    """``text`` for a Markdown table, where a bar would end the cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def _code(constraints: str) -> str:
    """A pattern as code, so that its signs stay signs."""
    word, space, pattern = constraints.partition(" ")
    return f"matching `{pattern}`" if word == "matching" and space else constraints
