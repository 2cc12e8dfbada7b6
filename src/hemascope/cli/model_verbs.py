"""``hemascope soup``, ``pack`` and ``models``: averages, what is given away, and what comes along."""

from __future__ import annotations

from pathlib import Path

import click

from hemascope.cli.manners import PATH, progress_of, say, say_json, views_option
from hemascope.console import printable


@click.command(short_help="The models that come with hemascope.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def models(name: str | None, as_json: bool) -> None:
    """List the models that come with hemascope, or show the card of one: its data, figures, limits and licence."""
    from hemascope.models.shipped import model_card, shipped_models

    if name is not None:
        card = model_card(name)
        if as_json:
            say_json({"name": name, "card": card})
        else:
            _show_card(card)
        return
    found = shipped_models()
    if as_json:
        say_json(
            {
                "models": [
                    {
                        "name": one.name,
                        "backbone": one.backbone,
                        "class_names": list(one.class_names),
                        "size": one.size,
                        "parameters": one.parameters,
                        "bytes": one.bytes,
                        "licence": one.licence,
                        "card": None if one.card is None else str(one.card),
                    }
                    for one in found
                ]
            }
        )
        return
    if not found:
        say("No model comes with this installation.")
    for one in found:
        say(f"{one.name}: {', '.join(one.class_names)}")
        say(
            f"  {one.backbone} at {one.size} pixels, {one.parameters / 1e6:.2f} million parameters, "
            f"{one.bytes / 1e6:.1f} MB, licence: {one.licence or 'not said'}"
        )
        if one.card is not None:
            say(f"  card: hemascope models {one.name} ({one.card})")


def _show_card(card: str) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(printable(card)))


@click.command(short_help="A model as a small bundle to give away.")
@click.argument("run", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Bundle folder to make.")
@views_option
@click.option("--half/--full", default=True, show_default=True, help="Half precision, or full: twice the bytes.")
@click.option("--check", metavar="DATA", help="Cells on which no label may change; else nothing is written.")
@click.option(
    "--light", metavar="DATA", help="The run's cells, for a model that does not know in what light they were."
)
@click.option("--licence", metavar="TEXT", help="Licence of the weights, for the list of models.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def pack(
    ctx: click.Context,
    run: Path,
    output: Path,
    tta: tuple[str, ...] | None,
    half: bool,
    check: str | None,
    light: str | None,
    licence: str | None,
    as_json: bool,
) -> None:
    """Write the model of RUN as a bundle of its own, in half precision.

    Running variances of batch norms, and tensors that half precision would change by more than a thousandth of their
    largest value, stay in full precision.

    \b
    Example:
      hemascope pack runs/first -o my_model --check my_cells/
    """
    from hemascope.workflow.model_making import pack as make

    made = make(run, output, half=half, check=check, light=light, licence=licence, views=tta, progress=progress_of(ctx))
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
    others = [name for name in made.kept_whole if not name.endswith("running_var")]
    if others:
        say(f"  kept in full precision, for half would change them too much: {', '.join(others)}")
    if made.largest_difference is not None:
        largest = f"{made.largest_difference:.1e}"
        say(f"  {made.checked:,} cells checked: no label differs, no probability by more than {largest}")


@click.command(short_help="Average the weights of several runs.")
@click.argument("runs", type=PATH, nargs=-1, required=True)
@click.option("-o", "--output", type=PATH, required=True, help="Bundle folder to make.")
@click.option("--greedy", metavar="DATA", help="Let the validation part of the runs' own DATA choose among them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def soup(ctx: click.Context, runs: tuple[Path, ...], output: Path, greedy: str | None, as_json: bool) -> None:
    """Average the weights of RUNS, fine-tuned from the same start, into one model of the same price.

    With --greedy, from the best run on, each is kept if the average gets no worse with it on the validation part; all
    must have been trained with one split. Without, all are averaged alike. Running statistics of batch norms are
    averaged too.

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
                "left_out": list(made.left_out),
                "validation_balanced_accuracy": made.score,
                "best_alone": made.best_alone,
            }
        )
        return
    if len(made.ingredients) > 1:
        say(f"{made.folder}: the mean of {len(made.ingredients)} models ({', '.join(made.ingredients)})")
    else:
        say(f"{made.folder}: {made.ingredients[0]} alone: no average was as good")
    if made.left_out:
        say(f"  left out: {', '.join(made.left_out)}")
    if made.score is not None and made.best_alone is not None:
        say(f"  validation balanced accuracy {made.score:.4f}, best ingredient alone {made.best_alone:.4f}")
