"""``hemascope audit`` and ``map``: what does not belong in a set of cells, and a picture of the whole."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hemascope.cli.manners import PATH, command_line, progress_of, say, say_json, source_options

if TYPE_CHECKING:
    from hemascope.findings import AuditReport


def _list(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from hemascope.findings import CHECKS

    for check in CHECKS.values():
        say(f"{check.code:18} {check.severity:8} {check.question}")
    ctx.exit()


@click.command(short_help="Find what does not belong in a set of cells.")
@click.argument("path")
@click.option("-o", "--output", type=PATH, required=True, help="Folder for the audit, such as audits/first.")
@click.option("--run", type=PATH, help="Embed with the model of this run instead of the embedded default.")
@click.option("--splits", type=PATH, help="A run's splits.json: look for leaks between its parts.")
@click.option("--ledger", type=PATH, help="An earlier ledger whose decisions stand.")
@click.option("--checks", metavar="A,B,C", help="Make these checks only; `hemascope audit --list-checks` names them.")
@click.option("--map", "map_points", type=int, default=5000, show_default=True, help="Cells on the map; 0 for none.")
@click.option(
    "--views", type=click.Choice(["1", "2", "4", "8"]), default="4", show_default=True, help="Turns averaged."
)
@click.option("--config", "config_file", type=PATH, help="TOML file of settings; see `hemascope config`.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting; may be repeated.")
@click.option("--seed", type=int, help="Short for --set seed=N.")
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--list-checks",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list,
    help="Name every check and leave.",
)
@click.pass_context
def audit(
    ctx: click.Context,
    path: str,
    output: Path,
    run: Path | None,
    splits: Path | None,
    ledger: Path | None,
    checks: str | None,
    map_points: int,
    views: str,
    config_file: Path | None,
    overrides: tuple[str, ...],
    seed: int | None,
    format_name: str | None,
    names: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Find what does not belong among the cells of PATH: broken and blurred images, copies, overlays, wrong labels.

    Nothing is changed. The output folder holds report.html with pictures of everything found, and ledger.csv, in
    which a person decides; `hemascope clean` then does what was decided. An audit made again keeps the decisions.

    \b
    Examples:
      hemascope audit my_cells/ -o audits/first
      hemascope audit my_cells/ -o audits/quick --checks exact_duplicate,near_duplicate --map 0
      hemascope audit my_cells/ -o audits/second --run runs/first --splits runs/first/splits.json
    """
    from hemascope.config_files import load_config

    if seed is not None:
        overrides = (*overrides, f"seed={seed}")
    config = load_config(file=config_file, overrides=overrides)

    from hemascope import workflow

    audited = workflow.audit(
        path,
        config,
        output=output,
        run=run,
        splits=splits,
        ledger=ledger,
        checks=None if checks is None else [name.strip() for name in checks.split(",")],
        map_points=map_points,
        views=int(views),
        format=format_name,
        class_names=names,
        command=command_line(ctx),
        progress=progress_of(ctx),
    )
    if as_json:
        say_json(_summary(audited.report) | {"report": str(audited.page), "ledger": str(audited.ledger)})
        return
    from hemascope.cli.audit_wording import audit_lines

    for line in audit_lines(audited.report):
        say(line)
    say()
    say(f"Report:  {audited.page}  (open it in a browser)")
    say(f"Ledger:  {audited.ledger}")
    settings = [word for override in overrides for word in ("--set", override)]
    settings += [] if config_file is None else ["--config", str(config_file)]
    clean = shlex.join(["hemascope", "clean", path, "--ledger", str(audited.ledger), "-o", "clean.store", *settings])
    say(f"Next:    decide in the report or the ledger, then: {clean}")


@click.command("map", short_help="Draw the cells where a network puts them.")
@click.argument("path")
@click.option("-o", "--output", type=PATH, required=True, metavar="PAGE.html", help="The page to write.")
@click.option("--run", type=PATH, help="Two maps side by side: before and after the training of this run.")
@click.option("--part", default="test", show_default=True, help="With --run: the part of its split to draw, or all.")
@click.option("--points", type=int, default=5000, show_default=True, help="The largest number of cells drawn.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting; may be repeated.")
@click.option("--seed", type=int, help="Short for --set seed=N.")
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def draw_map(
    ctx: click.Context,
    path: str,
    output: Path,
    run: Path | None,
    part: str,
    points: int,
    overrides: tuple[str, ...],
    seed: int | None,
    format_name: str | None,
    names: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Draw the cells of PATH as a map (t-SNE) on one page, each shown under the pointer.

    With --run, two maps of the same cells: before and after fine-tuning, each with two numbers of how well the
    classes are separated, so that the eye is not the judge.
    """
    from hemascope.config_files import load_config

    if seed is not None:
        overrides = (*overrides, f"seed={seed}")
    config = load_config(overrides=overrides)

    from hemascope import workflow

    drawn = workflow.draw_map(
        path,
        config,
        output=output,
        run=run,
        part=part,
        points=points,
        format=format_name,
        class_names=names,
        progress=progress_of(ctx),
    )
    figures = [{"title": m.title, "silhouette": m.silhouette, "knn_accuracy": m.knn_accuracy} for m in drawn.maps]
    if as_json:
        say_json({"page": str(drawn.page), "part": drawn.part, "cells": len(drawn.maps[0].rows), "maps": figures})
        return
    say(f"{len(drawn.maps[0].rows):,} cells, part: {drawn.part}")
    from hemascope.cli.audit_wording import map_lines

    for line in map_lines(drawn.maps):
        say(line)
    say(f"Map:  {drawn.page}  (open it in a browser)")


def _summary(report: AuditReport) -> dict[str, object]:
    return {
        "source": report.source,
        "images": len(report),
        "fingerprint": report.fingerprint,
        "embedding": report.embedding,
        "checks": [
            {
                "check": result.check,
                "findings": len(result.findings),
                "cut": result.cut,
                "cut_rule": result.cut_rule,
                "not_applicable": result.not_applicable,
                "summary": dict(result.summary),
            }
            for result in report.results
        ],
    }
