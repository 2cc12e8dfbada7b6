"""From a folder of cells to results, each job in one call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError
from training_setup import features_stage, image_stage, tiny_cells, tiny_config, with_images

from hemascope import workflow
from hemascope.config import RunConfig, StageConfig
from hemascope.data.synthetic import write_synthetic_folder
from hemascope.errors import DataError, NonFiniteLossError, RunError, SplitError, UsageError
from hemascope.evaluation.record import load_predictions
from hemascope.progress import SilentProgress
from hemascope.training.stage import StageRun

SETTINGS = tiny_config(features_stage(epochs=20), image_stage(epochs=1))


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_folder(tmp_path_factory.mktemp("data") / "cells", 12, size=48)


@pytest.fixture(scope="module")
def run(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HEMASCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield workflow.train(cells, SETTINGS, output=tmp_path_factory.mktemp("runs") / "first", command="as called")


def test_a_run_folder_is_complete(run: Any) -> None:
    """A finished run holds every record the docs name, a report, and no checkpoints."""
    names = {path.name for path in run.folder.iterdir()}
    expected = {"config.toml", "manifest.json", "splits.json", "history.jsonl", "bundle", "predictions", "samples"}
    expected |= {"learnt_from.npy"}
    assert names == expected | {"evaluation.json", "report.html"}
    assert not list(run.folder.rglob("*.part"))
    manifest = json.loads((run.folder / "manifest.json").read_text())
    assert manifest["finished"]
    assert manifest["command"] == "as called"
    assert manifest["model"]["backbone"] == "test_efficientnet"
    assert manifest["price_epochs"] > 0
    assert {"loading", "features", "forward", "evaluation", "total"} <= manifest["timing"].keys()


def test_every_part_is_predicted_and_all_but_calibration_measured(run: Any) -> None:
    """Predictions exist for all four parts, metrics for train, validation and test, each cell in one part."""
    found = {path.stem: load_predictions(path) for path in (run.folder / "predictions").glob("*.parquet")}
    assert found.keys() == {"train", "validation", "calibration", "test"}
    assert run.evaluation.splits.keys() == {"train", "validation", "test"}
    ids = [name for part in found.values() for name in part.ids]
    assert len(ids) == len(set(ids)) == 96
    test = found["test"]
    expected = float((test.predicted == test.labels).mean())
    assert run.evaluation.splits["test"].metrics["accuracy"].value == pytest.approx(expected)


def test_the_bundle_scores_as_training_saw_it(run: Any) -> None:
    """The validation score of the saved model is that of the best epoch: the best weights were saved."""
    manifest = json.loads((run.folder / "manifest.json").read_text())
    measured = run.evaluation.splits["validation"].metrics["balanced_accuracy"].value
    assert measured == pytest.approx(manifest["best"]["balanced_accuracy"])


def test_the_map_before_and_after_training_shows_the_test_part(run: Any, cells: Path, tmp_path: Path) -> None:
    """Two maps of the same cells, those of the run's test part alone, each with numbers of its own."""
    drawn = workflow.draw_map(cells, output=tmp_path / "map.html", run=run.folder)
    before, after = drawn.maps
    tested = load_predictions(run.folder / "predictions" / "test.parquet")
    assert drawn.part == "test" and len(before.rows) == len(tested) >= 10
    np.testing.assert_array_equal(before.rows, after.rows)
    assert (before.title, after.title) == ("before training", "after training")
    assert before.silhouette != after.silhouette
    with pytest.raises(SplitError, match="no part 'exam'; it has"):
        workflow.draw_map(cells, output=tmp_path / "map.html", run=run.folder, part="exam")


def test_evaluate_gives_the_same_numbers(run: Any, cells: Path, tmp_path: Path) -> None:
    """Measured again on the whole folder, each cell gets the prediction it got in training's evaluation."""
    again = workflow.evaluate(run.folder, cells, output=tmp_path / "again")
    assert again.report.exists()
    evaluated = load_predictions(tmp_path / "again" / "predictions" / "evaluated.parquet")
    place = {name: row for row, name in enumerate(evaluated.ids)}
    test = load_predictions(run.folder / "predictions" / "test.parquet")
    rows = [place[name] for name in test.ids]
    assert len(evaluated) == 96
    assert np.allclose(evaluated.probs[rows], test.probs, atol=1e-5)


