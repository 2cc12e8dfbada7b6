"""``hemascope train`` and ``hemascope demo``: from labelled cells to a run folder with a model and its report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hemascope.cli.manners import INTERRUPTED, PATH, command_line, progress_of, say, say_json, source_options
from hemascope.console import is_first_process
from hemascope.errors import UsageError

if TYPE_CHECKING:
    from hemascope.config import RunConfig
    from hemascope.workflow import TrainedRun


@click.command(short_help="Train on labelled cells, evaluate, report.")
@click.argument("path")
@click.option("-o", "--output", type=PATH, help="Run folder to make, such as runs/first. Needed but for --smoke.")
@click.option("--config", "config_file", type=PATH, help="TOML file of settings; see `hemascope config`.")
@click.option(
    "--recipe",
    metavar="NAME",
    help="Start from a packaged set of settings: fast, standard, blood8, demo, convnext_xlarge.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting; may be repeated.")
@click.option(
    "--hold-out",
    "held_out",
    multiple=True,
    metavar="FAMILY",
    help="Leave this kind of damage out of the augmentation, so that `hemascope stress` meets it unseen; "
    "may be repeated.",
)
@click.option("--seed", type=int, help="Short for --set seed=N.")
@source_options
@click.option("--splits", type=PATH, help="Use the split written by an earlier run.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished run in the output folder.")
@click.option("--force", is_flag=True, help="Replace a run that is already in the output folder.")
@click.option("--smoke", is_flag=True, help="Go through one batch of every stage, say what it took, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.pass_context
def train(
    ctx: click.Context,
    path: str,
    output: Path | None,
    config_file: Path | None,
    recipe: str | None,
    overrides: tuple[str, ...],
    held_out: tuple[str, ...],
    seed: int | None,
    format_name: str | None,
    names: tuple[str, ...] | None,
    splits: Path | None,
    resume: bool,
    force: bool,
    smoke: bool,
    as_json: bool,
) -> None:
    """Train on the labelled cells of PATH, evaluate, and write a report.

    The output folder holds the model, its settings, the split, all predictions and report.html. A run that was
    stopped goes on with --resume; settings then need not be given again.

    \b
    Examples:
      hemascope train my_cells/ -o runs/first
      hemascope train my_cells/ -o runs/quick --recipe fast
      hemascope train cells.npz -o runs/b --set stages.finetune.epochs=3 --set model.backbone=resnet18
      hemascope train my_cells/ --recipe convnext_xlarge --smoke
    """
    if smoke and (resume or force):
        raise UsageError("--smoke writes no run: leave out --resume and --force.")
    if output is None and not smoke:
        raise click.UsageError("Missing option '-o' / '--output'.", ctx)
    if resume and force:
        raise UsageError("--resume goes on with a run and --force replaces it: give one of them.")
    if held_out:
        from json import dumps

        overrides = (*overrides, f"augmentation.without={dumps(held_out)}")
    if seed is not None:
        overrides = (*overrides, f"seed={seed}")
    config = _configuration(config_file, recipe, overrides, output if resume else None)

    if smoke:
        _smoke(ctx, path, config, format_name, names, splits, as_json=as_json)
        return
    from hemascope import workflow

    try:
        run = workflow.train(
            path,
            config,
            output=output,
            format=format_name,
            class_names=names,
            splits=splits,
            resume=resume,
            force=force,
            command=command_line(ctx),
            progress=progress_of(ctx),
        )
    except KeyboardInterrupt:
        again = command_line(ctx) + ("" if resume else " --resume")
        click.echo(f"\nStopped. To go on where it was: {again}", err=True)
        ctx.exit(INTERRUPTED)
    if as_json:
        splits_measured = {name: split.model_dump(mode="json") for name, split in run.evaluation.splits.items()}
        say_json({"run": str(run.folder), "report": str(run.report), "splits": splits_measured})
    else:
        _say_trained(run)


@click.command(short_help="The whole way on artificial cells.")
@click.option("-o", "--output", type=PATH, default=Path("demo"), show_default=True, help="Folder to make.")
@click.pass_context
def demo(ctx: click.Context, output: Path) -> None:
    """Draw a small labelled set of artificial cells and train on it: the whole way in a few minutes."""
    from hemascope import workflow

    _say_trained(workflow.demo(output, progress=progress_of(ctx)))


def _smoke(
    ctx: click.Context,
    path: str,
    config: RunConfig,
    format_name: str | None,
    names: tuple[str, ...] | None,
    splits: Path | None,
    *,
    as_json: bool,
) -> None:
    """One batch of every stage, and what it took."""
    from dataclasses import asdict

    from hemascope.workflow.smoke import smoke

    found = smoke(path, config, format=format_name, class_names=names, splits=splits, progress=progress_of(ctx))
    if as_json:
        say_json(asdict(found))
        return
    say(f"{found.backbone}, {found.parameters:,} parameters; {'; '.join(found.notes)}")
    say(f"On {found.device} in {found.precision}, with {found.threads} threads, {found.seconds:.1f} s in all")
    for stage in found.stages:
        held = [(stage.peak, "of memory so far"), (stage.device_peak, "on the GPU")]
        memory = "".join(f", at most {count / 2**30:.2f} GiB {where}" for count, where in held if count is not None)
        say(
            f"Stage {stage.name} passed: one step of {stage.images} images and a validation of {stage.validated} in "
            f"{stage.seconds:.1f} s; losses {stage.loss:.3f} and {stage.validation:.3f}{memory}"
        )
    say("Nothing was kept.")


def _configuration(
    file: Path | None, recipe: str | None, overrides: tuple[str, ...], resumed: Path | None
) -> RunConfig:
    """The settings asked for; those of the unfinished run where it is resumed and none were given."""
    from hemascope.config_files import load_config

    if resumed is not None and file is None and recipe is None and not overrides:
        saved = resumed / "config.toml"
        file = saved if saved.is_file() else None
    return load_config(file=file, recipe=recipe, overrides=overrides)


def _say_trained(run: TrainedRun) -> None:
    if not is_first_process():  # the others of a distributed run hold no results
        return
    from hemascope.cli.wording import evaluation_lines

    for line in evaluation_lines(run.evaluation):
        say(line)
    say()
    say(f"Report:  {run.report}  (open it in a browser)")
    say(f"Next:    {shlex.join(['hemascope', 'predict', str(run.folder), 'NEW_CELLS', '-o', 'out.csv'])}")
