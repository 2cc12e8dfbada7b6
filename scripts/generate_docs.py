"""Write docs/cli.md and docs/config.md from the program itself. Run by ``make docs``; a test compares."""

from __future__ import annotations

from pathlib import Path

import click

from hemascope.cli import main
from hemascope.cli.config_verb import markdown_lines
from hemascope.cli.manners import HELP_SETTINGS

DOCS = Path(__file__).resolve().parent.parent / "docs"
WIDTH = 100


def cli_page() -> str:
    """The help of the program and of every verb, as a Markdown page."""
    root = click.Context(main, info_name="hemascope", terminal_width=WIDTH, **HELP_SETTINGS)
    parts = [
        "# Command line\n",
        "<!-- Made by `make docs` from hemascope/cli: change it there. -->\n",
        "Results go to stdout, progress and warnings to stderr. Exit status: 0 done, 1 the work failed, 2 the call\n"
        "was wrong, 130 stopped with Ctrl-C. `HEMASCOPE_DEBUG=1` shows tracebacks.\n",
        _help("hemascope", root),
    ]
    for name in main.list_commands(root):
        verb = main.commands[name]
        parts.append(_help(f"hemascope {name}", click.Context(verb, info_name=name, parent=root)))
    return "\n".join(parts)


def pages() -> dict[Path, str]:
    """Each generated page with its text."""
    return {DOCS / "cli.md": cli_page(), DOCS / "config.md": "\n".join(markdown_lines()) + "\n"}


def _help(title: str, context: click.Context) -> str:
    text = "\n".join(line.rstrip() for line in context.command.get_help(context).splitlines())
    return f"## {title}\n\n```\n{text}\n```\n"


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(f"wrote {path.relative_to(DOCS.parent)}")
