"""Shift cards, similar cells, explanations and maps: what they cannot be made of, and where they cannot be put."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bad_cases.case import Case, Ground, copy_cell, no_room, ordinary_user, write
from bad_cases.trust_tests import (
    AGAIN,
    arrays,
    bare_bundle,
    both,
    cells_in_the_cache,
    fewer_cells,
    locked,
    loose,
    not_numbers,
    occupied,
    other_store,
    record,
    unknown_class,
)

SHIFT = "shift judged many -o new"
SIMILAR = "similar judged good.jpg"
EXPLAIN = "explain run good.jpg -o new"
MAP = "map cells -o map.html"
SHALLOW = "--set model.backbone=test_resnet --set model.weights=random"


@contextmanager
def _no_grad_cam() -> Iterator[None]:
    """As where the extra was not installed."""
    kept = sys.modules.get("pytorch_grad_cam")
    sys.modules["pytorch_grad_cam"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["pytorch_grad_cam"]
        if kept is not None:
            sys.modules["pytorch_grad_cam"] = kept


def _empty(here: Path, ground: Ground) -> None:
    copy_cell(here, ground)
    (here / "empty").mkdir()


def _text(here: Path, ground: Ground) -> None:
    write("cell.png", "a lymphocyte\n")(here, ground)


def _few(here: Path, ground: Ground) -> None:
    for index in range(4):
        copy_cell(here, ground, f"few/lymphocyte/{index}.jpg")


def _one_label(here: Path, ground: Ground) -> None:
    loose(here, ground)
    copy_cell(here, ground, "pile/lymphocyte/0.jpg")


SECOND_LOOKS = (
    Case("shift of a model that is not there", "shift gone many", ("no model bundle at gone", "Give")),
    Case(
        "shift of a model that was never calibrated",
        "shift run cells -o new",
        ("never calibrated", "hemascope calibrate run"),
    ),
    Case("shift to a path that is not there", "shift judged cellz -o new", ("cellz does not exist",)),
    Case("shift to an empty folder", "shift judged empty -o new", ("empty holds no image",), _empty),
    Case("shift to text named .png", "shift judged cell.png -o new", ("cell.png", "not a JPEG, PNG"), _text),
    Case("shift to pixels of NaN", "shift judged cells.npz -o new", ("NaN or infinity",), not_numbers),
    Case("shift to a store of another preparation", "shift judged packed -o new", ("was packed with",), other_store),
    Case(
        "recalibration without labels",
        "shift judged pile -o new --recalibrated copy",
        ("0 labelled cells", "folders named by class"),
        loose,
    ),
    Case(
        "recalibration on one label",
        "shift judged pile -o new --recalibrated copy",
        ("1 labelled cells", "folders named by class"),
        _one_label,
    ),
    Case("recalibration with at most one label", f"{SHIFT} --labels 1", ("--labels", "2<=x<=100000"), status=2),
    Case(
        "recalibrated copy over a folder of something else",
        "shift judged many -o card --recalibrated new",
        ("new exists already", "Choose another place"),
        occupied,
    ),
    Case(
        "recalibrated copy over its model",
        f"{SHIFT} --recalibrated judged",
        ("judged exists already", "Choose another place"),
    ),
    Case(
        "recalibrated copy where the card goes",
        f"{SHIFT} --recalibrated new",
        ("new", "--recalibrated", "another"),
        status=2,
    ),
    Case(
        "recalibrated copy inside the card's folder",
        f"{SHIFT} --recalibrated new/copy",
        ("new/copy", "--recalibrated", "another"),
        status=2,
    ),
    Case(
        "recalibrated copy without permission to write",
        f"{SHIFT} --recalibrated locked/copy",
        ("cannot write locked/copy", "Permission denied"),
        both(cells_in_the_cache, locked),
        around=ordinary_user,
    ),
    Case(
        "shift card without permission to write",
        "shift judged many -o locked/new --recalibrated copy",
        ("cannot write locked/new", "Permission denied"),
        both(cells_in_the_cache, locked),
        around=ordinary_user,
    ),
    Case(
        "shift card over a folder of something else",
        SHIFT,
        ("new is not empty and does not hold a shift card", "-o"),
        occupied,
    ),
    Case("shift card over a file", SHIFT, ("new: it is a file", "-o"), write("new", "none")),
    Case(
        "disk full while the shift card is written",
        SHIFT,
        ("cannot write new", "Free some space"),
        cells_in_the_cache,
        around=no_room,
    ),
    Case(
        "reference for shifts without quantiles",
        SHIFT,
        ("the reference for shifts", "no sound quantiles of sharpness"),
        record(lambda held: held["shift"]["quantiles"].pop("sharpness")),
    ),
    Case(
        "reference for shifts of another shape",
        SHIFT,
        ("the reference for shifts", "do not fit", AGAIN),
        arrays(lambda held: held.update(shift_covariance=held["shift_covariance"][:-1])),
    ),
    Case(
        "reference for shifts of NaN",
        SHIFT,
        ("the reference for shifts", AGAIN),
        arrays(lambda held: held.update(shift_mean=np.full_like(held["shift_mean"], np.nan))),
    ),
    Case(
        "expected accuracy that is malformed",
        SHIFT,
        ("the expected accuracy", "malformed"),
        record(lambda held: held.update(expected_accuracy={"method": "guess"})),
    ),
    Case(
        "similar cells by a model that is not there", "similar gone good.jpg", ("no model bundle at gone",), copy_cell
    ),
    Case(
        "similar cells by a model that was never calibrated",
        "similar run good.jpg",
        ("keeps no training cells", "hemascope calibrate run"),
        copy_cell,
    ),
    Case("similar cells to an image that is not there", SIMILAR, ("good.jpg does not exist",)),
    Case("similar cells to an empty folder", "similar judged empty", ("empty holds no image",), _empty),
    Case("similar cells to text named .png", "similar judged cell.png", ("cell.png", "not a JPEG, PNG"), _text),
    Case("similar cells to pixels of NaN", "similar judged cells.npz", ("NaN or infinity",), not_numbers),
    Case("no similar cells at all", f"{SIMILAR} -k 0", ("--neighbours", "1<=x<=100"), copy_cell, status=2),
    Case(
        "pictures of training cells that are not there",
        f"{SIMILAR} --data cellz -o new",
        ("cellz does not exist",),
        copy_cell,
    ),
    Case(
        "pictures of other cells than those of the training",
        f"{SIMILAR} --data pile -o new",
        ("none of the model's training cells is in pile", "leave --data out"),
        both(_empty, loose),
    ),
    Case(
        "similar cells over a folder of something else",
        f"{SIMILAR} -o new",
        ("new is not empty and does not hold a list of similar cells", "-o"),
        occupied,
    ),
    Case("similar cells over the run itself", f"{SIMILAR} -o judged", ("judged is not empty", "-o"), copy_cell),
    Case(
        "similar cells without permission to write",
        f"{SIMILAR} -o locked/new",
        ("cannot write locked/new", "Permission denied"),
        locked,
        around=ordinary_user,
    ),
    Case(
        "training cells with fewer names than places",
        SIMILAR,
        ("the training cells in", "do not fit their names", AGAIN),
        record(lambda held: held.update(bank_ids=held["bank_ids"][:3])),
    ),
    Case(
        "training cells whose places are no whole numbers",
        SIMILAR,
        ("the training cells in", "do not fit their names", AGAIN),
        arrays(lambda held: held.update(bank_rows=held["bank_rows"].astype(np.float32))),
    ),
    Case(
        "training cells of classes that are not there",
        SIMILAR,
        ("bank_labels", AGAIN),
        arrays(lambda held: held.update(bank_labels=held["bank_labels"] + 90)),
    ),
    Case("explanation by a model that is not there", "explain gone good.jpg -o new", ("no model bundle",), copy_cell),
    Case("explanation of an image that is not there", EXPLAIN, ("good.jpg does not exist", "check the path")),
    Case("explanation of an empty folder", "explain run empty -o new", ("empty holds no image",), _empty),
    Case(
        "explanation of text named .png",
        "explain run cell.png -o new",
        ("no image that can be read", "not a JPEG, PNG"),
        _text,
    ),
    Case("explanation of pixels of NaN", "explain run cells.npz -o new", ("NaN or infinity",), not_numbers),
    Case("explanation without a place for it", "explain run good.jpg", ("--output", "--help"), copy_cell, status=2),
    Case(
        "unknown method of explanation",
        f"{EXPLAIN} --method gradcm",
        ("no method 'gradcm'", "did you mean 'gradcam'?"),
        copy_cell,
        status=2,
    ),
    Case(
        "one method and all of them",
        f"{EXPLAIN} --method rise --all-methods",
        ("--method and --all-methods exclude each other",),
        copy_cell,
        status=2,
    ),
    Case(
        "policy for a version that is not wanted",
        f"{EXPLAIN} --policy robust --no-augmented",
        ("--policy and --no-augmented exclude each other",),
        copy_cell,
        status=2,
    ),
    Case(
        "unknown policy of an explanation",
        f"{EXPLAIN} --policy robst",
        ("no policy is called 'robst'", "did you mean 'robust'?"),
        copy_cell,
        status=2,
    ),
    Case("explanation of no cell", f"{EXPLAIN} --limit 0", ("--limit", "x>=1"), copy_cell, status=2),
    Case("negative seed of an explanation", f"{EXPLAIN} --seed -1", ("--seed", "x>=0"), copy_cell, status=2),
    Case("unknown part to explain", "explain run cells -o new --part tset", ("tset", "--help"), status=2),
    Case(
        "part of two sets",
        "explain run cells many -o new --part test",
        ("a part is of one labelled data set", "found 2 paths"),
        status=2,
    ),
    Case(
        "part of other cells to explain",
        "explain judged many -o new --part test",
        ("there is no test part",),
        fewer_cells,
        status=2,
    ),
    Case(
        "part of a class the model does not know",
        "explain judged many -o new --part all",
        ("class 'blast' that the model does not know",),
        unknown_class,
    ),
    Case(
        "explained part without labels",
        "explain run pile -o new --part all",
        ("no labelled cell is in the part",),
        loose,
    ),
    Case(
        "names of classes without a part",
        f"{EXPLAIN} --names a,b",
        ("--format and --names are for a labelled data set", "--part"),
        copy_cell,
        status=2,
    ),
    Case(
        "explanation without the extra",
        f"{EXPLAIN} --method gradcam",
        ("grad-cam", "hemascope[explain]"),
        copy_cell,
        status=2,
        around=_no_grad_cam,
    ),
    Case(
        "explanation over a folder of something else",
        EXPLAIN,
        ("new is not empty and does not hold an explanation", "-o"),
        occupied,
    ),
    Case(
        "explanation over the run itself",
        "explain run good.jpg -o run",
        ("run is a run", "Choose another folder with -o"),
        copy_cell,
    ),
    Case(
        "explanation without permission to write",
        "explain run good.jpg -o locked/new",
        ("cannot write locked/new", "Permission denied"),
        locked,
        around=ordinary_user,
    ),
    Case(
        "disk full while an explanation is written",
        EXPLAIN,
        ("cannot write new", "Free some space"),
        copy_cell,
        around=no_room,
    ),
    Case("map of a path that is not there", "map cellz -o map.html", ("cellz does not exist",)),
    Case("map of an empty folder", "map empty -o map.html", ("empty holds no image",), _empty),
    Case("map of four cells", f"map few -o map.html {SHALLOW}", ("at least 10 cells", "found 4"), _few),
    Case("map of pixels of NaN", f"map cells.npz -o map.html {SHALLOW}", ("NaN or infinity",), not_numbers),
    Case("map by a run that is not there", f"{MAP} --run gone", ("no model bundle at gone", "Give")),
    Case(
        "map by a bundle without its run",
        "map many -o map.html --run bare",
        ("bare has no splits.json", "--part all"),
        bare_bundle,
        uses_run=True,
    ),
    Case("map of an unknown part", f"{MAP} --run run --part tset", ("no part 'tset'", "test", "all")),
    Case("map of other cells than the run's", "map many -o map.html --run judged", ("other cells",), fewer_cells),
    Case("map with an unknown setting", f"{MAP} --set model.bone=x", ("model.bone", "did you mean"), status=2),
    Case(
        "map over a folder",
        f"map cells -o new {SHALLOW}",
        ("new", "-o"),
        occupied,
    ),
    Case(
        "map with a file where its cache should be",
        f"map cells -o map.html {SHALLOW}",
        ("the cache kept/embeddings cannot be written (", "Set HEMASCOPE_CACHE"),
        write("kept/embeddings", "none"),
        environment={"HEMASCOPE_CACHE": "kept"},
        leaves=("kept",),
    ),
    Case(
        "map below a file",
        f"map cells -o notes/map.html {SHALLOW}",
        ("cannot write notes/map.html", "choose another place"),
        write("notes", "none"),
    ),
)
