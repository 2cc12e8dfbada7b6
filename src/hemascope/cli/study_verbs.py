"""``hemascope study``: many runs as one question, and the table of what came out."""

from __future__ import annotations

from pathlib import Path

import click

from hemascope.cli.manners import (
    HELP_SETTINGS,
    INTERRUPTED,
    PATH,
    command_line,
    progress_of,
    say,
    say_json,
    source_options,
)


@click.group(short_help="Many runs as one question, and a table.", context_settings=HELP_SETTINGS)
def study() -> None:
    """Compare settings fairly: variants times seeds on the same cells, and one table with intervals.

    \b
    Examples:
      hemascope study run studies/optimizers.toml --data my_cells/ -o studies/out
      hemascope study run studies/*.toml --data my_cells/ -o studies/out
      hemascope study report studies/out
      hemascope study search studies/search.toml --data my_cells/ -o studies/out
    """


@study.command(name="run", short_help="Carry out studies; what is finished is kept.")
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@click.option("-o", "--output", type=PATH, required=True, help="Folder for all studies, such as studies/out.")
@click.option("--data", metavar="PATH", help="Labelled cells; those the file names if not given.")
@click.option("--seed", "seeds", type=int, multiple=True, help="This seed instead of the file's; may be repeated.")
@click.option("--jobs", type=int, metavar="N", help="Runs at once; chosen for the machine if not given.")
@click.option(
    "--ray", "cluster", metavar="ADDRESS", help="Carry the runs out on a Ray cluster: auto, local or an address."
)
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.pass_context
def run(
    ctx: click.Context,
    files: tuple[Path, ...],
    output: Path,
    data: str | None,
    seeds: tuple[int, ...],
    jobs: int | None,
    cluster: str | None,
    format_name: str | None,
    names: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Carry out the studies of some files, and write a table and a page for each.

    Runs that are finished in the output folder are kept, one that was stopped goes on at its last checkpoint: the same
    command again does only what is missing.
    """
    from hemascope.study.studies import run_studies

    try:
        done = run_studies(
            files,
            output=output,
            data=data,
            seeds=seeds or None,
            jobs=jobs,
            cluster=cluster,
            format=format_name,
            class_names=names,
            command=command_line(ctx),
            progress=progress_of(ctx),
        )
    except KeyboardInterrupt:
        click.echo(f"\nStopped. To go on where it was: {command_line(ctx)}", err=True)
        ctx.exit(INTERRUPTED)
    if as_json:
        say_json({"studies": [one.model_dump(mode="json") for one in done.results], "failed": dict(done.failed)})
    else:
        from hemascope.cli.study_wording import study_lines

        for result in done.results:
            for line in study_lines(result):
                say(line)
            say()
        say(f"Pages:   {done.pages[-1]}  (open it in a browser)")
    if done.failed:
        from hemascope.errors import RunError

        label, reason = next(iter(done.failed.items()))
        count = len(done.failed)
        raise RunError(f"{count:,} run{'s' if count > 1 else ''} failed; {label}: {reason}")


@study.command(name="report", short_help="Make the tables again from saved results.")
@click.argument("output", type=PATH)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--markdown", type=PATH, metavar="PAGE.md", help="Write one page with all of them as well.")
@click.option("--preface", type=PATH, metavar="FILE.md", help="What that page begins with.")
@click.pass_context
def report(
    ctx: click.Context, output: Path, names: tuple[str, ...], markdown: Path | None, preface: Path | None
) -> None:
    """Make the tables and pages of the studies in the folder OUTPUT again from what their runs saved."""
    from hemascope.cli.study_wording import study_lines
    from hemascope.study.studies import report_studies

    done = report_studies(output, names, markdown=markdown, preface=preface, progress=progress_of(ctx))
    for result in done.results:
        for line in study_lines(result):
            say(line)
        say()
    say(f"Pages:   {done.pages[-1]}  (open it in a browser)")


@study.command(name="search", short_help="Search settings within a budget.")
@click.argument("file", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Folder for all studies, such as studies/out.")
@click.option("--data", metavar="PATH", help="Labelled cells; those the file names if not given.")
@click.option(
    "--engine",
    type=click.Choice(["halving", "optuna"]),
    default="halving",
    show_default=True,
    help="Successive halving, or Optuna.",
)
@click.option("--jobs", type=int, metavar="N", help="Runs at once; chosen for the machine if not given.")
@click.option(
    "--ray", "cluster", metavar="ADDRESS", help="Carry the runs out on a Ray cluster: auto, local or an address."
)
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.pass_context
def search(
    ctx: click.Context,
    file: Path,
    output: Path,
    data: str | None,
    engine: str,
    jobs: int | None,
    cluster: str | None,
    format_name: str | None,
    names: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Find settings in the [search] of FILE by the validation cells alone; every run that was tried is kept."""
    from hemascope.study.searches import run_search

    try:
        found = run_search(
            file,
            output=output,
            data=data,
            engine="optuna" if engine == "optuna" else "halving",
            jobs=jobs,
            cluster=cluster,
            format=format_name,
            class_names=names,
            command=command_line(ctx),
            progress=progress_of(ctx),
        )
    except KeyboardInterrupt:
        click.echo(f"\nStopped. To go on where it was: {command_line(ctx)}", err=True)
        ctx.exit(INTERRUPTED)
    if as_json:
        say_json(found.result.model_dump(mode="json"))
        return
    from hemascope.report.search_text import search_markdown

    say(search_markdown(found.result).removeprefix("## ").rstrip())
    say()
    say(f"Record:  {found.folder / 'search.json'}")
