"""Write docs/cli.md, docs/config.md and docs/augmentation.md from the program itself.

Run by ``make docs``; a test compares.
"""

from __future__ import annotations

from pathlib import Path

import click

from hemascope.cli import main
from hemascope.cli.config_verb import markdown_lines
from hemascope.cli.manners import HELP_SETTINGS

DOCS = Path(__file__).resolve().parent.parent / "docs"
WIDTH = 100


def cli_page() -> str:
    """The help of the program and of every verb, as a Markdown page."""
    root = click.Context(main, info_name="hemascope", terminal_width=WIDTH, **HELP_SETTINGS)
    parts = [
        "# Command line\n",
        "<!-- Made by `make docs` from hemascope/cli: change it there. -->\n",
        "Results go to stdout, progress and warnings to stderr. Exit status: 0 done, 1 the work failed, 2 the call\n"
        "was wrong, 130 stopped with Ctrl-C. `HEMASCOPE_DEBUG=1` shows tracebacks.\n",
        _help("hemascope", root),
    ]
    for name in main.list_commands(root):
        verb = main.commands[name]
        context = click.Context(verb, info_name=name, parent=root)
        parts.append(_help(f"hemascope {name}", context))
        for inner in verb.list_commands(context) if isinstance(verb, click.Group) else ():
            below = click.Context(verb.commands[inner], info_name=inner, parent=context)
            parts.append(_help(f"hemascope {name} {inner}", below))
    return "\n".join(parts)


GRAMMAR = """\
A policy says what training images go through. `[augmentation] policy` takes the name of a packaged one, a `.toml` file,
or a table; `hemascope augment preview POLICY CELLS -o sheet.png` shows what the model would see. Mirroring and quarter
turns are switches of their own, and mixup and CutMix, which mix labels too, are settings of a training stage
(`stages.N.mixup`, `stages.N.cutmix`).

A policy is a list of steps, done one after the other. A step is known by the key it holds, and steps nest:

```toml
name = "mine"
description = "What it is for."

[[steps]]                       # one operation
operation = "brightness"
strength = [0.6, 1.4]           # drawn evenly between the two; one number: always that; left out: the usual range
probability = 0.5               # left out: always

[[steps]]                       # two or three of these, in random order
choose = [2, 3]
weights = [2, 1, 1]             # left out: all alike; replace = true: the same one may come again
of = [
  { operation = "rotate", fill = "reflect" },
  { operation = "shear_x", strength = [0, 0.3], either_sign = true, fill = "black" },
  { policy = "winners_height", probability = 0.3 },   # another policy, by its name
]

[[steps]]                       # one after the other, or order = "random"
sequence = [{ operation = "jpeg" }, { operation = "gaussian_noise" }]
probability = 0.2

[[steps]]                       # AugMix: chains of operations mixed with each other and with the image
augmix = 3
depth = [1, 3]
of = [{ operation = "equalise" }, { operation = "posterise", strength = [3, 5] }]
```

`fill` is what moves into view or covers: `reflect`, `edge` or `wrap` (the image continued), `black`, `grey`, `white`,
`ground` (the colour of the image's rim), `noise`, or `any` of them at random. Lengths are shares of the image's side,
so a policy means the same at any size. `augmentation.without = ["blur"]`, or `train --hold-out blur`, takes a family
out.
"""


def augmentation_page() -> str:
    """How policies are written, the packaged ones, and every operation with its bounds."""
    from hemascope.policies import OPERATIONS, Policy, policy_names

    lines = [
        "# Augmentation policies",
        "",
        "<!-- Made by `make docs`: change scripts/generate_docs.py. -->",
        "",
        GRAMMAR,
    ]
    lines += ["## Packaged policies", "", "| name | what it is |", "|---|---|"]
    found = [Policy.model_validate(name) for name in policy_names()]
    lines += [f"| `{one.name}` | {one.description} |" for one in found]
    lines += [
        "",
        "## Operations",
        "",
        "| name | family | strength | allowed | usual | fill |",
        "|---|---|---|---|---|---|",
    ]
    for spec in OPERATIONS.values():
        allowed, usual = (
            (f"{spec.low:g} to {spec.high:g}", f"{spec.usual[0]:g} to {spec.usual[1]:g}") if spec.unit else ("", "")
        )
        fill = "yes" if spec.fills else ""
        lines.append(f"| `{spec.name}` | {spec.family} | {spec.unit} | {allowed} | {usual} | {fill} |")
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Each generated page with its text."""
    return {
        DOCS / "cli.md": cli_page(),
        DOCS / "config.md": "\n".join(markdown_lines()) + "\n",
        DOCS / "augmentation.md": augmentation_page(),
    }


def _help(title: str, context: click.Context) -> str:
    text = "\n".join(line.rstrip() for line in context.command.get_help(context).splitlines())
    return f"## {title}\n\n```\n{text}\n```\n"


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(f"wrote {path.relative_to(DOCS.parent)}")
