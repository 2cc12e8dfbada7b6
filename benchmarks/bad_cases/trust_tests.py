"""What a model says of itself: calibrations that cannot be made, damaged ones, and trust tests of the wrong things."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bad_cases.case import CLASSES, Case, Ground, Make, copy_cell, no_room, ordinary_user, spoil_byte, write
from bad_cases.models import ADVICE, rewrite_record

CALIBRATE = "calibrate judged many"
TRUST = "trust judged many -o new --limit 4"
PREDICT = "predict judged good.jpg -o out.csv"
COSTED = f"{TRUST} --costs costs.toml"
WORDS = "calibrate judged many --words words"
AGAIN = "hemascope calibrate"


def record(change: Callable[[dict[str, Any]], Any]) -> Make:
    """The calibration in the model's record changed, its digests made to agree; and an image to predict."""

    def make(here: Path, ground: Ground) -> None:
        copy_cell(here, ground)
        rewrite_record(here / "judged/bundle", lambda whole: change(whole["calibration"]))

    return make


def digests_agree(bundle: Path) -> None:
    """The digests of a bundle as its files are now: somebody who means it."""
    names = ("bundle.json", "model.safetensors", "trust.safetensors")
    lines = [f"{hashlib.sha256((bundle / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (bundle / "SHA256SUMS").write_text("".join(lines), encoding="ascii")


def arrays(change: Callable[[dict[str, Any]], Any]) -> Make:
    """The arrays of the calibration changed, their digest made to agree; and an image to predict."""

    def make(here: Path, ground: Ground) -> None:
        from safetensors.numpy import load_file, save_file

        copy_cell(here, ground)
        path = here / "judged/bundle/trust.safetensors"
        held = load_file(path)
        change(held)
        save_file({name: np.ascontiguousarray(value) for name, value in held.items()}, path)
        digests_agree(path.parent)

    return make


def _nan(held: dict[str, Any], name: str) -> None:
    held[name] = np.full_like(held[name], np.nan)


def _bundle(spoil: Callable[[Path], Any]) -> Make:
    def make(here: Path, ground: Ground) -> None:
        copy_cell(here, ground)
        spoil(here / "judged/bundle")

    return make


def _text_as_arrays(bundle: Path) -> None:
    (bundle / "trust.safetensors").write_text("far to be believed\n")
    digests_agree(bundle)


def _digest_taken_out(bundle: Path) -> None:
    lines = (bundle / "SHA256SUMS").read_text().splitlines()
    (bundle / "SHA256SUMS").write_text("".join(f"{line}\n" for line in lines if "trust" not in line))


def both(first: Make, second: Make) -> Make:
    """One bad thing and then another."""

    def make(here: Path, ground: Ground) -> None:
        first(here, ground)
        second(here, ground)

    return make


def loose(here: Path, ground: Ground) -> None:
    """``pile``: three cells of no class."""
    for index in range(3):
        copy_cell(here, ground, f"pile/{index}.jpg")


def fewer_cells(here: Path, ground: Ground) -> None:
    """One of ``many`` is gone."""
    (here / "many" / CLASSES[0] / f"{CLASSES[0]}_00000.jpg").unlink()


def unknown_class(here: Path, ground: Ground) -> None:
    """A class of ``many`` has a name that no model knows."""
    (here / "many" / CLASSES[0]).rename(here / "many" / "blast")


def bare_bundle(here: Path, ground: Ground) -> None:
    """``bare``: the calibrated model without its run."""
    shutil.copytree(ground.judged / "bundle", here / "bare")


def locked(here: Path, ground: Ground) -> None:
    """A good cell, and a folder in which nobody may write."""
    copy_cell(here, ground)
    (here / "locked").mkdir(mode=0o555)


def occupied(here: Path, ground: Ground) -> None:
    """A good cell, and a folder of something else at ``new``."""
    copy_cell(here, ground)
    write("new/thesis.txt", "all of it")(here, ground)


def cells_in_the_cache(here: Path, ground: Ground) -> None:
    """Cells that are read before the disk is full."""
    from hemascope.config_files import load_config
    from hemascope.data.load import load

    preparation = load_config(file=ground.config).data.preparation
    load(here / "many", preparation=preparation, cache_dir=here.parent / "cache")


def not_numbers(here: Path, ground: Ground) -> None:
    """``cells.npz``: images of NaN, with labels."""
    images, labels = ground.arrays()
    np.savez(here / "cells.npz", images=np.full(images.shape, np.nan, dtype=np.float32), labels=labels)


def other_store(here: Path, ground: Ground) -> None:
    """``packed``: a store of cells of 48 pixels."""
    from hemascope.config import Preparation, Resize
    from hemascope.data.store import StoreRow, write_store

    rows = [StoreRow(f"{i}.png", 0, np.zeros((48, 48, 3), np.uint8), f"{i:032x}", 48, 48) for i in range(9)]
    preparation = Preparation(resizes=(Resize(size=48),))
    write_store(here / "packed", rows, class_names=CLASSES, preparation=preparation, source="arrays")


def _tables(change: Callable[[str, str], tuple[str, str]] = lambda header, row: (header, row)) -> Make:
    """``words``: WBCAtt's three tables, of one cell each, that is not among ``many``."""

    def make(here: Path, ground: Ground) -> None:
        from hemascope.morphology.attributes import ATTRIBUTES

        header, values = ",".join(["img_name", "label", *ATTRIBUTES]), [one.values[0] for one in ATTRIBUTES.values()]
        for part in ("train", "val", "test"):
            top, row = change(header, ",".join([f"{part}.jpg", "Neutrophil", *values]))
            write(f"words/pbc_{part}.csv", f"{top}\n{row}\n")(here, ground)

    return make


def _damaged_split(here: Path, ground: Ground) -> None:
    (here / "judged/splits.json").write_text("{", encoding="utf-8")


def costs(text: str) -> Make:
    """``costs.toml`` with this text."""
    return write("costs.toml", text)


TRUST_TESTS = (
    Case("calibration of a model that is not there", "calibrate gone many", ("no model bundle at gone", "Give")),
    Case("calibration on a path that is not there", "calibrate judged cellz", ("cellz does not exist", "check")),
    Case("calibration of a shipped model", "calibrate blood8 many", ("comes with hemascope", "Pack it"), status=2),
    Case(
        "calibration of a bundle without its run",
        "calibrate bare many",
        ("bare has no splits.json", "Give a run's folder"),
        bare_bundle,
        uses_run=True,
    ),
    Case(
        "too few calibration cells",
        "calibrate run cells",
        ("fewer than 20 labelled cells", "Train with more cells"),
    ),
    Case("calibration on other cells", CALIBRATE, ("made for other cells",), fewer_cells),
    Case("calibration by a damaged split", CALIBRATE, ("judged/splits.json",), _damaged_split),
    Case(
        "calibration on a class the model does not know",
        CALIBRATE,
        ("class 'blast' that the model does not know",),
        unknown_class,
    ),
    Case("calibration on cells without labels", "calibrate judged pile", ("made for other cells",), loose),
    Case(
        "calibration on an empty folder",
        "calibrate judged empty",
        ("empty holds no image",),
        lambda here, ground: (here / "empty").mkdir(),
    ),
    Case("calibration on pixels of NaN", "calibrate judged cells.npz", ("NaN or infinity",), not_numbers),
    Case(
        "calibration on a store of another preparation",
        "calibrate judged packed",
        ("was packed with", "bicubic to 48"),
        other_store,
    ),
    Case(
        "calibration of a model with one changed byte",
        CALIBRATE,
        ("model.safetensors is not what was saved", ADVICE),
        _bundle(lambda bundle: spoil_byte(bundle / "model.safetensors")),
    ),
    Case(
        "calibration of a model nobody may write to",
        CALIBRATE,
        ("cannot write judged/bundle", "Permission denied"),
        cells_in_the_cache,
        around=ordinary_user,
    ),
    Case(
        "disk full while calibrating",
        CALIBRATE,
        ("cannot write judged/bundle", "Free some space"),
        cells_in_the_cache,
        around=no_room,
    ),
    Case("words from a folder that is not there", WORDS, ("there is no folder words", "WBCAtt")),
    Case(
        "words from an empty folder",
        WORDS,
        ("words must hold one file whose name ends in _train.csv", "found none"),
        lambda here, ground: (here / "words").mkdir(),
    ),
    Case(
        "words without an attribute",
        WORDS,
        ("must have one column 'cell_size'", "found 0"),
        _tables(lambda header, row: (header.replace("cell_size", "size"), row)),
    ),
    Case(
        "words that no attribute has",
        WORDS,
        ("pbc_train.csv, row 2", "must be one of"),
        _tables(lambda header, row: (header, row.replace(row.split(",")[2], "enormous"))),
    ),
    Case("words for none of the cells", WORDS, ("none of the cells is described by WBCAtt",), _tables()),
    Case("trust test of a model that is not there", "trust gone many", ("no model bundle at gone", "Give")),
    Case(
        "trust test of a model that was never calibrated",
        "trust run cells -o new",
        ("was never calibrated", "hemascope calibrate run"),
    ),
    Case("trust test on a path that is not there", "trust judged cellz -o new", ("cellz does not exist",)),
    Case("trust test on cells without labels", "trust judged pile -o new", ("no labelled cell",), loose),
    Case(
        "trust test on a class the model does not know",
        TRUST,
        ("class 'blast' that the model does not know",),
        unknown_class,
    ),
    Case("trust test of an unknown part", f"{TRUST} --part tset", ("tset", "--help"), status=2),
    Case("trust test on the calibration part", f"{TRUST} --part calibration", ("calibration", "--help"), status=2),
    Case("trust test on a part of other cells", f"{TRUST} --part test", ("no test part",), fewer_cells, status=2),
    Case("trust test under damage to no cell", TRUST.replace("4", "0"), ("--limit", "x>=1"), status=2),
    Case("trust test with a negative limit", TRUST.replace("4", "-3"), ("--limit", "x>=1"), status=2),
    Case("trust test with a limit in words", TRUST.replace("4", "few"), ("--limit", "'few'"), status=2),
    Case(
        "testing the words of a model without words",
        f"{TRUST} --words words",
        ("no words for cells", "--words first"),
        _tables(),
        status=2,
    ),
    Case(
        "trust test over a folder of something else",
        TRUST,
        ("new is not empty and does not hold a trust test", "-o"),
        occupied,
    ),
    Case("trust test over the run itself", "trust judged many -o judged", ("judged is not empty", "-o")),
    Case("trust test over a file", TRUST, ("new: it is a file", "-o"), write("new", "none")),
    Case(
        "trust test without permission to write",
        "trust judged many -o locked/new --limit 4",
        ("cannot write locked/new", "Permission denied"),
        both(cells_in_the_cache, locked),
        around=ordinary_user,
    ),
    Case(
        "disk full while the trust test is written",
        TRUST,
        ("cannot write new", "Free some space"),
        cells_in_the_cache,
        around=no_room,
    ),
    Case("costs that are not there", COSTED, ("costs.toml", "No such file"), status=2),
    Case("costs that are not TOML", COSTED, ("costs.toml is not valid TOML",), costs("ig: 1\n"), status=2),
    Case("binary costs", COSTED, ("costs.toml is not a TOML file",), write("costs.toml", bytes(range(256))), status=2),
    Case("costs of 2 MB", COSTED, ("larger than 100,000 bytes",), costs("#" * 2_000_000), status=2),
    Case("costs of nothing", COSTED, ("names no cost", "[costs.CLASS]"), costs("default = 1.0\n"), status=2),
    Case("costs with an unknown key", COSTED, ("no such key 'cost'", "'costs'"), costs("[cost]\na = 1\n"), status=2),
    Case(
        "costs of an unknown class",
        COSTED,
        ("the model knows no class 'lymphocytes'", "did you mean 'lymphocyte'?"),
        costs("[costs.lymphocytes]\nplatelet = 1\n"),
        status=2,
    ),
    Case(
        "costs with a number for a table",
        COSTED,
        ("'costs.lymphocyte' must be a table", "found 1"),
        costs("[costs]\nlymphocyte = 1\n"),
        status=2,
    ),
    *(
        Case(
            f"a cost of {shown}",
            COSTED,
            ("'costs.lymphocyte.platelet' must be a number from 0 to 1", "found"),
            costs(f"[costs.lymphocyte]\nplatelet = {value}\n"),
            status=2,
        )
        for shown, value in (("2", "2"), ("-1", "-1"), ("NaN", "nan"), ("true", "true"), ('"dear"', '"dear"'))
    ),
    Case(
        "a right answer that costs",
        COSTED,
        ("'costs.platelet.platelet' is a right answer", "found 0.5"),
        costs("[costs.platelet]\nplatelet = 0.5\n"),
        status=2,
    ),
    Case(
        "calibration with one changed byte",
        PREDICT,
        ("trust.safetensors is not what was saved", ADVICE),
        _bundle(lambda bundle: spoil_byte(bundle / "trust.safetensors")),
    ),
    Case(
        "calibration without its arrays",
        PREDICT,
        ("trust.safetensors", "No such file", ADVICE),
        _bundle(lambda bundle: (bundle / "trust.safetensors").unlink()),
    ),
    Case(
        "calibration that is not among the digests",
        PREDICT,
        ("trust.safetensors is not among the digests", ADVICE),
        _bundle(_digest_taken_out),
    ),
    Case(
        "text in place of a calibration's arrays",
        PREDICT,
        ("trust.safetensors is not a whole safetensors file", ADVICE),
        _bundle(_text_as_arrays),
    ),
    Case("calibration that lacks an array", PREDICT, ("lacks basis", AGAIN), arrays(lambda held: held.pop("basis"))),
    Case(
        "calibration with an array of another shape",
        PREDICT,
        ("basis of the detector", "does not fit the rest", AGAIN),
        arrays(lambda held: held.update(basis=held["basis"][:, :-1])),
    ),
    Case(
        "calibration of another network's features",
        PREDICT,
        ("features", "judged/bundle", AGAIN),
        both(
            arrays(lambda held: held.update(centre=held["centre"][:-1], basis=held["basis"][:, :-1])),
            record(lambda held: held["detector"].update(width=held["detector"]["width"] - 1)),
        ),
    ),
    Case(
        "calibration with arrays of NaN",
        PREDICT,
        ("bank_vectors of the detector", "not finite", AGAIN),
        arrays(lambda held: _nan(held, "bank_vectors")),
    ),
    *(
        Case(
            f"calibration with a temperature of {shown}",
            PREDICT,
            ("the temperature in judged/bundle must be a number above 0", "found"),
            record(lambda held, value=value: held.update(temperature=value)),  # type: ignore[misc]
        )
        for shown, value in (("0", 0.0), ("infinity", math.inf), ("NaN", math.nan))
    ),
    Case(
        "calibration with a line for doubt of NaN",
        PREDICT,
        ("malformed at doubt_cut", AGAIN),
        record(lambda held: held.update(doubt_cut=math.nan)),
    ),
    Case(
        "calibration without its detector",
        PREDICT,
        ("malformed at detector", AGAIN),
        record(lambda held: held.pop("detector")),
    ),
    Case(
        "calibration with a detector of an unknown score",
        PREDICT,
        ("goes by a score it does not hold, 'luck'", AGAIN),
        record(lambda held: held["detector"].update(score="luck")),
    ),
    Case(
        "calibration with a detector for other classes",
        PREDICT,
        ("classes", AGAIN),
        record(lambda held: held["detector"].update(classes=5)),
    ),
    Case(
        "calibration that shows sets it does not hold",
        PREDICT,
        ("names prediction sets that it does not hold",),
        record(lambda held: held.update(sets=99)),
    ),
    Case(
        "calibration with cuts for other classes",
        PREDICT,
        ("cuts for another list of classes",),
        record(lambda held: held["conformal"][0].update(cuts=[0.1, 0.2])),
    ),
    Case(
        "calibration of a newer version",
        PREDICT,
        ("malformed at version", AGAIN),
        record(lambda held: held.update(version=7)),
    ),
)
