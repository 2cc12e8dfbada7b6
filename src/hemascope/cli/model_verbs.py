"""``hemascope models``, ``pack`` and ``soup``: what comes along, what is given away, and averages."""

from __future__ import annotations

from pathlib import Path

import click

from hemascope.cli.manners import PATH, progress_of, say, say_json


@click.command(short_help="The models that come with hemascope.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def models(name: str | None, as_json: bool) -> None:
    """List the models that come with hemascope, or show the card of one: its data, figures, limits and licence."""
    from hemascope.models.shipped import model_card, shipped_folder, shipped_names

    if name is not None:
        say(model_card(name))
        return
    import json

    found = []
    for one in shipped_names():
        folder = shipped_folder() / one
        record = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        size = sum(file.stat().st_size for file in folder.iterdir())
        found.append(
            {
                "name": one,
                "backbone": record["model"]["backbone"],
                "class_names": record["class_names"],
                "bytes": size,
                "licence": record["provenance"].get("licence", ""),
            }
        )
    if as_json:
        say_json({"models": found})
        return
    if not found:
        say("No model comes with this installation.")
    for each in found:
        say(f"{each['name']}: {', '.join(each['class_names'])}")
        say(f"  {each['backbone']}, {each['bytes'] / 1e6:.1f} MB, {each['licence']}")
        say(f"  its card: hemascope models {each['name']}")


@click.command(short_help="A model as a small bundle to give away.")
@click.argument("run", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Bundle folder to make.")
@click.option("--full", is_flag=True, help="Keep full precision: twice the bytes.")
@click.option("--check", metavar="DATA", help="Cells on which no label may change; else nothing is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def pack(ctx: click.Context, run: Path, output: Path, full: bool, check: str | None, as_json: bool) -> None:
    """Write the model of RUN as a bundle of its own, in half precision.

    \b
    Example:
      hemascope pack runs/first -o my_model --check my_cells/
    """
    from hemascope.workflow.model_making import pack as make

    made = make(run, output, half=not full, check=check, progress=progress_of(ctx))
    if as_json:
        say_json(
            {
                "bundle": str(made.folder),
                "bytes": made.bytes,
                "kept_whole": list(made.kept_whole),
                "checked": made.checked,
                "largest_difference": made.largest_difference,
            }
        )
        return
    say(f"{made.folder}: {made.bytes / 1e6:.2f} MB")
    if made.checked:
        say(f"  {made.checked:,} cells: every label the same, largest difference of a probability "
            f"{made.largest_difference:.5f}")  # fmt: skip


@click.command(short_help="Average the weights of several runs.")
@click.argument("runs", type=PATH, nargs=-1, required=True)
@click.option("-o", "--output", type=PATH, required=True, help="Bundle folder to make.")
@click.option("--greedy", metavar="DATA", help="Let the first run's validation part of DATA choose the ingredients.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def soup(ctx: click.Context, runs: tuple[Path, ...], output: Path, greedy: str | None, as_json: bool) -> None:
    """Average the weights of RUNS, trained from the same start, into one model of the same price.

    \b
    Example:
      hemascope soup runs/a runs/b runs/c -o soup --greedy my_cells/
    """
    from hemascope.workflow.model_making import make_soup

    made = make_soup(runs, output, greedy=greedy, progress=progress_of(ctx))
    if as_json:
        say_json(
            {
                "bundle": str(made.folder),
                "ingredients": list(made.ingredients),
                "validation_balanced_accuracy": made.score,
                "best_alone": made.best_alone,
            }
        )
        return
    say(f"{made.folder}: the mean of {len(made.ingredients)} models ({', '.join(made.ingredients)})")
    if made.score is not None and made.best_alone is not None:
        say(f"  validation balanced accuracy {made.score:.4f}, best ingredient alone {made.best_alone:.4f}")
