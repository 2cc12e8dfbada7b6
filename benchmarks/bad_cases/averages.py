"""Views, ensembles, soups, packed and shipped models: what does not go together, or has no room."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_cases.case import Case, Ground, copy_cell, no_room, ordinary_user, spoil_byte, write
from bad_cases.models import rewrite_record
from bad_cases.trust_tests import both, locked, loose

PREDICT = "predict run good.jpg -o out.csv"
ENSEMBLE = f"{PREDICT} --ensemble other"
SOUP = "soup run other -o new"


def _other(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path, Ground], None]:
    """``other`` is the run with its bundle's record changed, whole and with digests that agree."""

    def make(here: Path, ground: Ground) -> None:
        copy_cell(here, ground)
        shutil.copytree(ground.run, here / "other")
        rewrite_record(here / "other/bundle", change)

    return make


def _another_class(record: dict[str, Any]) -> None:
    record["class_names"][0] = "blast"


def _another_size(record: dict[str, Any]) -> None:
    record["preparation"]["resizes"][-1]["size"] = 64


def _same(record: dict[str, Any]) -> None:
    """Leave it alone."""


def _other_split(here: Path, ground: Ground) -> None:
    import json

    _other(_same)(here, ground)
    path = here / "other/splits.json"
    split = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**split, "fingerprint": "0" * 64}), encoding="utf-8")


def _bundle_alone(here: Path, ground: Ground) -> None:
    _other(_same)(here, ground)
    shutil.copytree(here / "other/bundle", here / "bare")


def _changed_ingredient(here: Path, ground: Ground) -> None:
    _other(_same)(here, ground)
    spoil_byte(here / "other/bundle/model.safetensors")


def _dark(here: Path, ground: Ground) -> None:
    copy_cell(here, ground)
    rewrite_record(here / "run/bundle", lambda record: record["provenance"].pop("illuminant", None))


def _wrong_light(here: Path, ground: Ground) -> None:
    copy_cell(here, ground)
    rewrite_record(here / "run/bundle", lambda record: record["provenance"].update(illuminant=[0, "blue", 1e9]))


def _occupied(here: Path, ground: Ground) -> None:
    write("new/thesis.txt", "all of it")(here, ground)


AVERAGES = (
    Case(
        "unknown views",
        f"{PREDICT} --tta dihedrl",
        ("no test-time view is called 'dihedrl'", "did you mean 'dihedral'?"),
        copy_cell,
        status=2,
    ),
    Case(
        "views of which one holds the other",
        f"{PREDICT} --tta flips --tta dihedral",
        ("dihedral holds the views of flips", "give one"),
        copy_cell,
        status=2,
    ),
    Case(
        "no views and some",
        f"{PREDICT} --tta none --tta flips",
        ("--tta none is no view at all", "flips"),
        copy_cell,
        status=2,
    ),
    Case(
        "packing a model with views that are none",
        "pack run -o new --tta dihedrl",
        ("no test-time view is called 'dihedrl'", "did you mean 'dihedral'?"),
        status=2,
    ),
    Case(
        "colour constancy for a model that does not know its light",
        f"{PREDICT} --tta colour_constancy",
        ("does not say in what light", "pack the model with --light"),
        _dark,
        status=2,
    ),
    Case(
        "colour constancy for a model with an impossible light",
        f"{PREDICT} --tta colour_constancy",
        ("does not say in what light", "pack the model with --light"),
        _wrong_light,
        status=2,
    ),
    Case("ensemble with a model that is not there", ENSEMBLE, ("no model bundle at other", "Give"), copy_cell),
    Case(
        "ensemble of models of other classes",
        ENSEMBLE,
        ("must know the same classes", "'blast'", "other"),
        _other(_another_class),
        status=2,
    ),
    Case(
        "ensemble of models of other preparation",
        ENSEMBLE,
        ("prepared alike", "32", "64"),
        _other(_another_size),
        status=2,
    ),
    Case(
        "evaluation of an ensemble without a folder for it",
        "evaluate run cells --ensemble other",
        ("views and ensembles are not the run itself", "-o"),
        _other(_same),
        status=2,
    ),
    Case("soup of one", "soup run -o new", ("at least two models", "found 1"), status=2),
    Case("soup of nothing", "soup -o new", ("Missing argument", "--help"), status=2),
    Case("soup with a folder that holds no model", "soup run cells -o new", ("no model bundle at cells", "Give")),
    Case(
        "soup of other networks",
        SOUP,
        ("models alike", "another network"),
        _other(lambda record: record["model"].update(backbone="test_vit")),
        status=2,
    ),
    Case("soup of models of other classes", SOUP, ("another list of classes",), _other(_another_class), status=2),
    Case("soup of models of other preparation", SOUP, ("another preparation",), _other(_another_size), status=2),
    Case("soup over a folder of something else", SOUP, ("new exists already", "-o"), _occupied),
    Case(
        "greedy soup of a bundle without its run",
        "soup run bare -o new --greedy cells",
        ("bare has no splits.json", "Give a run's folder"),
        _bundle_alone,
    ),
    Case(
        "greedy soup on cells that are not there",
        f"{SOUP} --greedy cellz",
        ("cellz does not exist",),
        _other(_same),
    ),
    Case(
        "greedy soup with a changed split",
        f"{SOUP} --greedy cells",
        ("other/splits.json",),
        _other_split,
    ),
    Case(
        "soup with a model of one changed byte",
        SOUP,
        ("other/bundle/model.safetensors is not what was saved", "Copy the bundle again"),
        _changed_ingredient,
    ),
    Case(
        "greedy soup on cells without labels",
        f"{SOUP} --greedy pile",
        ("made for other cells",),
        both(_other(_same), loose),
    ),
    Case(
        "soup without permission to write",
        "soup run other -o locked/new",
        ("cannot write locked/new", "Permission denied"),
        both(_other(_same), locked),
        around=ordinary_user,
    ),
    Case(
        "disk full while a soup is written",
        SOUP,
        ("cannot write new", "Free some space"),
        _other(_same),
        around=no_room,
    ),
    Case(
        "disk full while a model is packed",
        "pack run -o new",
        ("cannot write new", "Free some space"),
        around=no_room,
    ),
    Case("packing onto a full folder", "pack run -o new", ("new exists already", "Choose another place"), _occupied),
    Case("packing a model onto its own run", "pack run -o run", ("run exists already", "Choose another place")),
    Case("packing onto a file", "pack run -o new", ("new exists already", "Choose another"), write("new", "none")),
    Case("packing what is no model", "pack cells -o new", ("no model bundle at cells", "Give")),
    Case("checking a packed model on nothing", "pack run -o new --check cellz", ("cellz does not exist",)),
    Case(
        "light of cells the run was not split from",
        "pack bare -o new --light cells",
        ("bare has no splits.json", "Give a run's folder"),
        _bundle_alone,
        uses_run=True,
    ),
    Case("card of a model of unknown name", "models blood9", ("no model called 'blood9'", "comes with hemascope")),
    Case(
        "name that leads out of the package",
        "models ../data",
        ("no model called '../data'", "comes with hemascope"),
    ),
)
