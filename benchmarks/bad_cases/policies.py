"""Augmentation: policies that are misspelt, impossible or hostile, and sheets and stores that cannot be made."""

from __future__ import annotations

from pathlib import Path

from bad_cases.case import Case, Ground, Make, no_room, ordinary_user, write
from bad_cases.trust_tests import both, cells_in_the_cache, locked, not_numbers, other_store

PREVIEW = "augment preview my.toml cells -o sheet.png --config tiny.toml"
STORE = "augment store affine cells -o new.store --config tiny.toml --copies"
TRAIN = "train cells -o new --config tiny.toml"
AT_THE_BOTTOM = '{operation = "jpeg"}'
NESTED = f"steps = [{'{sequence = [' * 40}{AT_THE_BOTTOM}{']}' * 40}]\n"


def policy(steps: str) -> Make:
    """``my.toml`` with these steps, in TOML's inline form."""
    return write("my.toml", f"steps = [{steps}]\n")


_OWN = policy(AT_THE_BOTTOM)
"""A policy that nobody may read: those of the package may lie where nobody may look."""


def _occupied(here: Path, ground: Ground) -> None:
    write("new.store/thesis.txt", "all of it")(here, ground)


POLICIES = (
    Case(
        "unknown policy",
        "augment preview robst cells -o sheet.png",
        ("no policy is called 'robst'", "did you mean 'robust'?"),
        status=2,
    ),
    Case("policy file that is not there", PREVIEW, ("my.toml", "No such file"), status=2),
    Case(
        "policy file that is not TOML", PREVIEW, ("my.toml is not valid TOML",), write("my.toml", "- jpeg\n"), status=2
    ),
    Case(
        "binary policy file",
        PREVIEW,
        ("my.toml",),
        write("my.toml", bytes(range(256))),
        status=2,
    ),
    Case("policy file of 2 MB", PREVIEW, ("larger than",), write("my.toml", "#" * 2_000_000), status=2),
    Case(
        "policy with an unknown operation",
        PREVIEW,
        ("no operation is called 'gausian_blur'", "did you mean 'gaussian_blur'?"),
        policy('{operation = "gausian_blur"}'),
        status=2,
    ),
    Case(
        "policy with an unknown key",
        PREVIEW,
        ("no such key 'steps.0.probabilty'", "did you mean 'probability'?"),
        policy('{operation = "jpeg", probabilty = 0.5}'),
        status=2,
    ),
    Case(
        "policy with a probability of 2",
        PREVIEW,
        ("'steps.0.probability' must be a number from 0 to 1", "found 2"),
        policy('{operation = "jpeg", probability = 2}'),
        status=2,
    ),
    Case(
        "policy with a strength out of bounds",
        PREVIEW,
        ("strength of jpeg must lie in 1 to 95", "found 0 to 50"),
        policy('{operation = "jpeg", strength = [0, 50]}'),
        status=2,
    ),
    Case(
        "policy with a strength from high to low",
        PREVIEW,
        ("must go from low to high", "found 50 to 10"),
        policy('{operation = "jpeg", strength = [50, 10]}'),
        status=2,
    ),
    Case(
        "policy with a strength that is not a number",
        PREVIEW,
        ("'steps.0.strength.1' must be a number", "found nan"),
        policy('{operation = "jpeg", strength = [1.0, nan]}'),
        status=2,
    ),
    Case(
        "policy that chooses 3 of 1",
        PREVIEW,
        ("choose asks for 3 of 1", "replace = true"),
        policy('{choose = 3, of = [{operation = "jpeg"}]}'),
        status=2,
    ),
    Case(
        "policy with a step that is none",
        PREVIEW,
        ("'steps.0' must be a table with one of the keys", "found a table with rotate"),
        policy("{rotate = 10}"),
        status=2,
    ),
    Case(
        "policy that names a file inside",
        PREVIEW,
        ("must be one that comes with hemascope", "found '../../other.toml'"),
        policy('{policy = "../../other.toml"}'),
        status=2,
    ),
    Case("policy nested 40 deep", PREVIEW, ("may nest 12 deep",), write("my.toml", NESTED), status=2),
    Case(
        "policy nested 5,000 deep",
        PREVIEW,
        ("my.toml", "nested too deeply"),
        write("my.toml", "steps = " + "[" * 5_000),
        status=2,
    ),
    Case(
        "training by an unknown policy",
        f"{TRAIN} --set augmentation.policy=trivalaugment",
        ("no policy is called 'trivalaugment'", "did you mean 'trivialaugment'?"),
        status=2,
    ),
    Case(
        "training by a policy file that is not there",
        f"{TRAIN} --set augmentation.policy=gone.toml",
        ("gone.toml", "No such file"),
        status=2,
    ),
    Case(
        "setting from before policies",
        f"{TRAIN} --set augmentation.brightness=0.2",
        ("no such key 'augmentation.brightness'",),
        status=2,
    ),
    Case(
        "--hold-out of a family that is none",
        f"{TRAIN} --hold-out blurr",
        ("blurr", "blur"),
        status=2,
    ),
    Case(
        "--hold-out of an operation instead of its family",
        f"{TRAIN} --hold-out jpeg",
        ("jpeg", "compression"),
        status=2,
    ),
    Case(
        "sheet of no cells",
        "augment preview affine cells -o sheet.png --cells 0",
        ("1 to 24 cells", "found 0"),
        status=2,
    ),
    Case(
        "sheet that is no PNG",
        "augment preview affine cells -o sheet.pdf",
        ("give a name such as sheet.png", "found 'sheet.pdf'"),
        status=2,
    ),
    Case(
        "sheet below a file",
        "augment preview affine cells -o notes/sheet.png --config tiny.toml",
        ("cannot write notes/sheet.png", "choose another place"),
        write("notes", "none"),
    ),
    Case("sheet of cells that are not there", "augment preview affine cellz -o sheet.png", ("cellz does not exist",)),
    Case(
        "sheet of an empty folder",
        "augment preview affine empty -o sheet.png",
        ("empty holds no image",),
        lambda here, ground: (here / "empty").mkdir(),
    ),
    Case(
        "sheet of text named .png",
        "augment preview affine cell.png -o sheet.png",
        ("cell.png", "not a JPEG, PNG"),
        write("cell.png", "a lymphocyte\n"),
    ),
    Case("sheet of pixels of NaN", "augment preview affine cells.npz -o sheet.png", ("NaN or infinity",), not_numbers),
    Case(
        "sheet of a store of another preparation",
        "augment preview affine packed -o sheet.png --config tiny.toml",
        ("was packed with",),
        other_store,
    ),
    Case(
        "sheet without permission to write",
        "augment preview my.toml many -o locked/sheet.png --config tiny.toml",
        ("cannot write locked/sheet.png", "Permission denied"),
        both(both(cells_in_the_cache, locked), _OWN),
        around=ordinary_user,
    ),
    Case(
        "disk full while a sheet is written",
        "augment preview affine many -o sheet.png --config tiny.toml",
        ("cannot write sheet.png", "Free some space"),
        cells_in_the_cache,
        around=no_room,
    ),
    Case("copies of cells that are not there", f"{STORE.replace('cells', 'cellz')} 2", ("cellz does not exist",)),
    Case("copies of pixels of NaN", f"{STORE.replace(' cells ', ' cells.npz ')} 2", ("NaN or infinity",), not_numbers),
    Case("half a copy", f"{STORE} 0.5", ("--copies", "'0.5'"), status=2),
    Case(
        "store of copies without permission to write",
        "augment store my.toml many -o locked/new.store --config tiny.toml --copies 2",
        ("cannot write locked/new.store", "Permission denied"),
        both(both(cells_in_the_cache, locked), _OWN),
        around=ordinary_user,
    ),
    Case(
        "disk full while copies are written",
        "augment store affine many -o new.store --config tiny.toml --copies 2",
        ("cannot write", "Free some space"),
        cells_in_the_cache,
        around=no_room,
    ),
    Case("no copies", f"{STORE} 0", ("copies must be 1 to 100", "found 0"), status=2),
    Case("a million copies", f"{STORE} 1000000", ("copies must be 1 to 100", "found 1000000"), status=2),
    Case(
        "store over a folder of something else",
        f"{STORE} 2",
        ("new.store exists already", "Choose another place with -o"),
        _occupied,
    ),
    Case(
        "store over the cells themselves",
        "augment store affine cells -o cells --config tiny.toml --copies 2",
        ("cells exists already", "Choose another place with -o"),
    ),
)
