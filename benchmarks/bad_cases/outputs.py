"""Outputs that cannot be written, runs that cannot be gone on with, and results that do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from bad_cases.case import CLASSES, Case, Ground, copy_cell, no_room, ordinary_user, write

TRAIN = "train cells -o new --config tiny.toml"
PREDICT = "predict run good.jpg -o"


def _full_folder(here: Path, ground: Ground) -> None:
    write("new/thesis.txt", "all of it")(here, ground)


def _locked_folder(here: Path, ground: Ground) -> None:
    copy_cell(here, ground)
    (here / "locked").mkdir(mode=0o555)


def _folder_as_table(here: Path, ground: Ground) -> None:
    copy_cell(here, ground)
    (here / "out.csv").mkdir()


def _file_as_folder(here: Path, ground: Ground) -> None:
    copy_cell(here, ground)
    (here / "notes").write_text("none")


def _unfinished(spoil: Callable[[Path, Ground], None] | None = None) -> Callable[[Path, Ground], None]:
    """``new`` is a run that was stopped before its end."""

    def make(here: Path, ground: Ground) -> None:
        shutil.copytree(ground.run, here / "new")
        for name in ("bundle", "predictions", "samples"):
            shutil.rmtree(here / "new" / name, ignore_errors=True)
        for name in ("evaluation.json", "report.html"):
            (here / "new" / name).unlink(missing_ok=True)
        if spoil is not None:
            spoil(here, ground)

    return make


def _damaged_checkpoint(here: Path, ground: Ground) -> None:
    write("new/checkpoints/last.safetensors", b"\x10\0\0\0\0\0\0\0not a header....")(here, ground)


def _cells_in_the_cache(here: Path, ground: Ground) -> None:
    """A copied file is another file to the cache, so these cells are read before the disk is full."""
    from hemascope.config_files import load_config
    from hemascope.data.load import load

    preparation = load_config(file=here / "tiny.toml").data.preparation
    load(here / "cells", preparation=preparation, cache_dir=here.parent / "cache")


def _other_cells(here: Path, ground: Ground) -> None:
    (here / "cells" / CLASSES[0] / f"{CLASSES[0]}_00000.jpg").unlink()


def _damaged_results(text: str) -> Callable[[Path, Ground], None]:
    return write("run/evaluation.json", text)


def _contradiction(here: Path, ground: Ground) -> None:
    path = here / "run/evaluation.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    next(iter(found["splits"].values()))["confusion"] = [[1]]
    path.write_text(json.dumps(found), encoding="utf-8")


def _unknown_class(here: Path, ground: Ground) -> None:
    (here / "cells" / CLASSES[0]).rename(here / "cells" / "blast")


def _loose(here: Path, ground: Ground) -> None:
    for index in range(3):
        copy_cell(here, ground, f"pile/{index}.jpg")


def _foreign_run(here: Path, ground: Ground) -> None:
    """``other`` has predictions of other cells."""
    from dataclasses import replace

    from hemascope.evaluation.record import load_predictions, save_predictions

    shutil.copytree(ground.run, here / "other")
    path = here / "other/predictions/test.parquet"
    found = load_predictions(path)
    save_predictions(path, replace(found, ids=[f"other/{name}" for name in found.ids]))


def _damaged_predictions(here: Path, ground: Ground) -> None:
    shutil.copytree(ground.run, here / "other")
    (here / "other/predictions/test.parquet").write_bytes(b"PAR1")


def _half_run(here: Path, ground: Ground) -> None:
    (here / "run/evaluation.json").unlink()


def _splits_of_others(here: Path, ground: Ground) -> None:
    shutil.copy(ground.run / "splits.json", here / "splits.json")
    _other_cells(here, ground)


def _cache_is_a_file(here: Path, ground: Ground) -> None:
    (here / "occupied").write_text("none")


OUTPUTS = (
    Case(
        "output folder that holds something else",
        TRAIN,
        ("new is not empty", "choose another folder with -o"),
        _full_folder,
    ),
    Case(
        "--force on a folder that is no run",
        f"{TRAIN} --force",
        ("is not a run folder", "--force does not empty it"),
        _full_folder,
    ),
    Case(
        "file as the output folder", TRAIN, ("new: it is a file", "Choose another place with -o"), write("new", "none")
    ),
    Case(
        "output folder without permission to write",
        "train cells -o locked/new --config tiny.toml",
        ("cannot write locked/new", "Permission denied", "Choose a place you may write to with -o"),
        _locked_folder,
        around=ordinary_user,
    ),
    Case(
        "disk full while training",
        TRAIN,
        ("cannot write", "Free some space"),
        _cells_in_the_cache,
        around=no_room,
        leaves=("new",),
    ),
    Case(
        "disk full while reading into the cache",
        "train cells -o new --config tiny.toml --set data.test=0.2",
        ("cannot be written", "HEMASCOPE_CACHE"),
        around=no_room,
        environment={"HEMASCOPE_CACHE": "cache"},
        leaves=("cache",),
    ),
    Case(
        "file as the cache's folder",
        TRAIN,
        ("occupied", "cannot be written", "set HEMASCOPE_CACHE"),
        _cache_is_a_file,
        environment={"HEMASCOPE_CACHE": "occupied"},
    ),
    Case(
        "disk full while the table is written",
        "predict run cells cells cells -o out.jsonl",
        ("cannot write out.jsonl", "File too large", "Free some space"),
        around=no_room,
    ),
    Case(
        "full device as stdout",
        "predict run good.jpg -o -",
        ("cannot write the table", "No space left"),
        copy_cell,
        process=True,
        stdout="/dev/full",
    ),
    Case(
        "table of unknown ending",
        f"{PREDICT} out.xlsx",
        ("cannot tell the table format of out.xlsx", ".csv"),
        copy_cell,
        status=2,
    ),
    Case(
        "folder as the table", f"{PREDICT} out.csv", ("out.csv: it is a folder", "Name a file in it"), _folder_as_table
    ),
    Case(
        "table below a file",
        f"{PREDICT} notes/out.csv",
        ("cannot write notes/out.csv", "choose another place"),
        _file_as_folder,
    ),
    Case(
        "table in a folder without permission to write",
        f"{PREDICT} locked/out.csv",
        ("cannot write locked/out.csv", "Permission denied", "Choose a place"),
        _locked_folder,
        around=ordinary_user,
    ),
    Case("--resume where nothing is", f"{TRAIN} --resume", ("there is no run at new", "Leave out --resume")),
    Case(
        "--resume where something else is",
        f"{TRAIN} --resume",
        ("new holds no run to resume", "Leave out --resume"),
        _full_folder,
    ),
    Case(
        "--resume with other settings",
        f"{TRAIN} --resume --set seed=9",
        ("the settings are not those new was started with", "--config new/config.toml"),
        _unfinished(),
        uses_run=True,
    ),
    Case(
        "--resume with other cells",
        f"{TRAIN} --resume",
        ("made for other cells", "30 images, here are 29"),
        _unfinished(_other_cells),
        uses_run=True,
    ),
    Case(
        "--resume with a damaged checkpoint",
        f"{TRAIN} --resume",
        ("cannot resume from", "--force"),
        _unfinished(_damaged_checkpoint),
        uses_run=True,
        leaves=("new",),
    ),
    Case(
        "--splits of other cells",
        f"{TRAIN} --splits splits.json",
        ("made for other cells", "Make a new split"),
        _splits_of_others,
        uses_run=True,
    ),
    Case(
        "--splits that is not there", f"{TRAIN} --splits gone.csv", ("cannot read the split gone.csv", "No such file")
    ),
    Case("--splits that is no split", f"{TRAIN} --splits tiny.toml", ("tiny.toml is not a split file",)),
    Case(
        "loss that stops being finite",
        f"{TRAIN} --set stages.0.optimizer.lr=10 --set stages.0.optimizer.name=sgd "
        "--set stages.0.epochs=60 --set stages.0.optimizer.momentum=0.99 --set stages.0.schedule.name=constant",
        ("stopped being a finite number in stage 'finetune', between steps", "Lower optimizer.lr"),
        leaves=("new",),
    ),
    Case(
        "evaluation on a class the model does not know",
        "evaluate run cells",
        ("class 'blast' that the model does not know", "lymphocyte, neutrophil, platelet"),
        _unknown_class,
    ),
    Case("evaluation on cells without labels", "evaluate run pile", ("no cell has a label", "Use predict"), _loose),
    Case(
        "evaluation of a run without a model",
        "evaluate new cells",
        ("no model bundle at new", "finished training"),
        _unfinished(),
        uses_run=True,
    ),
    Case(
        "evaluation over the run itself",
        "evaluate run cells -o run",
        ("run is a run", "overwrite the results", "Choose another folder with -o"),
    ),
    Case(
        "evaluation over a folder of something else",
        "evaluate run cells -o new",
        ("new is not empty and does not hold an evaluation", "Choose another folder with -o"),
        _full_folder,
    ),
    Case(
        "comparison of runs without a cell in common",
        "compare run other",
        ("run and other have no scored cell in common", "Evaluate both"),
        _foreign_run,
    ),
    Case(
        "comparison with an unfinished run",
        "compare run new",
        ("new has no predictions of the test part", "Finish the run"),
        _unfinished(),
        uses_run=True,
    ),
    Case(
        "comparison on a part that is not there",
        "compare run run --split tset",
        ("no predictions of the tset part", "Name one of test, train, validation with --split"),
    ),
    Case(
        "comparison with damaged predictions",
        "compare run other",
        ("other/predictions/test.parquet", "damaged"),
        _damaged_predictions,
    ),
    Case("report of a folder that is no run", "report cells", ("cells is not a run folder", "Name the folder")),
    Case("report of nothing", "report gone", ("gone is not a run folder", "Name the folder")),
    Case("report of half a run", "report run", ("run is incomplete", "Resume the run"), _half_run),
    Case(
        "report of damaged results", "report run", ("evaluation.json is damaged", "Restore it"), _damaged_results("{")
    ),
    Case("report of results that contradict themselves", "report run", ("evaluation.json", "3"), _contradiction),
    Case("report written to a folder", "report run -o cells", ("cannot write cells", "-o")),
)
