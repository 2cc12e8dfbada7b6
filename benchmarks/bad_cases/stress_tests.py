"""Stress tests: gates, parts, baselines and severities that are wrong, and results that were damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bad_cases.case import CLASSES, Case, Ground, no_room, ordinary_user, spoil_byte, write
from bad_cases.trust_tests import both, cells_in_the_cache, locked, loose, not_numbers, other_store

STRESS = "stress run cells -o new --limit 6 --corruptions jpeg"
GATED = f"{STRESS} --gate gate.toml"
RELATIVE = "stress run cells -o new --limit 6 --corruptions jpeg --baseline old"


def gate(text: str) -> Callable[[Path, Ground], None]:
    """``gate.toml`` with this text."""
    return write("gate.toml", text)


def _old(spoil: Callable[[Path], Any]) -> Callable[[Path, Ground], None]:
    """``old`` is an earlier stress test, changed by ``spoil``, which gets its folder."""

    def make(here: Path, ground: Ground) -> None:
        shutil.copytree(ground.stressed, here / "old")
        spoil(here / "old")

    return make


def _clean_of_nan(folder: Path) -> None:
    record = json.loads((folder / "stress.json").read_text(encoding="utf-8"))
    record["clean"]["balanced_accuracy"]["value"] = float("nan")
    (folder / "stress.json").write_text(json.dumps(record), encoding="utf-8")


def _rewritten(folder: Path, **arrays: Any) -> None:
    with np.load(folder / "predictions.npz", allow_pickle=False) as saved:
        kept = {name: saved[name] for name in saved.files}
    np.savez_compressed(folder / "predictions.npz", allow_pickle=True, **{**kept, **arrays})


def _bare_array(folder: Path) -> None:
    with (folder / "predictions.npz").open("wb") as file:
        np.save(file, np.arange(3))


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _occupied(here: Path, ground: Ground) -> None:
    write("new/thesis.txt", "all of it")(here, ground)


def _unknown_class(here: Path, ground: Ground) -> None:
    (here / "cells" / CLASSES[0]).rename(here / "cells" / "blast")


def _other_cells(here: Path, ground: Ground) -> None:
    (here / "cells" / CLASSES[0] / f"{CLASSES[0]}_00000.jpg").unlink()


STRESS_TESTS = (
    Case("stress test of a model that is not there", "stress gone cells", ("no model bundle at gone", "Give a bundle")),
    Case("stress test on cells that are not there", "stress run cellz -o new", ("cellz does not exist",)),
    Case(
        "stress test on a class the model does not know",
        STRESS,
        ("class 'blast' that the model does not know",),
        _unknown_class,
    ),
    Case("unknown part", f"{STRESS} --part tset", ("tset", "test", "--help"), status=2),
    Case(
        "part of other cells",
        f"{STRESS} --part test",
        ("there is no test part", "Leave --part out"),
        _other_cells,
        status=2,
    ),
    Case(
        "unknown corruption",
        "stress run cells -o new --corruptions jpg,pixelate",
        ("no corruption is called 'jpg'", "did you mean 'jpeg'?"),
        status=2,
    ),
    Case(
        "no corruption named",
        "stress run cells -o new --corruptions ,",
        ("no corruption was named", "leave --corruptions out"),
        status=2,
    ),
    Case("severity 6", f"{STRESS} --severities 1,6", ("numbers from 1 to 5", "found 6"), status=2),
    Case("severities in words", f"{STRESS} --severities mild", ("numbers from 1 to 5", "found 'mild'"), status=2),
    Case(
        "limit of no cells",
        "stress run cells -o new --corruptions jpeg --limit 0",
        ("a limit must be at least 1", "found 0"),
        status=2,
    ),
    Case("seed of the training", f"{STRESS} --seed 0", ("trained with seed 0", "another"), status=2),
    Case("negative seed of the test", f"{STRESS} --seed -1", ("at least 0", "found -1"), status=2),
    Case(
        "unknown views in a stress test",
        f"{STRESS} --tta dihedrl",
        ("no test-time view is called 'dihedrl'", "did you mean 'dihedral'?"),
        status=2,
    ),
    Case("gate that is not there", GATED, ("cannot read the gate gate.toml", "No such file"), status=2),
    Case("gate that is not TOML", GATED, ("gate.toml is not valid TOML",), gate("clean: 0.9\n"), status=2),
    Case("binary gate", GATED, ("gate.toml is not a TOML file",), write("gate.toml", bytes(range(256))), status=2),
    Case("gate of 2 MB", GATED, ("larger than 100,000 bytes",), gate("#" * 2_000_000), status=2),
    Case("gate without a limit", GATED, ("states no limit", "give clean"), gate('bound = "low"\n'), status=2),
    Case(
        "gate with an unknown key",
        GATED,
        ("no such key 'cleen'", "did you mean 'clean'?"),
        gate("cleen = 0.9\n"),
        status=2,
    ),
    Case(
        "gate with a limit of 98 (per cent)",
        GATED,
        ("'clean' must be a balanced accuracy from 0 to 1", "found 98"),
        gate("clean = 98\n"),
        status=2,
    ),
    Case(
        "gate with an unknown bound",
        GATED,
        ("'bound' must be", '"low"', "found high"),
        gate('bound = "high"\nclean = 0.9\n'),
        status=2,
    ),
    Case(
        "gate with a limit for what is not measured",
        GATED,
        ("a limit for 'pixelate'", "not measured"),
        gate("[corruptions]\npixelate = 0.9\n"),
        status=2,
    ),
    Case(
        "gate that is not passed",
        GATED,
        ("Failed: clean", "the limit 1.0000"),
        gate("bound = 'low'\nclean = 1.0\n"),
        leaves=("new",),
    ),
    Case("baseline that is not there", RELATIVE, ("cannot read the stress test old/stress.json", "No such file")),
    Case(
        "baseline on two severities",
        f"{RELATIVE} --severities 1,2",
        ("means over all five severities", "leave --severities out"),
        _old(lambda folder: None),
        status=2,
    ),
    Case(
        "baseline with a damaged stress.json",
        RELATIVE,
        ("old/stress.json", "make the test again"),
        _old(lambda folder: _cut(folder / "stress.json")),
    ),
    Case(
        "baseline whose stress.json says a clean accuracy of NaN",
        RELATIVE,
        ("old/stress.json", "make the test again"),
        _old(_clean_of_nan),
    ),
    Case(
        "baseline with predictions.npz cut off",
        RELATIVE,
        ("old/predictions.npz", "remove the file"),
        _old(lambda folder: _cut(folder / "predictions.npz")),
    ),
    Case(
        "baseline with a changed byte in predictions.npz",
        RELATIVE,
        ("old/predictions.npz", "remove the file"),
        _old(lambda folder: spoil_byte(folder / "predictions.npz", 60)),
    ),
    Case(
        "baseline with a bare array as predictions.npz",
        RELATIVE,
        ("old/predictions.npz", "remove the file"),
        _old(_bare_array),
    ),
    Case(
        "baseline with a pickle in predictions.npz",
        RELATIVE,
        ("old/predictions.npz", "remove the file"),
        _old(lambda folder: _rewritten(folder, conditions=np.array([{"clean": 0}], dtype=object))),
    ),
    Case(
        "baseline with too few labels in predictions.npz",
        RELATIVE,
        ("old/predictions.npz", "remove the file"),
        _old(lambda folder: _rewritten(folder, predicted=np.zeros((2, 2), dtype=np.int16))),
    ),
    Case(
        "results over a folder of something else",
        STRESS,
        ("new is not empty and does not hold a stress test", "Choose another folder with -o"),
        _occupied,
    ),
    Case(
        "results over the run itself",
        "stress run cells -o run",
        ("run is not empty and does not hold a stress test", "Choose another folder with -o"),
    ),
    Case("stress test on cells without labels", "stress run pile -o new", ("no labelled cell",), loose),
    Case(
        "stress test on an empty folder",
        "stress run empty -o new",
        ("empty holds no image",),
        lambda here, ground: (here / "empty").mkdir(),
    ),
    Case("stress test on pixels of NaN", "stress run cells.npz -o new", ("NaN or infinity",), not_numbers),
    Case(
        "stress test on a store of another preparation", "stress run packed -o new", ("was packed with",), other_store
    ),
    Case(
        "stress test of a model with one changed byte",
        STRESS,
        ("model.safetensors is not what was saved", "Copy the bundle again"),
        lambda here, ground: spoil_byte(here / "run/bundle/model.safetensors"),
    ),
    Case(
        "stress test without permission to write",
        "stress judged many -o locked/new --limit 6 --corruptions jpeg",
        ("cannot write locked/new", "Permission denied"),
        both(cells_in_the_cache, locked),
        around=ordinary_user,
    ),
    Case(
        "disk full while the stress test is written",
        "stress judged many -o new --limit 6 --corruptions jpeg",
        ("cannot write new", "Free some space"),
        cells_in_the_cache,
        around=no_room,
    ),
    Case("results over a file", STRESS, ("new: it is a file", "Choose another place with -o"), write("new", "none")),
)
