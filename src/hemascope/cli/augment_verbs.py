"""``hemascope augment``: see what a policy does to cells, list what there is, and augment a set on disk."""

from __future__ import annotations

from pathlib import Path

import click

from hemascope.cli.manners import PATH, progress_of, say, say_json, source_options


@click.group(short_help="See what augmentation does to cells.")
def augment() -> None:
    """What training images go through: policies by name or as a TOML file.

    \b
    Examples:
      hemascope augment policies
      hemascope augment preview robust my_cells/ -o sheet.png
      hemascope train my_cells/ -o runs/robust --set augmentation.policy=robust
    """


@augment.command(short_help="A picture of what the model will see.")
@click.argument("policy")
@click.argument("path")
@click.option("-o", "--output", type=PATH, required=True, help="Picture to make, such as sheet.png.")
@click.option("--cells", type=int, default=8, show_default=True, help="Cells shown.")
@click.option("--config", "config_file", type=PATH, help="TOML file of settings; see `hemascope config`.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting; may be repeated.")
@click.option("--seed", type=int, help="Short for --set seed=N.")
@source_options
@click.pass_context
def preview(
    ctx: click.Context,
    policy: str,
    path: str,
    output: Path,
    cells: int,
    config_file: Path | None,
    overrides: tuple[str, ...],
    seed: int | None,
    format_name: str | None,
    names: tuple[str, ...] | None,
) -> None:
    """Draw cells of PATH as POLICY changes them, and each of its operations at the ends of its strength.

    POLICY is a packaged policy's name or a .toml file.

    \b
    Examples:
      hemascope augment preview robust my_cells/ -o sheet.png
      hemascope augment preview my_policy.toml my_cells/ -o sheet.png --cells 16 --set data.preparation=contest
    """
    from hemascope.config_files import load_config, load_policy

    config = load_config(file=config_file, overrides=_with_seed(overrides, seed))
    chosen = load_policy(policy)

    from hemascope.workflow.augmenting import preview as draw

    page = draw(
        chosen,
        path,
        config,
        output=output,
        cells=cells,
        format=format_name,
        class_names=names,
        progress=progress_of(ctx),
    )
    say(f"Sheet: {page}")


@augment.command(short_help="A packed store with augmented copies.")
@click.argument("policy")
@click.argument("path")
@click.option("-o", "--output", type=PATH, required=True, help="Packed store to make, such as augmented.store.")
@click.option("--copies", type=int, required=True, help="Augmented copies of each training cell.")
@click.option("--config", "config_file", type=PATH, help="TOML file of settings; see `hemascope config`.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting; may be repeated.")
@click.option("--seed", type=int, help="Short for --set seed=N.")
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def store(
    ctx: click.Context,
    policy: str,
    path: str,
    output: Path,
    copies: int,
    config_file: Path | None,
    overrides: tuple[str, ...],
    seed: int | None,
    format_name: str | None,
    names: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Augment the cells of PATH once and for all: a packed store with copies of the training cells.

    Training augments as it goes and never shows the same picture twice; a store is for other programs and for
    comparison. PATH is split first and only its training part is copied. The size is said
    before anything is written.

    \b
    Example:
      hemascope augment store robust my_cells/ -o augmented.store --copies 4
      hemascope train augmented.store -o runs/offline
    """
    from hemascope.config_files import load_config, load_policy

    config = load_config(file=config_file, overrides=_with_seed(overrides, seed))
    chosen = load_policy(policy)

    from hemascope.workflow.augmenting import augment_offline

    made = augment_offline(
        chosen,
        path,
        config,
        output=output,
        copies=copies,
        format=format_name,
        class_names=names,
        progress=progress_of(ctx),
    )
    if as_json:
        say_json(
            {"store": str(made.path), "originals": made.originals, "copies": made.copies, "image_bytes": made.bytes}
        )
        return
    say(f"{made.path}: {made.originals:,} cells and {made.copies:,} augmented copies, {made.bytes / 1e6:,.0f} MB")


@augment.command(short_help="Name the packaged policies.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def policies(as_json: bool) -> None:
    """Name every packaged policy, what it is for and the kinds of damage it does."""
    from hemascope.policies import Policy, policy_names

    found = [Policy.model_validate(name) for name in policy_names()]
    if as_json:
        say_json(
            {
                "policies": [
                    {"name": one.name, "description": one.description, "families": list(one.families())}
                    for one in found
                ]
            }
        )
        return
    for one in found:
        say(one.name)
        say(f"  {one.description}")
        say(f"  damage: {', '.join(one.families()) or 'none'}")


@augment.command(short_help="Name the operations a policy can hold.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def operations(as_json: bool) -> None:
    """Name every operation: its family, what its strength counts, how far it may go and what is usual."""
    from dataclasses import asdict

    from hemascope.policies import OPERATIONS

    if as_json:
        say_json({"operations": [asdict(spec) for spec in OPERATIONS.values()]})
        return
    for spec in OPERATIONS.values():
        strength = (
            f"{spec.unit}: {spec.low:g} to {spec.high:g}, usually {spec.usual[0]:g} to {spec.usual[1]:g}"
            if spec.unit
            else "no strength"
        )
        say(f"{spec.name:18} {spec.family:13} {strength}{'; fill' if spec.fills else ''}")


def _with_seed(overrides: tuple[str, ...], seed: int | None) -> tuple[str, ...]:
    return overrides if seed is None else (*overrides, f"seed={seed}")
