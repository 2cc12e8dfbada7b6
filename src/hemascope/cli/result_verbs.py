"""``hemascope evaluate``, ``compare`` and ``report``: what a run is worth, on which cells, against which other."""

from __future__ import annotations

from pathlib import Path

import click

from hemascope.cli.manners import PATH, averaging_options, progress_of, say, say_json, source_options


@click.command(short_help="Measure a run on other labelled cells.")
@click.argument("run", type=PATH)
@click.argument("path")
@click.option("-o", "--output", type=PATH, help="Folder for the results; a name in the run folder if not given.")
@averaging_options
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def evaluate(
    ctx: click.Context,
    run: Path,
    path: str,
    output: Path | None,
    tta: tuple[str, ...] | None,
    ensemble: tuple[Path, ...],
    format_name: str | None,
    names: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Measure the model of RUN on the labelled cells of PATH, and write a report."""
    from hemascope import workflow

    evaluated = workflow.evaluate(
        run,
        path,
        output=output,
        format=format_name,
        class_names=names,
        tta=tta,
        ensemble=ensemble,
        progress=progress_of(ctx),
    )
    if as_json:
        say_json(evaluated.evaluation.model_dump(mode="json"))
        return
    from hemascope.cli.wording import evaluation_lines

    for line in evaluation_lines(evaluated.evaluation):
        say(line)
    say()
    say(f"Report:  {evaluated.report}")


@click.command(short_help="Compare two runs on the same cells.")
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@click.option("--split", default="test", show_default=True, help="The part of the cells to compare on.")
@click.option("-o", "--output", type=PATH, metavar="PAGE.html", help="Write a page as well.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def compare(ctx: click.Context, first: Path, second: Path, split: str, output: Path | None, as_json: bool) -> None:
    """Say whether run SECOND is better than run FIRST on the same cells, with intervals."""
    from hemascope import workflow

    comparison = workflow.compare(first, second, split=split, progress=progress_of(ctx))
    if output is not None:
        from hemascope.report import render_comparison

        render_comparison(comparison, output)
    if as_json:
        say_json(comparison.model_dump(mode="json"))
        return
    from hemascope.cli.wording import comparison_lines

    for line in comparison_lines(comparison):
        say(line)
    if output is not None:
        say(f"Page: {output}")


@click.command(short_help="Make the report of a run again.")
@click.argument("run", type=PATH)
@click.option("-o", "--output", type=PATH, metavar="PAGE.html", help="Where to write it; RUN/report.html if not given.")
def report(run: Path, output: Path | None) -> None:
    """Make the report of RUN again from its saved results."""
    from hemascope.report import render_report

    say(f"Report:  {render_report(run, output)}")
