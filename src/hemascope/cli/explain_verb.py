"""``hemascope explain``: where a model looked, and whether the map can be believed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hemascope.cli.manners import PATH, command_line, progress_of, say, source_options
from hemascope.errors import UsageError

if TYPE_CHECKING:
    from hemascope.explain_results import CellExplanation


@click.command(short_help="Show where a model looked in new cells.")
@click.argument("run", type=PATH)
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGES...")
@click.option("-o", "--output", type=PATH, required=True, help="Folder for overlays, maps, figures and the page.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="rise (if not given), integrated_gradients, gradcam, hirescam, gradcam++, scorecam (slow); may be repeated.",
)
@click.option("--all-methods", is_flag=True, help="All of them, side by side.")
@click.option("--policy", metavar="NAME", help="Augmentation policy of the second version of each cell.  [robust]")
@click.option("--no-augmented", is_flag=True, help="No second version: whether its map agrees is then not known.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many cells.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of augmentation and chance.")
@click.option(
    "--part",
    type=click.Choice(["test", "validation", "calibration", "train", "all"]),
    help="IMAGES is one labelled data set; explain cells of this part, some of each class.",
)
@source_options
@click.pass_context
def explain(
    ctx: click.Context,
    run: Path,
    inputs: tuple[str, ...],
    output: Path,
    methods: tuple[str, ...],
    all_methods: bool,
    policy: str | None,
    no_augmented: bool,
    limit: int,
    seed: int,
    part: str | None,
    format_name: str | None,
    names: tuple[str, ...] | None,
) -> None:
    """Show where the model of RUN looked in each of IMAGES (images, folders, .npz files).

    Every map is tested: against random maps, by what the network says when the hottest pixels are put in or taken out;
    and against the map of an augmented version of the cell. A map that fails is marked, with the reason.

    \b
    Examples:
      hemascope explain blood8 cell.png -o explained/
      hemascope explain runs/first new/ -o explained/ --all-methods --limit 20
      hemascope explain runs/first my_cells/ -o explained/ --part test
    """
    if methods and all_methods:
        raise UsageError("--method and --all-methods exclude each other: give one of them.")
    if policy is not None and no_augmented:
        raise UsageError("--policy and --no-augmented exclude each other: give one of them.")
    if part is None and (format_name is not None or names is not None):
        raise UsageError("--format and --names are for a labelled data set: give --part too.")

    from hemascope.explain.cams import METHODS
    from hemascope.workflow.explaining import explain as make

    progress = progress_of(ctx)
    made = make(
        run,
        list(inputs),
        output=output,
        methods=METHODS if all_methods else methods or METHODS[:1],
        augmented=None if no_augmented else policy or "robust",
        limit=limit,
        seed=seed,
        part=part,
        format=format_name,
        class_names=names,
        command=command_line(ctx),
        progress=progress,
    )
    for cell in made.report.cells:
        say(line(cell))
    for one in made.report.unreadable:
        say(f"{one.id}: not read: {one.reason}")
    if made.report.unreadable:
        progress.warn(f"{len(made.report.unreadable):,} images could not be read.")
    say()
    say(f"Report:  {made.page}")


def line(cell: CellExplanation) -> str:
    """One cell in a line: its name, and what each map is worth; the reasons where there is one map alone."""
    from hemascope.report.wording import percent

    maps = ", ".join(f"{one.method} {'holds' if one.trustworthy else 'fails'}" for one in cell.methods)
    alone = cell.methods[0].reasons if len(cell.methods) == 1 else ()
    return f"{cell.id}: {cell.label} {percent(cell.probability)}; {maps}" + (f": {'; '.join(alone)}" if alone else "")
