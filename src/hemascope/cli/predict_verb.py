"""``hemascope predict``: a table of named cells."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hemascope.cli.manners import PATH, progress_of, say

if TYPE_CHECKING:
    from hemascope.results import Predictions


@click.command(short_help="Name new cells, as a table.")
@click.argument("run", type=PATH)
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "-o", "--output", required=True, metavar="TABLE", help="A .csv, .parquet or .jsonl file, or - for CSV on stdout."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--batch-size", type=click.IntRange(1, 8192), default=256, show_default=True, help="Images at a time.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads to compute with; all if not given.")
@click.pass_context
def predict(
    ctx: click.Context,
    run: Path,
    inputs: tuple[str, ...],
    output: str,
    device: str,
    batch_size: int,
    threads: int | None,
) -> None:
    """Name the cells of INPUTS (images, folders, .npz files) with the model of RUN.

    One row an image: path, label, probability, one p_CLASS a class. An image that cannot be read has its reason
    in the column error.
    """
    from hemascope.evaluation.table import STREAM, table_format, write_table

    table_format(output)  # a wrong ending is said now, not after the work
    from hemascope.predict import load_model

    progress = progress_of(ctx)
    unreadable = 0

    def counted(batches: Iterable[Predictions]) -> Iterator[Predictions]:
        nonlocal unreadable
        for batch in batches:
            unreadable += sum(1 for error in batch.errors if error)
            yield batch

    model = load_model(run, device=device, batch_size=batch_size, threads=threads)
    batches = counted(model.predict_batches(list(inputs), progress=progress))
    rows = write_table(output, batches, stream=sys.stdout if output == STREAM else None)
    if unreadable:
        progress.warn(f"{unreadable:,} of {rows:,} images could not be read; the column error says why.")
    if output != STREAM:
        say(f"{rows - unreadable:,} cells named: {output}")
    if rows and unreadable == rows:
        ctx.exit(1)
