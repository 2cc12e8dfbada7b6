"""``hemascope stress``: a model on cells as a bad slide, a bad camera or a contest would show them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hemascope.cli.manners import PATH, command_line, progress_of, say, say_json, source_options, views_option
from hemascope.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hemascope.stress_results import StressReport


def _names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(name.strip() for name in value.split(",") if name.strip())


def _severities(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    words = [word.strip() for word in value.split(",")]
    if not all(word.isdigit() and len(word) < 3 for word in words):
        raise UsageError(f"--severities needs numbers from 1 to 5 separated by commas, found '{value}'.")
    return tuple(int(word) for word in words)


@click.command(short_help="Measure a model on corrupted cells.")
@click.argument("run", type=PATH)
@click.argument("path")
@click.option("-o", "--output", type=PATH, help="Folder for the results; RUN/stress if not given.")
@click.option(
    "--part",
    type=click.Choice(["test", "validation", "calibration", "train", "all"]),
    help="Cells to use; the run's test part of its own data, else all.",
)
@click.option("--corruptions", callback=_names, metavar="A,B,C", help="These corruptions only.")
@click.option("--severities", callback=_severities, default="1,2,3,4,5", show_default=True, metavar="1,2,...")
@click.option("--limit", type=int, metavar="N", help="At most N cells, drawn from the classes in proportion.")
@click.option("--seed", type=int, default=20_240, show_default=True, help="Seed of the corruptions.")
@click.option("--baseline", type=PATH, help="An earlier stress test that errors are relative to.")
@click.option("--gate", "gate_file", type=PATH, help="TOML file of limits; a limit not reached is exit status 1.")
@views_option
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def stress(
    ctx: click.Context,
    run: Path,
    path: str,
    output: Path | None,
    part: str | None,
    corruptions: tuple[str, ...] | None,
    severities: tuple[int, ...],
    limit: int | None,
    seed: int,
    baseline: Path | None,
    gate_file: Path | None,
    tta: tuple[str, ...] | None,
    format_name: str | None,
    names: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Measure the model of RUN on the labelled cells of PATH, clean and corrupted, and write a report.

    Eleven corruptions of MedMNIST-C at five severities, and strong layers stacked as in a contest. RUN is a run's or
    bundle's folder, or a shipped model's name.

    \b
    A gate states limits of balanced accuracy, for tests of models:
      bound = "low"          # the low end of the interval; "value" is the figure itself
      clean = 0.985
      mean = 0.97
      stacked_1_2 = 0.95

    \b
    Examples:
      hemascope stress runs/first my_cells/
      hemascope stress runs/first my_cells/ --gate gate.toml --limit 500
      hemascope stress blood8 my_cells/ -o stress/blood8
    """
    gate = None
    if gate_file is not None:
        from hemascope.stress_gate import load_gate

        gate = load_gate(gate_file)

    from hemascope.workflow.stressing import stress as measure

    tested = measure(
        run,
        path,
        output=output,
        part=part,
        corruptions=corruptions,
        severities=severities,
        limit=limit,
        seed=seed,
        baseline=baseline,
        gate=gate,
        tta=tta,
        format=format_name,
        class_names=names,
        command=command_line(ctx),
        progress=progress_of(ctx),
    )
    if as_json:
        say_json(tested.report.model_dump(mode="json"))
    else:
        for line in lines(tested.report):
            say(line)
        say()
        say(f"Report:  {tested.page}")
    if tested.report.passed is False:
        failed = [one for one in tested.report.gate if not one.passed]
        for one in failed:
            what = "the low end of its interval" if one.bound == "low" else "balanced accuracy"
            click.echo(f"Failed: {one.name}: {what} is {one.found:.4f}, the limit {one.limit:.4f}", err=True)
        ctx.exit(1)


def lines(report: StressReport) -> Iterator[str]:
    """The result as plain lines: means first, then a line a corruption."""
    from hemascope.cli.wording import percent_with_interval

    yield f"Stress test of {report.model}: {report.n:,} cells, balanced accuracy"
    rows = [("clean", report.clean.balanced_accuracy), ("mean of corruptions", report.means["mean_balanced_accuracy"])]
    rows += [(one.condition.title, one.condition.balanced_accuracy) for one in report.stacks]
    for title, found in rows:
        yield f"  {title:26} {percent_with_interval(found)}"
    for key, title in (("mean_trained_on", "kinds trained on"), ("mean_not_trained_on", "kinds not trained on")):
        if key in report.means:
            yield f"  {title:26} {percent_with_interval(report.means[key])}"
    if "bBE" in report.means:
        relative = "  ".join(f"{key} {report.means[key].value:.3f}" for key in ("bBE", "rBE") if key in report.means)
        yield f"  {'relative to the baseline':26} {relative}"
    severities = sorted({one.severity for one in report.conditions})
    yield ""
    yield f"  {'severity':18}" + "".join(f"{severity:>8}" for severity in severities) + f"{'mean':>9}"
    for one in report.corruptions:
        values = [c.balanced_accuracy.value or 0.0 for c in report.conditions if c.name == one.name]
        seen = "" if one.exposure == "trained on" else f"  ({one.exposure})"
        yield (
            f"  {one.name:18}"
            + "".join(f"{100 * value:8.1f}" for value in values)
            + f"{100 * (1 - (one.error.value or 0.0)):9.1f}{seen}"
        )
