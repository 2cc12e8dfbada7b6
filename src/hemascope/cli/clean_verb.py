"""``hemascope clean``: do what was decided in a ledger, or take it back."""

from __future__ import annotations

import getpass
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hemascope.cli.manners import PATH, progress_of, say, say_json, source_options
from hemascope.errors import UsageError

if TYPE_CHECKING:
    from hemascope.audit.cleaning import Cleaned


@click.command(short_help="Leave out and relabel what was decided in a ledger.")
@click.argument("path")
@click.option("--ledger", type=PATH, help="The ledger.csv or ledger.json of an audit.")
@click.option("-o", "--output", type=PATH, help="Packed store to make, such as clean.store.")
@click.option("--accept", multiple=True, metavar="CHECK", help="Accept what this check suggests; may be repeated.")
@click.option("--accept-all", is_flag=True, help="Accept what every check suggests.")
@click.option("--by", metavar="NAME", help="Who accepts; the name of the account if not given.")
@click.option("--reason", default="", metavar="TEXT", help="Why it is accepted.")
@click.option("--undo", is_flag=True, help="Put everything back: all cells, their order, their labels.")
@click.option("--config", "config_file", type=PATH, help="TOML file of settings; see `hemascope config`.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting; may be repeated.")
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def clean(
    ctx: click.Context,
    path: str,
    ledger: Path | None,
    output: Path | None,
    accept: tuple[str, ...],
    accept_all: bool,
    by: str | None,
    reason: str,
    undo: bool,
    config_file: Path | None,
    overrides: tuple[str, ...],
    format_name: str | None,
    names: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Leave out and relabel the cells of PATH as decided in a ledger; the rest goes to a packed store.

    PATH itself is not changed. Only decided findings count: accept does what is suggested, drop leaves the image out,
    relabel to CLASS gives it another label; fine and undecided ones leave it alone. The store holds what was removed,
    so --undo restores the whole set, and a changed ledger can be applied to the store itself.

    \b
    Examples:
      hemascope clean my_cells/ --ledger audits/first/ledger.csv -o clean.store
      hemascope clean my_cells/ --ledger audits/first/ledger.csv -o clean.store --accept exact_duplicate
      hemascope clean clean.store --undo
    """
    if undo:
        if ledger is not None or accept or accept_all or reason:
            raise UsageError("--undo puts everything back, so it goes without --ledger, --accept and --reason.")
        _undo(ctx, path, output, as_json)
        return
    if ledger is None or output is None:
        raise UsageError("give the decisions with --ledger and the store to make with -o, or take back with --undo.")
    if (reason or by is not None) and not (accept or accept_all):
        raise UsageError("--by and --reason are written beside what --accept accepts: give --accept or --accept-all.")

    from hemascope.config_files import load_config

    config = load_config(file=config_file, overrides=overrides)
    is_set = config_file is not None or bool(overrides)

    from hemascope.audit.cleaning import clean as apply

    progress = progress_of(ctx)
    cleaned = apply(
        path,
        ledger,
        output,
        accept="all" if accept_all else accept,
        by=_account() if by is None else by,
        reason=reason,
        preparation=config.data.preparation if is_set else None,
        format=format_name,
        class_names=names,
        label_pattern=config.data.label_pattern,
        max_unreadable=config.data.max_unreadable,
        progress=progress,
    )
    for warning in cleaned.plan.warnings:
        progress.warn(f"{warning[0].upper()}{warning[1:]}.")
    if as_json:
        say_json(_summary(cleaned))
        return
    if (accept or accept_all) and not cleaned.accepted:
        say("Nothing was accepted: no undecided finding of these checks suggests anything")
    for line in _lines(cleaned):
        say(line)


def _undo(ctx: click.Context, path: str, output: Path | None, as_json: bool) -> None:
    from hemascope.audit.cleaning import undo

    store, cells = undo(path, output, progress=progress_of(ctx))
    if as_json:
        say_json({"store": str(store), "cells": len(cells), "fingerprint": cells.fingerprint()})
        return
    say(f"{store}: all {len(cells):,} cells are back, in their order, with their labels.")
    say(f"Fingerprint: {cells.fingerprint()}")


def _summary(cleaned: Cleaned) -> dict[str, Any]:
    plan = cleaned.plan
    return {
        "store": str(cleaned.store),
        "written": cleaned.written,
        "ledger": cleaned.ledger.fingerprint(),
        "before": cleaned.before,
        "after": cleaned.cells.fingerprint(),
        "preparation": cleaned.cells.preparation,
        "kept": len(cleaned.cells),
        "removed": int(plan.removed.sum()),
        "relabelled": sum(plan.relabelled_by.values()),
        "dropped_by": plan.dropped_by,
        "relabelled_by": plan.relabelled_by,
        "accepted": cleaned.accepted,
        "decided": sum(bool(row.decision) for row in cleaned.ledger.rows),
        "undecided": sum(not row.decision for row in cleaned.ledger.rows),
        "warnings": list(plan.warnings),
    }


def _lines(cleaned: Cleaned) -> Iterator[str]:
    """What was done, in words."""
    found = _summary(cleaned)
    if cleaned.accepted:
        yield f"Accepted now: {cleaned.accepted:,} findings, written to the ledger"
    if not found["removed"] and not found["relabelled"]:
        yield "The ledger decides nothing that changes a cell. Decide in it, or give --accept CHECK."
    yield (
        f"{cleaned.store}: {found['kept']:,} cells kept, {found['removed']:,} removed, "
        f"{found['relabelled']:,} given another label"
    )
    if not cleaned.written:
        yield "  It was so already: nothing was written"
    for title, counts in (("removed by", found["dropped_by"]), ("relabelled by", found["relabelled_by"])):
        for check, count in counts.items():
            yield f"  {title} {check}: {count:,}"
    if found["undecided"]:
        yield f"  {found['undecided']:,} findings are undecided; their images were left alone"
    yield f"Preparation: {found['preparation']}"
    yield f"Ledger:      {found['ledger']}"
    yield f"Take back:   {shlex.join(['hemascope', 'clean', str(cleaned.store), '--undo'])}"


def _account() -> str:
    with suppress(OSError, KeyError, ImportError):  # a container's account may have no name
        return getpass.getuser()
    return ""
