"""Measuring a model under corruptions: the figures, the record, the gate, the verb."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hemascope.cli import main
from hemascope.config import HeadConfig, ModelConfig, Preparation, Resize
from hemascope.data.load import load
from hemascope.data.synthetic import write_synthetic_folder
from hemascope.errors import ConfigError, OutputError, RunError, UsageError
from hemascope.evaluation.robustness import accuracy_estimate, by_group, mean_relative, relative_errors, resample
from hemascope.evaluation.stress_measures import gate_limits
from hemascope.evaluation.stress_record import baseline_of, load_stress, read_baseline
from hemascope.models.bundle import save_bundle
from hemascope.models.classifier import create_classifier
from hemascope.stress_gate import Gate, load_gate
from hemascope.stress_results import Baseline
from hemascope.workflow.stressing import render_again, stress

LABELS = np.array([0] * 80 + [1] * 20)
PREPARATION = Preparation(name="tiny", resizes=(Resize(size=32),))


def said(*rates: tuple[float, float]) -> np.ndarray:
    """Predicted labels (C, 100) that find these shares of class 0 and of class 1."""
    rows = []
    for first, second in rates:
        right = np.concatenate([np.arange(80) < 80 * first, np.arange(20) < 20 * second])
        rows.append(np.where(right, LABELS, 1 - LABELS))
    return np.array(rows)


def test_balanced_accuracy_counts_classes_alike() -> None:
    """Recall 0.75 of 80 cells and 0.25 of 20 cells is a balanced accuracy of 0.5, whatever the sizes."""
    found = resample(said((0.75, 0.25), (1, 1)), LABELS, 2, resamples=200, seed=0)
    assert found.value.tolist() == [0.5, 1.0]
    assert [one.value for one in found.class_recall(0)] == [0.75, 0.25]
    estimate = found.balanced_accuracy(0)
    # The standard error of the mean of the two recalls is half the root of their variances' sum.
    error = 0.5 * (0.75 * 0.25 / 80 + 0.25 * 0.75 / 20) ** 0.5
    assert estimate.low == pytest.approx(0.5 - 1.96 * error, abs=0.03)
    assert estimate.high == pytest.approx(0.5 + 1.96 * error, abs=0.03)


def test_a_perfect_condition_is_not_certain() -> None:
    """Where no cell is wrong the lower end is the exact binomial one, not one."""
    found = resample(said((1, 1)), LABELS, 2, resamples=200, seed=0).balanced_accuracy(0)
    assert found.value == 1.0
    assert found.low is not None
    assert 0.85 < found.low < 0.99


def test_conditions_are_resampled_together() -> None:
    """Two conditions with the same mistakes differ by nothing in every resample, so their mean is as sure as either."""
    found = resample(said((0.75, 0.25), (0.75, 0.25)), LABELS, 2, resamples=200, seed=0)
    assert np.array_equal(found.samples[:, 0], found.samples[:, 1])
    mean, alone = found.mean([0, 1]), found.balanced_accuracy(0)
    assert mean.low == pytest.approx(alone.low)


def test_relative_errors_are_those_of_the_definition() -> None:
    """BE is mean error over the baseline's; rBE the same less the clean errors: 0.3/0.4 and 0.2/0.35 here."""
    found = resample(said((0.9, 0.9), (0.8, 0.8), (0.6, 0.6)), LABELS, 2, resamples=50, seed=0)
    baseline = Baseline(name="plain", clean_error=0.05, errors={"jpeg": 0.4})
    one = relative_errors(found, 0, [1, 2], "jpeg", baseline)
    assert one.be == pytest.approx(0.3 / 0.4)
    assert one.rbe == pytest.approx((0.3 - 0.1) / (0.4 - 0.05))
    means = mean_relative([one], 100)
    assert means["bBE"].value == pytest.approx(0.75)
    assert means["rBE"].low is not None


