"""``hemascope predict``: a table of named cells."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hemascope.cli.manners import PATH, averaging_options, progress_of, say

if TYPE_CHECKING:
    from hemascope.results import Predictions


@click.command(short_help="Name new cells, as a table.")
@click.argument("run", type=PATH)
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    metavar="TABLE",
    help="A .csv, .parquet or .jsonl file, or - for CSV on stdout; without it the names are shown.",
)
@averaging_options
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--batch-size", type=click.IntRange(1, 8192), default=256, show_default=True, help="Images at a time.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads to compute with; all if not given.")
@click.pass_context
def predict(
    ctx: click.Context,
    run: Path,
    inputs: tuple[str, ...],
    output: str | None,
    tta: tuple[str, ...] | None,
    ensemble: tuple[Path, ...],
    device: str,
    batch_size: int,
    threads: int | None,
) -> None:
    """Name the cells of INPUTS (images, folders, .npz files) with the model of RUN.

    RUN is a run's or bundle's folder, or a model that comes with hemascope, such as blood8. One row an image: path,
    label, probability; the classes that cannot be ruled out, whether the picture is like the training cells, why a
    person should look at it, a description in words; one p_CLASS a class. An image that cannot be read has its reason
    in the column error.

    \b
    Examples:
      hemascope predict blood8 cell.png
      hemascope predict runs/first new_cells/ -o out.csv
      hemascope predict runs/first new_cells/ -o out.csv --tta dihedral --ensemble runs/second
    """
    from hemascope.evaluation.table import STREAM, table_format, write_table

    if output is not None:
        table_format(output)  # a wrong ending is said now, not after the work
    from hemascope.predict import load_model

    progress = progress_of(ctx)
    unreadable = marked = 0

    def counted(batches: Iterable[Predictions]) -> Iterator[Predictions]:
        nonlocal unreadable, marked
        for batch in batches:
            unreadable += sum(1 for error in batch.errors if error)
            if batch.trust is not None:
                marked += sum(1 for reason in batch.trust.review_reason if reason)
            yield batch

    model = load_model(
        run,
        device=device,
        batch_size=batch_size,
        threads=threads,
        tta=tta,
        ensemble=ensemble,
        progress=progress,
    )
    batches = counted(model.predict_batches(list(inputs), progress=progress))
    if output is None:
        rows = _show(batches)
    else:
        rows = write_table(output, batches, stream=sys.stdout if output == STREAM else None)
    if model.assessor is None:
        progress.note(_NOT_ASSESSED)
    elif marked:
        progress.note(f"{marked:,} of {rows:,} cells should be looked at by a person; the reason is given with each.")
    if unreadable:
        progress.warn(f"{unreadable:,} of {rows:,} images could not be read; the column error says why.")
    if output not in (None, STREAM):
        say(f"{rows - unreadable:,} cells named: {output}")
    if rows and unreadable == rows:
        ctx.exit(1)


def _show(batches: Iterable[Predictions]) -> int:
    """One line an image, the likely classes with their probabilities; how many images there were."""
    from hemascope.report.wording import percent

    rows = 0
    for batch in batches:
        errors = batch.errors or [""] * len(batch)
        for row, (name, probs, error) in enumerate(zip(batch.ids, batch.probs, errors, strict=True)):
            rows += 1
            if error:
                say(f"{name}: not read: {error}")
                continue
            order = probs.argsort()[::-1]
            likely = [place for place in order[:3] if place == order[0] or probs[place] >= _WORTH_SAYING]
            text = ", ".join(f"{batch.class_names[place]} {percent(float(probs[place]))}" for place in likely)
            say(f"{name}: {text}{_remarks(batch, row)}")
    return rows


def _remarks(batch: Predictions, row: int) -> str:
    """What stands behind the names of one row: the description, and why a person should look."""
    if batch.trust is None:
        return ""
    words, reason = batch.trust.morphology[row], batch.trust.review_reason[row]
    return (f"; {words}" if words else "") + (f"; look at it: {REASONS[reason]}" if reason else "")


REASONS = {
    "out_of_distribution": "unlike the training cells",
    "set_larger_than_one": "more than one class is possible",
    "views_disagree": "its views are named differently",
    "low_confidence": "low confidence",
    "words_disagree": "its features do not go with its name",
}
"""``results.REVIEW_REASONS`` in words."""

_NOT_ASSESSED = (
    "No prediction says whether to believe it: the model was not calibrated for this use (hemascope calibrate; an "
    "ensemble or views of your own are not what it was calibrated with)."
)

_WORTH_SAYING = 0.01
"""A second or third class is shown from this probability on."""
