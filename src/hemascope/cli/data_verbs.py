"""``hemascope inspect``: what is in a pile of cells, before anything is trained on it."""

from __future__ import annotations

import click

from hemascope.cli.manners import progress_of, say, say_json, source_options


@click.command(short_help="Say what is in a folder or file of cells.")
@click.argument("path")
@source_options
@click.option(
    "--label-pattern", metavar="REGEX", help="Regular expression with a group named label, to label by file name."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def inspect(
    ctx: click.Context,
    path: str,
    format_name: str | None,
    names: tuple[str, ...] | None,
    label_pattern: str | None,
    as_json: bool,
) -> None:
    """Say what is in PATH: classes, sizes, unreadable files, duplicates, imbalance.

    PATH is a folder with one folder a class, an .npz file, a CSV or Parquet table of paths, or a packed store.
    Nothing is changed.
    """
    from hemascope.data.inspection import inspect_source

    inspection = inspect_source(
        path, format=format_name, class_names=names, label_pattern=label_pattern, progress=progress_of(ctx)
    )
    if as_json:
        say_json(inspection.model_dump(mode="json"))
        return
    from hemascope.cli.wording import inspection_lines

    for line in inspection_lines(inspection):
        say(line)