def test_a_baseline_that_nothing_hurts_leaves_the_ratio_undefined() -> None:
    """Where the baseline's denominator is zero there is no figure, and no division by zero."""
    found = resample(said((0.9, 0.9), (0.8, 0.8)), LABELS, 2, resamples=50, seed=0)
    unhurt = relative_errors(found, 0, [1], "jpeg", Baseline(name="x", clean_error=0.1, errors={"jpeg": 0.1}))
    assert unhurt.be == pytest.approx(2.0)
    assert np.isnan(unhurt.rbe)
    perfect = relative_errors(found, 0, [1], "jpeg", Baseline(name="x", clean_error=0.0, errors={"jpeg": 0.0}))
    assert np.isnan(perfect.be)
    assert mean_relative([perfect], 100) == {}


def test_against_itself_a_model_is_exactly_one() -> None:
    """Paired with its own predictions every resample of BE and rBE is one, so the interval is a point."""
    found = resample(said((0.9, 0.9), (0.8, 0.8)), LABELS, 2, resamples=50, seed=0)
    baseline = Baseline(name="itself", clean_error=0.1, errors={"jpeg": 0.2})
    one = relative_errors(found, 0, [1], "jpeg", baseline, paired=(found, 0, [1]))
    assert one.be == pytest.approx(1.0)
    assert np.nanmin(one.be_samples) == pytest.approx(1.0)
    assert np.nanmax(one.rbe_samples) == pytest.approx(1.0)


def test_groups_and_accuracy() -> None:
    """A group is measured on its own cells, an empty one left out; accuracy has Wilson's interval."""
    predicted = said((0.75, 0.25))[0]
    members = {"first": LABELS == 0, "none": np.zeros(100, dtype=bool)}
    assert {name: one.value for name, one in by_group(predicted, LABELS, members, 2, resamples=20, seed=0).items()} == {
        "first": 0.75
    }
    found = accuracy_estimate(predicted, LABELS)
    assert found.value == 0.65
    assert (found.low, found.high) == (pytest.approx(0.5525, abs=1e-3), pytest.approx(0.7364, abs=1e-3))


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells") / "cells"
    write_synthetic_folder(folder, 4, seed=0, size=64)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, cells: Path) -> Path:
    """A random network that says it was trained on blur, with noise held out."""
    folder = tmp_path_factory.mktemp("run") / "model"
    names = load(cells, preparation=PREPARATION).class_names
    config = ModelConfig(backbone="test_resnet", weights="random", head=HeadConfig())
    save_bundle(
        folder,
        create_classifier(config, len(names), seed=0),
        config=config,
        class_names=names,
        preparation=PREPARATION,
        provenance={"seed": 0, "augmentation_families": ["blur"], "held_out_families": ["deposit"]},
    )
    return folder


