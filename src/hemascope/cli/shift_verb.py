"""``hemascope shift``: whether new, unlabelled cells are still of the kind a model was trained on."""

from __future__ import annotations

from pathlib import Path

import click

from hemascope.cli.manners import PATH, command_line, progress_of, say, say_json, source_options


@click.command(short_help="Compare new cells with those a model was trained on.")
@click.argument("run", type=PATH)
@click.argument("path")
@click.option("-o", "--output", type=PATH, help="Folder for the card; RUN/shift if not given.")
@click.option("--recalibrated", type=PATH, metavar="FOLDER", help="Fit the model's copy in FOLDER on labels of PATH.")
@click.option(
    "--labels", type=click.IntRange(2, 100_000), default=100, show_default=True, help="At most so many labels."
)
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def shift(
    ctx: click.Context,
    run: Path,
    path: str,
    output: Path | None,
    recalibrated: Path | None,
    labels: int,
    format_name: str | None,
    names: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Say whether the model of RUN may be used on the cells of PATH. No labels are needed.

    Stain, sharpness, scale and light, the features, the share unlike the training cells, the accuracy to be expected,
    and a recommendation. With labels (folders named by class) a copy of the model is recalibrated if asked.

    \b
    Examples:
      hemascope shift runs/first other_lab/
      hemascope shift blood8 other_lab/ -o shift/other_lab --recalibrated models/other_lab
    """
    from hemascope.report.render_shift import ADVICE
    from hemascope.report.wording import percent
    from hemascope.workflow.shifting import shift as compare

    made = compare(
        run,
        path,
        output=output,
        recalibrated=recalibrated,
        labels=labels,
        format=format_name,
        class_names=names,
        command=command_line(ctx),
        progress=progress_of(ctx),
    )
    card = made.card
    if as_json:
        say_json(card.model_dump(mode="json"))
        return
    from hemascope.cli.wording import percent_with_interval

    say(ADVICE[card.recommendation])
    for reason in card.reasons:
        say(f"  - {reason}")
    if card.expected_accuracy is not None:
        expected = percent_with_interval(card.expected_accuracy)
        say(f"  accuracy to expect     {expected}, was {percent(card.known_accuracy)}")
    outside = percent_with_interval(card.out_of_distribution)
    say(f"  unlike training cells  {outside}, {percent(card.false_alarm)} is usual")
    say(f"  marked for review      {percent_with_interval(card.marked)}")
    if card.recalibration is not None:
        effect = card.recalibration
        say(
            f"  recalibrated           with {effect.labels:,} labels: log loss {effect.nll_before.value:.3f} before, "
            f"{effect.nll_after.value:.3f} after, on cells left out in turn: {recalibrated}"
        )
    say()
    say(f"Report:  {made.page}")