def test_a_run_compared_with_itself_does_not_differ(run: Any) -> None:
    """Paired with itself a run has no difference, no discordant cell and a p-value of 1."""
    found = workflow.compare(run.folder, run.folder)
    assert found.only_first_correct == found.only_second_correct == 0
    assert found.p_value == 1
    assert found.difference["accuracy"].value == 0


def test_compare_names_what_is_there(run: Any) -> None:
    """Asked for a part that was never predicted, compare says which ones were."""
    with pytest.raises(RunError, match="calibration, test, train, validation"):
        workflow.compare(run.folder, run.folder, split="nowhere")


def test_what_is_there_is_not_overwritten(run: Any, cells: Path, tmp_path: Path) -> None:
    """A taken folder, a finished run, other settings and contradicting wishes are each refused in one sentence."""
    other = SETTINGS.model_copy(update={"seed": 5})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    for folder, config, wish, error, words in (
        (run.folder, SETTINGS, {}, RunError, "not empty"),
        (run.folder, SETTINGS, {"resume": True}, RunError, "finished"),
        (run.folder, other, {"resume": True}, RunError, "settings are not those"),
        (run.folder, SETTINGS, {"resume": True, "force": True}, UsageError, "one of them"),
        (tmp_path / "mine", SETTINGS, {"force": True}, RunError, "not a run folder"),
        (tmp_path / "mine", SETTINGS, {"resume": True}, RunError, "no config.toml"),
        (tmp_path / "none", SETTINGS, {"resume": True}, RunError, "no run at"),
    ):
        with pytest.raises(error, match=words):
            workflow.train(cells, config, output=folder, **wish)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    assert (run.folder / "report.html").exists()


def test_a_loss_that_breaks_leaves_no_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An infinite loss ends the run with the stage and steps named, and no bundle or report pretends otherwise."""
    original = StageRun._step

    def breaking(self: StageRun, *arguments: Any) -> Any:
        loss = original(self, *arguments)
        return loss * float("inf") if self.standing.step == 4 else loss

    monkeypatch.setattr(StageRun, "_step", breaking)
    with pytest.raises(NonFiniteLossError, match="stage 'frozen', between steps 5 and 8 "):
        workflow.train(tiny_cells(), SETTINGS, output=tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} & {"bundle", "report.html", "evaluation.json"} == set()
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["finished"] is None


def test_cells_of_another_size_are_refused(tmp_path: Path) -> None:
    """Cells prepared to another size than the settings ask for are a DataError that says both."""
    small = with_images(tiny_cells(), tiny_cells().images[:, ::2, ::2])
    with pytest.raises(DataError, match="bicubic to 32; these are 16 × 16"):
        workflow.train(small, RunConfig(**dict(SETTINGS)), output=tmp_path / "run")


def test_cells_the_run_learnt_from_are_noticed(run: Any, cells: Path) -> None:
    """Evaluating on training cells warns with their number and leaves the sentence in the report's record."""

    class Heard(SilentProgress):
        warnings: ClassVar[list[str]] = []

        def warn(self, message: str) -> None:
            self.warnings.append(message)

    again = workflow.evaluate(run.folder, cells, output=run.folder.parent / "again", progress=Heard())
    counts = json.loads((run.folder / "manifest.json").read_text())["data"]["split_counts"]
    learnt = sum(counts["train"]) + sum(counts["validation"])
    assert Heard.warnings and Heard.warnings[0].startswith(f"{learnt} of these 96 cells")
    record = json.loads((again.folder / "manifest.json").read_text())
    assert record["data"]["split_notes"] == Heard.warnings
    assert "timing" not in record and "price_epochs" not in record


def test_a_last_stage_of_another_size_is_refused() -> None:
    """The best epoch is chosen at the size the model predicts at, so the last stage must train at it."""
    with pytest.raises(ValidationError, match="trains at 16 pixels, but the model will predict at 96"):
        RunConfig(stages=(StageConfig(name="small", size=16),))