@pytest.fixture(scope="module")
def tested(model: Path, cells: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    return stress(model, cells, output=tmp_path_factory.mktemp("stress") / "out", resamples=50, command="hemascope x")


def test_every_condition_is_measured_and_marked(tested) -> None:  # type: ignore[no-untyped-def]
    """Eleven corruptions by five severities and two stacks, each marked by what training has shown the model."""
    report = tested.report
    assert len(report.conditions) == 55
    assert [one.condition.name for one in report.stacks] == ["stacked_1_2", "stacked_2_4"]
    exposure = {one.name: one.exposure for one in report.corruptions}
    assert exposure["defocus_blur"] == "trained on"
    assert exposure["jpeg"] == "not trained on"
    assert exposure["stain_deposit"] == "held out"
    assert {"mean_balanced_accuracy", "mean_trained_on", "mean_not_trained_on"} <= set(report.means)
    values = [one.balanced_accuracy.value for one in report.conditions]
    assert report.means["mean_balanced_accuracy"].value == pytest.approx(np.mean(values))


def test_the_folder_says_the_same_in_every_file(tested) -> None:  # type: ignore[no-untyped-def]
    """The record reads back equal, the table holds every condition, the saved labels give the clean accuracy again."""
    folder, report = tested.folder, tested.report
    assert load_stress(folder / "stress.json") == report
    rows = list(csv.DictReader((folder / "stress.csv").open()))
    assert len(rows) == 58
    assert float(rows[0]["balanced_accuracy"]) == pytest.approx(report.clean.balanced_accuracy.value, abs=1e-6)
    with np.load(folder / "predictions.npz", allow_pickle=False) as saved:
        assert saved["conditions"][0] == "clean 0"
        share = (saved["predicted"][0] == saved["labels"]).mean()
    assert share == pytest.approx(report.clean.accuracy.value)
    page = (folder / "report.html").read_text()
    assert "never showed the model" in page
    assert page.count('<img src="data:image/') == len(report.examples)
    before = page
    assert render_again(folder).read_text() == before


def test_the_same_test_again_says_the_same(tested, model: Path, cells: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Predictions repeat exactly, and against itself as baseline every corruption has a BE of one, paired."""
    again = stress(model, cells, output=tmp_path / "again", resamples=50, baseline=tested.folder)
    first, second = (np.load(one / "predictions.npz")["predicted"] for one in (tested.folder, again.folder))
    assert np.array_equal(first, second)
    assert again.report.baseline is not None
    assert again.report.baseline.paired
    assert all(one.be.value == pytest.approx(1.0) for one in again.report.corruptions)


def test_a_part_of_the_test(model: Path, cells: Path, tmp_path: Path) -> None:
    """Some corruptions and severities on some cells: what was left out is said, and BE needs all severities."""
    part = stress(
        model, cells, output=tmp_path / "part", corruptions=["jpeg"], severities=[1, 5], limit=16, resamples=50
    )
    assert [(one.name, one.severity) for one in part.report.conditions] == [("jpeg", 1), ("jpeg", 5)]
    assert part.report.n == 16
    assert any("not all of them" in note for note in part.report.notes)
    assert part.report.baseline is None
    with pytest.raises(UsageError, match="all five severities"):
        stress(model, cells, output=tmp_path / "x", severities=[1], baseline=part.folder)
    with pytest.raises(UsageError, match="did you mean 'jpeg'"):
        stress(model, cells, output=tmp_path / "x", corruptions=["jpg"])
    with pytest.raises(UsageError, match="no test part"):
        stress(model, cells, output=tmp_path / "x", part="test")
    with pytest.raises(UsageError, match="trained with seed 0"):
        stress(model, cells, output=tmp_path / "x", seed=0)
    assert not (tmp_path / "x").exists()


def test_gate_limits_are_compared_with_what_was_found(tested) -> None:  # type: ignore[no-untyped-def]
    """A limit at the value passes, above it fails; the low end is stricter; a limit of nothing measured is refused."""
    report = tested.report
    clean = report.clean.balanced_accuracy
    assert clean.value is not None
    (limit,) = gate_limits(Gate(clean=clean.value), report)
    assert limit.passed
    (limit,) = gate_limits(Gate(clean=clean.value, bound="low"), report)
    assert not limit.passed
    assert limit.found == clean.low
    (limit,) = gate_limits(Gate(corruptions={"jpeg": 1.0}), report)
    assert not limit.passed
    with pytest.raises(UsageError, match="'jpg'"):
        gate_limits(Gate(corruptions={"jpg": 0.5}), report)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clean = 1.2", "'clean'"),
        ("cleen = 0.9", "'cleen'"),
        ("", "states no limit"),
        ("clean = ", "not valid TOML"),
        ('bound = "high"\nclean = 0.9', "'bound'"),
    ],
)
def test_a_bad_gate_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    """A limit out of range, an unknown key, no limit at all and no TOML are refused by name."""
    (tmp_path / "gate.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_gate(tmp_path / "gate.toml")
    with pytest.raises(ConfigError, match="cannot read the gate"):
        load_gate(tmp_path / "none.toml")


def test_the_verb_exits_1_where_the_gate_fails(model: Path, cells: Path, tmp_path: Path) -> None:
    """The results are written, each failed limit is a sentence on stderr, and the exit status is 1; without it 0."""
    gate = tmp_path / "gate.toml"
    gate.write_text("clean = 0.999\nstacked_1_2 = 0.0")
    words = ["--quiet", "stress", str(model), str(cells), "--corruptions", "jpeg", "--severities", "5", "--limit", "8"]
    failed = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "a"), "--gate", str(gate)])
    assert failed.exit_code == 1
    assert "Failed: clean" in failed.stderr
    assert "stacked" not in failed.stderr
    assert load_stress(tmp_path / "a" / "stress.json").passed is False
    assert "The gate is not passed" in (tmp_path / "a" / "report.html").read_text()
    passed = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "b"), "--json"])
    assert passed.exit_code == 0
    assert json.loads(passed.stdout)["clean"]["name"] == "clean"


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    """A baseline that is no stress test is named, not misread."""
    (tmp_path / "stress.json").write_text("{}")
    with pytest.raises(RunError, match="not the record of a stress test"):
        load_stress(tmp_path / "stress.json")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "not a readable npz"),
        (lambda path: np.save(path.open("wb"), np.arange(3)), "not a readable npz"),
        (lambda path: np.savez(path, ids=np.arange(3)), "has no array labels"),
        (lambda path: np.savez(path, **{**np.load(path), "predicted": np.zeros((2, 2), dtype=np.int16)}), "one label"),
        (lambda path: np.savez(path, **{**np.load(path), "seed": np.array([{}])}, allow_pickle=True), "Python objects"),
    ],
)
def test_damaged_labels_of_a_baseline_are_refused(tested, tmp_path: Path, spoil, said: str) -> None:  # type: ignore[no-untyped-def]
    """Cut, foreign, incomplete, misshapen and pickled labels are one sentence before any work, not a fault."""
    old = shutil.copytree(tested.folder, tmp_path / "old")
    spoil(old / "predictions.npz")
    with pytest.raises(RunError, match=f"predictions.npz.*{said}.*remove the file"):
        read_baseline(old, [("clean", 0)], ["a"], np.array([0]), ["x"], 1)


def test_a_stress_test_replaces_nothing_but_a_stress_test(model: Path, cells: Path, tmp_path: Path) -> None:
    """A folder of something else and a file are left as they are; an earlier stress test makes room."""
    few = {"corruptions": ["jpeg"], "severities": [1], "limit": 8, "resamples": 10}
    before = sorted(model.iterdir())
    with pytest.raises(OutputError, match="does not hold a stress test"):
        stress(model, cells, output=model, **few)
    assert sorted(model.iterdir()) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="it is a file"):
        stress(model, cells, output=tmp_path / "file", **few)
    assert (tmp_path / "file").read_text() == "mine"
    stress(model, cells, output=tmp_path / "out", **few)
    assert stress(model, cells, output=tmp_path / "out", **few, seed=7).report.seed == 7


def test_a_gate_for_what_is_not_measured_is_refused_before_the_work(model: Path, tmp_path: Path) -> None:
    """The cells, which are not there, are never looked for; so is a seed below 0."""
    with pytest.raises(UsageError, match="'pixelate', which is not measured"):
        stress(model, tmp_path / "none", corruptions=["jpeg"], gate=Gate(corruptions={"pixelate": 0.5}))
    with pytest.raises(UsageError, match="at least 0, found -1"):
        stress(model, tmp_path / "none", seed=-1)


def test_a_baseline_holds_mean_errors(tested) -> None:  # type: ignore[no-untyped-def]
    """What others are measured against: the clean error and each corruption's mean over the severities."""
    report = tested.report
    baseline = baseline_of(report)
    jpeg = [one.balanced_accuracy.value for one in report.conditions if one.name == "jpeg"]
    assert baseline.errors["jpeg"] == pytest.approx(1 - np.mean(jpeg))
    assert baseline.clean_error == pytest.approx(1 - report.clean.balanced_accuracy.value)
