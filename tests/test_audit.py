"""The whole audit: from a folder with planted faults to a ledger, a page, and a clean set; and the words around it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hemascope import workflow
from hemascope.audit.cleaning import clean
from hemascope.cli import main
from hemascope.config import RunConfig
from hemascope.data.synthetic import write_synthetic_folder
from hemascope.errors import OutputError, UsageError
from hemascope.findings import CHECKS
from hemascope.ledger import decide, read_ledger, write_ledger

QUICK = RunConfig.model_validate(
    {
        "model": {"backbone": "test_resnet", "weights": "random"},
        "data": {"preparation": {"resizes": [{"size": 48}]}},
    }
)
CHECKED = ["unreadable", "blank", "exact_duplicate", "conflicting_label", "label_error", "leakage", "class_imbalance"]
FEW = ["unreadable", "blank", "exact_duplicate"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic cells with one broken file, one blank image, one copy, and one picture under two labels."""
    place = tmp_path_factory.mktemp("cells") / "cells"
    write_synthetic_folder(place, 8, seed=3)
    first = sorted((place / "basophil").iterdir())
    shutil.copy(first[0], place / "basophil" / "again.png")
    shutil.copy(first[1], place / "monocyte" / "elsewhere.png")
    (place / "platelet" / "broken.png").write_bytes(b"not an image")
    Image.fromarray(np.full((96, 96, 3), 240, np.uint8)).save(place / "neutrophil" / "blank.png")
    return place


