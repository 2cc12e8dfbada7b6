"""``hemascope similar``: the training cells most like a new one."""

from __future__ import annotations

from pathlib import Path

import click

from hemascope.cli.manners import PATH, progress_of, say


@click.command(short_help="Show the training cells most like a new one.")
@click.argument("run", type=PATH)
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "-k", "--neighbours", type=click.IntRange(1, 100), default=8, show_default=True, help="Cells for each image."
)
@click.option("--data", metavar="PATH", help="The cells the model was trained on, to show their pictures.")
@click.option("-o", "--output", type=PATH, help="Folder for similar.csv and, with --data, similar.png.")
@click.pass_context
def similar(
    ctx: click.Context, run: Path, inputs: tuple[str, ...], neighbours: int, data: str | None, output: Path | None
) -> None:
    """Show, for each image of INPUTS, the training cells that the model of RUN sees as most like it.

    A second opinion: where the neighbours have another class than the cell was given, look again.

    \b
    Examples:
      hemascope similar blood8 cell.png
      hemascope similar runs/first new/ --data my_cells/ -o similar/
    """
    from hemascope.workflow.finding_similar import similar as find

    progress = progress_of(ctx)
    found = find(run, list(inputs), k=neighbours, data=data, output=output, progress=progress)
    place = 0
    for row, name in enumerate(found.ids):
        if found.errors[row]:
            say(f"{name}: not read: {found.errors[row]}")
            continue
        cells, distances = found.neighbours.rows[place].tolist(), found.neighbours.distances[place].tolist()
        label = found.known.class_names[found.named[row]]
        say(f"{name}: {label}; {found.agreeing(place)} of {len(cells)} neighbours agree")
        if output is None:
            for cell, distance in zip(cells, distances, strict=True):
                say(f"  {distance:.3f}  {found.known.label(cell):16} {found.known.ids[cell]}")
        place += 1
    if output is not None:
        say(f"Table:    {output / 'similar.csv'}")
        if found.sheet is not None:
            say(f"Pictures: {found.sheet}")
