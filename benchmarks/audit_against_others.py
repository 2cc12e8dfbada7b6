"""The audit's tasks with cleanvision, imagededup and cleanlab beside it: what is found, and in how many seconds.

    python benchmarks/audit_against_others.py DATA --others-python OTHER_ENV/bin/python --work FOLDER [--cells 3000]

DATA is a folder of image files with one folder a class. The three tools live in an environment of their own
(benchmarks/README.md says how to make it) and are called through the scripts in ``others/``. Faults are planted, by
seed, in copies of the cells; every tool is given the same files, labels and, where it takes embeddings, our own.
Each tool is run at its documented defaults and at the settings that suit it best among those named in the table; ours
at its defaults only. Scores are compared, so that no threshold favours anyone; where a tool only answers yes or no,
that answer is its score.

Seconds are wall clock, one after the other on one machine: reading and measuring the images, embedding where
embeddings are used (theirs too, as they are given ours), and the check; not the start of Python and imports. Cells are
in several sets: each is embedded once, timed, and charged to every set that it is in.

Each part's rows are kept in the folder --work as soon as they are known: the same command again goes on from there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from against_others.duplicates_part import exact_part, near_part
from against_others.labels_part import labels_part
from against_others.ours import Ours
from against_others.pictures_part import foreign_part, overlays_part
from against_others.quality_part import quality_part
from against_others.rows import Row, Setting
from against_others.sets import make_base
from against_others.theirs import Theirs
from audit_duplicates import SEEN
from figures import add_json_option, publish
from planted_pictures import Photographs

PARTS: dict[str, Callable[[Setting], list[Row]]] = {
    "quality": quality_part,
    "exact": exact_part,
    "near": near_part,
    "labels": labels_part,
}
PICTURES = {"overlays": overlays_part, "foreign": foreign_part}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with one folder of images a class")
    parser.add_argument("--others-python", type=Path, required=True, help="the Python that has the three tools")
    parser.add_argument("--work", type=Path, required=True, help="folder for planted sets and answers; may be large")
    parser.add_argument("--cells", type=int, help="so many of the cells, by lot; default all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, *PICTURES], default=[*PARTS, *PICTURES])
    parser.add_argument("--photographs", type=Path, help="folder of photographs to lay over cells")
    add_json_option(parser, "audit_against_others")
    options = parser.parse_args()
    began = time.perf_counter()
    options.work.mkdir(parents=True, exist_ok=True)
    theirs = Theirs(options.others_python, options.work / "answers")
    versions = json.loads(theirs.versions())
    run = {"data": str(options.data.resolve()), "cells": options.cells, "seed": options.seed, "versions": versions}
    same_run(options.work / "run.json", run)

    cache = options.work / "cache"
    base, cells = make_base(options.data, options.work / "base", options.cells, options.seed, cache, SEEN)
    ours = Ours(cache, options.seed)
    log(began, f"{len(cells):,} cells")
    ours.learn(cells, options.work / "base.npz")
    log(began, "embedded")
    setting = Setting(options.work, base, ours, theirs, options.seed)
    rows: list[dict[str, Any]] = []
    photographs = Photographs(options.photographs, half=1)
    parts = {**PARTS, **{name: partial(part, photographs=photographs) for name, part in PICTURES.items()}}
    for name in options.parts:
        rows += kept_rows(options.work / f"{name}.rows.json", partial(parts[name], setting))
        log(began, f"part {name}")

    figures = {
        "cells": len(cells),
        "seed": options.seed,
        "others": versions,
        "embedding": ours.embedder.description,
        "rows": rows,
        "seconds": round(time.perf_counter() - began, 1),
    }
    header = ["task", "measure", "tool and setting", "theirs", "ours", "their time", "our time", "ours is"]
    publish(options.json, figures, header, [shown(row) for row in rows])
    behind = [row for row in rows if row["standing"] == "BEHIND"]
    print(f"\nBehind on {len(behind)} of {len(rows)} rows." if behind else f"\nBehind on none of {len(rows)} rows.")


def shown(row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    theirs = "–" if row["theirs"] is None else f"{row['theirs']:.4f}"
    spent = "–" if row["their_seconds"] is None else f"{row['their_seconds']:.1f} s"
    tool = f"{row['tool']} ({row['note']})" if row["note"] else row["tool"]
    ours, our_time = f"{row['ours']:.4f}", f"{row['our_seconds']:.1f} s"
    return [row["task"], row["measure"], tool, theirs, ours, spent, our_time, row["standing"]]


def kept_rows(path: Path, part: Callable[[], list[Row]]) -> list[dict[str, Any]]:
    """The rows of a part: from the file where an earlier run finished it, else made and written there."""
    if not path.is_file():
        found = [row.record() | {"standing": row.standing} for row in part()]
        unfinished = path.with_suffix(".partial")
        unfinished.write_text(json.dumps(found, indent=1, allow_nan=False), encoding="utf-8")
        unfinished.replace(path)
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def same_run(path: Path, run: dict[str, Any]) -> None:
    """Parts of different runs must not be mixed."""
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != run:
        sys.exit(f"{path.parent} holds parts of a run with other settings; name another folder with --work")
    path.write_text(json.dumps(run), encoding="utf-8")


def log(began: float, text: str) -> None:
    """A line that says how far it is."""
    print(f"[{time.perf_counter() - began:7.1f} s] {text}", flush=True)


if __name__ == "__main__":
    main()
