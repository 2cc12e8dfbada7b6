"""``hemascope calibrate`` and ``trust``: what a model says of itself, fitted and tested."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hemascope.cli.manners import PATH, command_line, progress_of, say, say_json, source_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hemascope.trust_results import TrustReport


@click.command(short_help="Fit again what a model says of itself.")
@click.argument("run", type=PATH)
@click.argument("path")
@click.option("--words", type=PATH, metavar="FOLDER", help="WBCAtt tables, to learn to describe white cells in words.")
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def calibrate(
    ctx: click.Context,
    run: Path,
    path: str,
    words: Path | None,
    format_name: str | None,
    names: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Fit temperature, prediction sets and warnings of RUN on the calibration part of the cells it was split from.

    Training does this by itself; it is for models of an older version, and after a change of views. The test part is
    not looked at.

    \b
    Examples:
      hemascope calibrate runs/first my_cells/
      hemascope calibrate runs/first my_cells/ --words wbcatt/
    """
    from hemascope.workflow.calibrating import calibrate as fit

    fitted = fit(
        run,
        path,
        words=words,
        format=format_name,
        class_names=None if names is None else list(names),
        progress=progress_of(ctx),
    )
    record = fitted.record
    shown = record.conformal[record.sets]
    if as_json:
        say_json(
            {
                "bundle": str(fitted.folder),
                "fitted_on": record.fitted_on,
                "temperature": record.temperature,
                "level_of_sets": shown.level,
                "array_bytes": fitted.bytes,
            }
        )
        return
    say(f"Calibrated on {record.fitted_on:,} cells: {fitted.folder}")
    say(f"  temperature            {record.temperature:.3f}")
    say(f"  prediction sets        {shown.method.upper()}, {100 * shown.level:g} % of them to hold the true class")
    say(f"  whether it holds       hemascope trust {run} {path}")


@click.command(short_help="Test what a model says of itself.")
@click.argument("run", type=PATH)
@click.argument("path")
@click.option("-o", "--output", type=PATH, help="Folder for the results; RUN/trust if not given.")
@click.option(
    "--part",
    type=click.Choice(["test", "validation", "train", "all"]),
    help="Cells to use; the run's test part of its own data, else all.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=500, show_default=True, help="Cells under each kind of damage."
)
@click.option("--costs", type=PATH, help="TOML file of what each confusion costs.")
@click.option("--words", type=PATH, metavar="FOLDER", help="WBCAtt tables, to test the words for white cells.")
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def trust(
    ctx: click.Context,
    run: Path,
    path: str,
    output: Path | None,
    part: str | None,
    limit: int,
    costs: Path | None,
    words: Path | None,
    format_name: str | None,
    names: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Test the probabilities, prediction sets, warnings and doubts of RUN on the labelled cells of PATH.

    Clean and under every kind of damage; with pictures that are no cells at all. RUN is a run's or bundle's folder, or
    a shipped model's name.

    \b
    Examples:
      hemascope trust runs/first my_cells/
      hemascope trust blood8 my_cells/ -o trust/blood8 --limit 200
    """
    from hemascope.workflow.trust_testing import trust as test

    tested = test(
        run,
        path,
        output=output,
        part=part,
        limit=limit,
        costs=costs,
        words=words,
        format=format_name,
        class_names=names,
        command=command_line(ctx),
        progress=progress_of(ctx),
    )
    if as_json:
        say_json(tested.report.model_dump(mode="json"))
        return
    for line in lines(tested.report):
        say(line)
    say()
    say(f"Report:  {tested.page}")


def lines(report: TrustReport) -> Iterator[str]:
    """The result as plain lines: calibration, sets, warnings, the review queue."""
    from hemascope.cli.wording import percent_with_interval
    from hemascope.report.wording import number, percent

    yield f"Trust test of {report.model}: {report.n:,} cells, calibrated on {report.fitted_on:,}"
    if report.calibration:
        clean = report.calibration[0]
        yield (
            f"  calibration error      {number(clean.before.ece.value)} before, {number(clean.after.ece.value)} after "
            f"temperature {report.temperature:.2f}"
        )
    for one in report.coverage:
        if one.condition == "clean" and one.method == "lac":
            kind = "each class" if one.by_class else "all cells"
            yield (
                f"  sets at {100 * one.level:g} %, {kind:<10} hold the class in {percent_with_interval(one.coverage)}, "
                f"{number(one.mean_size.value)} classes on average"
            )
    if report.coverage:
        yield "                         promised for cells of the same laboratory, stain and scanner alone"
    for detected in report.detection:
        if detected.distance != "corrupted":
            auroc = detected.auroc.get(report.ood_score)
            yield (
                f"  {detected.title:<34} {detected.distance:<5} AUROC {number(auroc.value if auroc else None)}, "
                f"marked {percent(detected.flagged.value)}"
            )
    if report.selective:
        clean_queue = report.selective[0]
        yield f"  {clean_queue.errors:,} of {clean_queue.n:,} cells are named wrongly; the most doubtful first:"
        for row in clean_queue.rows:
            yield (
                f"    looking at {percent(row.share)} ({row.reviewed:,} cells) finds {row.errors_caught:,}, "
                f"{percent_with_interval(row.caught)}"
            )
    if report.cost is not None:
        yield f"  cost of the mistakes   {number(report.cost.expected_cost.value)} a cell (0 none, 1 the worst)"