@pytest.fixture(scope="module")
def audited(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> workflow.Audited:
    output = tmp_path_factory.mktemp("audits") / "first"
    return workflow.audit(folder, QUICK, output=output, checks=CHECKED, map_points=60, views=1, command="as called")


def test_planted_faults_are_found_each_by_its_check(audited: workflow.Audited) -> None:
    """The broken file, the blank image, the copy and the picture under two labels are found, each as what it is."""
    found = {(finding.check, finding.id, finding.suggestion) for finding in audited.report.findings}
    assert ("unreadable", "platelet/broken.png", "drop") in found
    assert ("blank", "neutrophil/blank.png", "drop") in found
    copies = [finding for finding in audited.report.findings if finding.check == "exact_duplicate"]
    assert len(copies) == 1 and {copies[0].id, copies[0].related} >= {"basophil/again.png"}
    conflicting = {id for check, id, suggestion in found if check == "conflicting_label" and suggestion == "review"}
    assert "monocyte/elsewhere.png" in conflicting and len(conflicting) == 2


def test_what_was_not_checked_is_not_called_passed(audited: workflow.Audited) -> None:
    """Checks come in their order; without a split leakage is not applicable, and says why."""
    assert [result.check for result in audited.report.results] == [code for code in CHECKS if code in CHECKED]
    leakage = audited.report.result("leakage")
    assert leakage.not_applicable and not leakage.passed


def test_the_folder_holds_page_ledger_and_map(audited: workflow.Audited) -> None:
    """One page, one ledger in two files with a row for each finding, and a map of the cells."""
    assert audited.page.read_text(encoding="utf-8").count("<html") == 1
    ledger = read_ledger(audited.ledger)
    assert len(ledger.rows) == len(audited.report.findings)
    assert (audited.folder / "ledger.json").exists()
    assert audited.report.map is not None and len(audited.report.map.rows) == 60


def test_decisions_outlive_the_next_audit_and_cleaning_can_be_undone(
    audited: workflow.Audited, folder: Path, tmp_path: Path
) -> None:
    """A finding called fine stays fine in an audit made again; what is accepted is dropped, and comes back."""
    output = tmp_path / "again"
    shutil.copytree(audited.folder, output)
    ledger = decide(read_ledger(output / "ledger.csv"), ["blank"], "fine", by="me", when="today", reason="a control")
    write_ledger(output, ledger)
    second = workflow.audit(folder, QUICK, output=output, checks=FEW, map_points=0, views=1)
    blank = [row for row in read_ledger(second.ledger).rows if row.check == "blank"]
    assert [(row.decision, row.decided_by, row.reason) for row in blank] == [("fine", "me", "a control")]

    store = tmp_path / "clean.store"
    cleaned = clean(
        folder, second.ledger, store, accept=["exact_duplicate"], by="me", preparation=QUICK.data.preparation
    )
    assert len(cleaned.cells) == len(audited.report) - 1
    third = workflow.audit(store, QUICK, output=tmp_path / "of_the_store", checks=["blank"], map_points=0, views=1)
    carried = [row for row in read_ledger(third.ledger).rows if row.check == "blank"]
    assert [row.decision for row in carried] == ["fine"]
    assert third.report.facts["cleaning"] == cleaned.cells.cleaning != ""


def test_the_same_audit_says_the_same(audited: workflow.Audited, folder: Path, tmp_path: Path) -> None:
    """Scores, findings and map of a second audit with the same seed are equal to those of the first."""
    again = workflow.audit(folder, QUICK, output=tmp_path / "again", checks=CHECKED, map_points=60, views=1)
    assert again.report.findings == audited.report.findings
    assert audited.report.map is not None and again.report.map is not None
    np.testing.assert_array_equal(again.report.map.position, audited.report.map.position)


def test_a_folder_that_is_no_audit_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    """An output folder with something else in it, or a file, is refused before anything is read."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty and holds no audit"):
        workflow.audit(folder, QUICK, output=tmp_path)
    with pytest.raises(OutputError, match="it is a file"):
        workflow.audit(folder, QUICK, output=tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_unknown_check_gets_the_nearest_name(folder: Path, tmp_path: Path) -> None:
    """A misspelt check is answered with the one that was meant, and nothing is written."""
    with pytest.raises(UsageError, match="no check 'near_duplicates'; did you mean 'near_duplicate'"):
        workflow.audit(folder, QUICK, output=tmp_path / "x", checks=["near_duplicates"])
    with pytest.raises(UsageError, match="at least 10 points, or 0 for none; found 3"):
        workflow.audit(folder, QUICK, output=tmp_path / "x", map_points=3)
    assert not (tmp_path / "x").exists()


def test_the_verb_says_what_was_found_and_what_to_do_next(folder: Path, tmp_path: Path) -> None:
    """``hemascope audit`` prints each check with its outcome, where the page is, and how to clean; --json is JSON."""
    words = [
        "--quiet", "audit", str(folder), "-o", str(tmp_path / "a"), "--checks", "unreadable,exact_duplicate,leakage",
        "--map", "0", "--set", "data.preparation.resizes=[{size=48}]",
    ]  # fmt: skip
    said = CliRunner().invoke(main, words)
    assert said.exit_code == 0, said.output
    assert "Exact duplicates" in said.output and "1 found (1 to drop)" in said.output
    assert "not applicable: " in said.output
    assert "hemascope clean" in said.output and "ledger.csv" in said.output
    told = CliRunner().invoke(main, [*words, "--json"])
    summary = json.loads(told.stdout)
    assert {one["check"]: one["findings"] for one in summary["checks"]}["unreadable"] == 1
    wrong = CliRunner().invoke(main, ["audit", str(tmp_path / "nowhere"), "-o", str(tmp_path / "b")])
    assert wrong.exit_code == 1 and "Traceback" not in wrong.output


def test_checks_can_be_listed() -> None:
    """``--list-checks`` names every check without any data."""
    said = CliRunner().invoke(main, ["audit", "--list-checks"])
    assert said.exit_code == 0
    assert all(code in said.output for code in CHECKS)


def test_a_map_of_a_set_and_its_two_numbers(folder: Path, tmp_path: Path) -> None:
    """``draw_map`` writes one page with silhouette and neighbours' accuracy measured on the vectors."""
    drawn = workflow.draw_map(folder, QUICK, output=tmp_path / "map.html", points=40)
    assert drawn.page.exists() and len(drawn.maps) == 1 and drawn.part == "all"
    assert len(drawn.maps[0].rows) == 40
    assert drawn.maps[0].silhouette is not None and -1 <= drawn.maps[0].silhouette <= 1
    assert drawn.maps[0].knn_accuracy is not None and 0 <= drawn.maps[0].knn_accuracy <= 1
