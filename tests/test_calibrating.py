"""What a model says of itself: fitted in training, kept in its bundle, applied by the Predictor, tested by a verb."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import load_file, save_file
from training_setup import features_stage, tiny_config

from hemascope import workflow
from hemascope.assessment import Assessor, TrustRecord, described_by, review_reasons
from hemascope.cli import main
from hemascope.data.load import load
from hemascope.data.splits import load_splits
from hemascope.data.synthetic import write_synthetic_folder
from hemascope.errors import BundleError, DataError, SplitError, UsageError
from hemascope.evaluation.record import load_predictions
from hemascope.evaluation.table import TRUST_COLUMNS, write_table
from hemascope.models.bundle import load_bundle
from hemascope.morphology.attributes import ATTRIBUTES, DESCRIBED
from hemascope.predict import Predictor, load_model
from hemascope.results import REVIEW_REASONS, Trust
from hemascope.trust_results import TrustReport
from hemascope.workflow import trust_testing
from hemascope.workflow.calibrating import calibrate
from hemascope.workflow.model_making import make_soup, pack
from hemascope.workflow.trust_testing import damaged, trust

_TINY = tiny_config(features_stage(epochs=20))
CONFIG = _TINY.model_copy(
    update={"data": _TINY.data.model_copy(update={"calibration": 0.2, "test": 0.2, "validation": 0.1})}
)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_folder(tmp_path_factory.mktemp("data") / "cells", 30, size=48)


@pytest.fixture(scope="module")
def run(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return workflow.train(cells, CONFIG, output=tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture(scope="module")
def predictor(run: Any) -> Predictor:
    return load_model(run.folder, device="cpu", batch_size=16)


def test_training_fits_on_the_calibration_part_and_measures_on_the_test_part(run: Any) -> None:
    """The bundle's record counts the calibration cells, trust.json the test cells, and no cell is in both."""
    parts = {name: load_predictions(run.folder / "predictions" / f"{name}.parquet") for name in ("calibration", "test")}
    record = TrustRecord.model_validate(load_bundle(run.folder).calibration)
    report = TrustReport.model_validate_json((run.folder / "trust" / "trust.json").read_text())
    assert record.fitted_on == report.fitted_on == len(parts["calibration"]) == 48
    assert report.n == len(parts["test"]) == 48
    assert report.part == "test"
    assert report.temperature == record.temperature
    assert {one.condition for one in report.calibration} == {"clean"}
    assert len(report.coverage) == 18  # three methods, three levels, for all cells and for each class
    assert {row.subtype for row in report.subtypes} or report.subtypes == ()


def test_probabilities_are_those_of_the_temperature(run: Any) -> None:
    """Saved probabilities are the softmax of the saved logits over the fitted temperature, not over 1."""
    record = TrustRecord.model_validate(load_bundle(run.folder).calibration)
    test = load_predictions(run.folder / "predictions" / "test.parquet")
    scaled = np.exp(test.logits / record.temperature)
    np.testing.assert_allclose(test.probs, scaled / scaled.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6)
    assert abs(record.temperature - 1) > 1e-3


def test_the_sets_shown_are_of_the_most_demanding_level_that_has_a_cut(run: Any) -> None:
    """48 cells have no cut at 99 %, which takes 99, but one at 95 %: that is the one in use."""
    record = TrustRecord.model_validate(load_bundle(run.folder).calibration)
    shown = record.conformal[record.sets]
    assert (shown.method, shown.level, shown.by_class) == ("lac", 0.95, False)
    assert next(one for one in record.conformal if one.level == 0.99 and one.method == "lac").cuts == (None,)


def test_every_prediction_comes_with_its_signs(predictor: Predictor, cells: Path) -> None:
    """Each set holds the predicted class, reasons are of the known ones, and cells it was trained on look familiar."""
    said = predictor.predict(cells)
    assert said.trust is not None
    rows = np.arange(len(said))
    assert said.trust.prediction_sets[rows, said.predicted].all()
    assert set(said.trust.review_reason) <= {"", *REVIEW_REASONS}
    assert said.trust.in_distribution.mean() > 0.8
    assert (said.trust.view_agreement == 1).all()
    larger = said.trust.prediction_sets.sum(axis=1) > 1
    marked = np.array([bool(reason) for reason in said.trust.review_reason])
    assert marked[larger].all() and marked[~said.trust.in_distribution].all()


def test_batches_of_any_size_are_judged_alike(run: Any, predictor: Predictor, cells: Path) -> None:
    """One image at a time or all at once: the same signs and features."""
    images = sorted(cells.rglob("*.png"))[:5] or sorted(cells.rglob("*.jpg"))[:5]
    one = load_model(run.folder, device="cpu", batch_size=1).predict(images, features=True)
    many = predictor.predict(images, features=True)
    assert one.trust is not None and many.trust is not None
    assert one.features is not None and many.features is not None
    np.testing.assert_allclose(one.features, many.features, atol=1e-4)
    np.testing.assert_allclose(one.trust.ood_score, many.trust.ood_score, rtol=1e-3)
    assert list(one.trust.review_reason) == list(many.trust.review_reason)


def test_unreadable_images_carry_no_signs(predictor: Predictor, cells: Path, tmp_path: Path) -> None:
    """A broken file between two good ones: its row is empty, theirs are as they are alone."""
    good = next(iter(sorted(cells.rglob("*.[pj][np]g"))))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    said = predictor.predict([good, broken, good], features=True)
    assert said.trust is not None and said.features is not None
    assert said.errors[1]
    assert not said.trust.prediction_sets[1].any() and not said.trust.in_distribution[1]
    assert np.isnan(said.trust.ood_score[1]) and np.isnan(said.features[1]).all()
    assert (said.trust.review_reason[1], said.trust.morphology[1]) == ("", "")
    alone = predictor.predict([broken])
    assert alone.trust is not None and len(alone) == 1


def test_the_table_has_a_column_for_each_sign(predictor: Predictor, cells: Path, tmp_path: Path) -> None:
    """CSV, JSON lines and Parquet hold the sets by name, in or out as a truth value, and empty for a broken image."""
    import pyarrow.parquet as pq

    good = next(iter(sorted(cells.rglob("*.[pj][np]g"))))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    said = predictor.predict([good, broken])
    assert said.trust is not None
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        write_table(tmp_path / name, [said])
    first, second = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert set(TRUST_COLUMNS) <= first.keys()
    assert first["label"] in first["prediction_set"].split(";")
    assert first["in_distribution"] == ("true" if said.trust.in_distribution[0] else "false")
    assert all(second[name] == "" for name in TRUST_COLUMNS) and second["error"]
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert lines[0]["in_distribution"] is bool(said.trust.in_distribution[0])
    assert lines[1]["in_distribution"] is None and lines[1]["prediction_set"] is None
    table = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert table[0]["prediction_set"] == first["prediction_set"] and table[1]["ood_score"] is None


def test_other_views_and_ensembles_are_not_judged_by_these_cuts(run: Any, cells: Path) -> None:
    """With views or models the cuts were not fitted for there is no trust at all, rather than a wrong one."""
    image = next(iter(sorted(cells.rglob("*.[pj][np]g"))))
    assert load_model(run.folder, tta=["flips"]).predict([image]).trust is None
    assert load_model(run.folder, ensemble=[run.folder]).predict([image]).trust is None
    assert load_model(run.folder, tta=[]).predict([image]).trust is not None


def test_a_packed_model_keeps_its_calibration_and_a_soup_has_none(run: Any, cells: Path, tmp_path: Path) -> None:
    """Half precision changes no sign; an average of weights is another model, so what was fitted does not go along."""
    packed = pack(run.folder, tmp_path / "packed")
    image = sorted(cells.rglob("*.[pj][np]g"))[:20]
    before, after = (load_model(folder).predict(image).trust for folder in (run.folder, packed.folder))
    assert before is not None and after is not None
    np.testing.assert_array_equal(before.prediction_sets, after.prediction_sets)
    make_soup([run.folder, run.folder], tmp_path / "soup")
    assert load_model(tmp_path / "soup").assessor is None


def test_calibrating_again_gives_the_same(run: Any, cells: Path, tmp_path: Path) -> None:
    """On the same cells every number comes out as training fitted it, and other files of the folder stay."""
    before = load_bundle(run.folder)
    record, arrays = before.calibration, before.trust
    assert arrays is not None
    (run.folder / "bundle" / "note.txt").write_text("mine")
    fitted = calibrate(run.folder, cells)
    again = load_bundle(run.folder)
    assert again.sha256 == before.sha256
    assert record is not None
    assert fitted.record.temperature == pytest.approx(record["temperature"], rel=1e-3)
    assert fitted.record.detector["cut"] == pytest.approx(record["detector"]["cut"], rel=1e-2)
    assert list(fitted.record.bank_ids) == record["bank_ids"]
    assert again.trust is not None
    for name, value in arrays.arrays.items():
        np.testing.assert_allclose(again.trust.arrays[name].shape, value.shape)
    np.testing.assert_allclose(again.trust.arrays["centre"], arrays.arrays["centre"], atol=1e-4)
    assert (run.folder / "bundle" / "note.txt").read_text() == "mine"
    (run.folder / "bundle" / "note.txt").unlink()


def test_calibrating_refuses_what_it_cannot_do(run: Any, cells: Path, tmp_path: Path) -> None:
    """Other cells, a model without a split, one that comes along, too few cells: one sentence each."""
    other = write_synthetic_folder(tmp_path / "other", 3, size=48, seed=9)
    with pytest.raises(SplitError):
        calibrate(run.folder, other)
    with pytest.raises(SplitError, match=r"no splits\.json"):
        calibrate(run.folder / "bundle", cells)
    with pytest.raises(UsageError, match="comes with hemascope"):
        calibrate("blood8", cells)
    few = workflow.train(other, CONFIG, output=tmp_path / "few")
    assert load_model(few.folder).assessor is None
    assert not (few.folder / "trust" / "trust.json").exists()
    with pytest.raises(DataError, match="fewer than 20 labelled cells"):
        calibrate(few.folder, other)


def test_damage_to_the_arrays_is_noticed(run: Any, tmp_path: Path) -> None:
    """A changed, missing, added or ill-shaped array file is refused before anything is predicted."""
    import hashlib

    def copy(name: str) -> Path:
        return Path(shutil.copytree(run.folder / "bundle", tmp_path / name))

    changed = copy("changed")
    path = changed / "trust.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="not what was saved"):
        load_model(changed)
    missing = copy("missing")
    (missing / "trust.safetensors").unlink()
    with pytest.raises(BundleError):
        load_model(missing)
    added = copy("added")
    sums = (added / "SHA256SUMS").read_text().splitlines(keepends=True)
    (added / "SHA256SUMS").write_text("".join(line for line in sums if "trust" not in line))
    with pytest.raises(BundleError, match="not among the digests"):
        load_model(added)
    shaped = copy("shaped")
    arrays = load_file(shaped / "trust.safetensors")
    save_file({**arrays, "centre": arrays["centre"][:3]}, shaped / "trust.safetensors")
    digest = hashlib.sha256((shaped / "trust.safetensors").read_bytes()).hexdigest()
    kept = [line for line in sums if "trust" not in line]
    (shaped / "SHA256SUMS").write_text("".join(kept) + f"{digest}  trust.safetensors\n")
    with pytest.raises(BundleError, match="centre"):
        load_model(shaped)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"temperature": "warm"},
        {"sets": 99},
        {"conformal": []},
        {"fitted_on": 0},
        {"version": 2},
        {"unknown": 1},
    ],
)
def test_a_malformed_record_is_refused(run: Any, change: dict[str, Any]) -> None:
    """Each wrong value of the record is a sentence, never a prediction."""
    bundle = load_bundle(run.folder)
    parts = bundle.trust
    assert parts is not None
    with pytest.raises(BundleError):
        Assessor(bundle.class_names, {**parts.record, **change}, parts.arrays)


def test_the_first_true_sign_is_the_reason() -> None:
    """Of several signs the first in the order given counts; none gives an empty reason."""
    signs = {"one": np.array([True, False, False, True]), "two": np.array([True, True, False, False])}
    assert review_reasons(**signs) == ["one", "two", "", "one"]


def test_batches_of_signs_join_and_spread() -> None:
    """Joined rows stand in order; rows of unreadable images are empty; nothing joins to nothing."""
    part = Trust(
        np.array([[True, False]]),
        np.array([1.5], np.float32),
        np.array([True]),
        np.array([1.0], np.float32),
        np.array([0.2], np.float32),
        ["low_confidence"],
        ["round"],
    )
    both = Trust.joined([part, part])
    assert both is not None and both.ood_score.tolist() == [1.5, 1.5] and both.morphology == ["round", "round"]
    assert Trust.joined([]) is None and Trust.joined([part, None]) is None
    wide = part.spread_out(np.array([False, True]))
    assert np.isnan(wide.doubt[0]) and wide.doubt[1] == pytest.approx(0.2)
    assert wide.review_reason == ["", "low_confidence"] and wide.prediction_sets.tolist() == [
        [False, False],
        [True, False],
    ]


def test_the_trust_test_covers_every_kind_of_damage(
    run: Any, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page and a record: clean, eleven corruptions, two stacks; foreign images near and far; nothing left out."""
    monkeypatch.setattr(trust_testing, "FOREIGN_IMAGES", 20)
    tested = trust(run.folder, cells, output=tmp_path / "trust", limit=8, resamples=100)
    report = TrustReport.model_validate_json((tested.folder / "trust.json").read_text())
    assert len(report.calibration) == len(report.selective) == 14
    assert report.n == 48 and report.part == "test"
    assert {one.distance for one in report.detection} == {"far", "near", "corrupted"}
    assert all(0 <= (one.flagged.value or 0) <= 1 for one in report.detection)
    assert "<html" in tested.page.read_text()


def value_of(name: str, column: int) -> int:
    """What a made cell called class_number.jpg has of an attribute: by its class, and otherwise for each third cell."""
    label, number = name.removesuffix(".jpg").rsplit("_", 1)
    return (DESCRIBED.index(label) + column + (int(number) % 3 == 0)) % len([*ATTRIBUTES.values()][column].values)


def is_described(name: str) -> bool:
    label, number = name.removesuffix(".jpg").rsplit("_", 1)
    return label in DESCRIBED and int(number) % 7 != 0


@pytest.fixture
def tables(cells: Path, tmp_path: Path) -> Path:
    """WBCAtt's three tables, for most of the white cells."""
    folder = tmp_path / "tables"
    folder.mkdir()
    names = [path.name for path in sorted(cells.rglob("*.jpg")) if is_described(path.name)]
    for place, part in enumerate(("train", "val", "test")):
        with (folder / f"pbc_attr_{part}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["img_name", "label", *ATTRIBUTES])
            for name in names[place::3]:
                values = [each.values[value_of(name, column)] for column, each in enumerate(ATTRIBUTES.values())]
                rows.writerow([name, name.split("_")[0], *values])
    return folder


def test_the_trust_test_tells_how_well_the_words_hold(
    run: Any, cells: Path, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``trust --words`` scores each attribute on the described test cells, each with its own values and no other's."""
    monkeypatch.setattr(trust_testing, "CORRUPTIONS", {})
    monkeypatch.setattr(trust_testing, "STACKS", {})
    monkeypatch.setattr(trust_testing, "FOREIGN_IMAGES", 4)
    folder = Path(shutil.copytree(run.folder, tmp_path / "speaking"))
    calibrate(folder, cells, words=tables)
    call = ["trust", str(folder), str(cells), "--words", str(tables), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 0, result.output
    assert "promised for cells of the same laboratory" in result.output
    report = TrustReport.model_validate_json((tmp_path / "out" / "trust.json").read_text())

    model = load_model(folder, device="cpu")
    loaded = load(cells, preparation=model.bundle.preparation)
    rows = [
        row
        for row in load_splits(folder / "splits.json", loaded).indices("test").tolist()
        if is_described(Path(str(loaded.ids[row])).name)
    ]
    names = [Path(str(loaded.ids[row])).name for row in rows]
    said = model.predict_images(np.stack([loaded.images[row] for row in rows]), names, features=True)
    assert said.features is not None and said.stages is not None
    assert model.assessor is not None and model.assessor.words is not None
    decided = model.assessor.words.decide(described_by(said.features, said.stages))
    assert 10 < len(rows) < report.n == 48
    assert [one.attribute for one in report.attributes] == list(ATTRIBUTES)
    for column, one in enumerate(report.attributes):
        true = np.array([value_of(name, column) for name in names])
        assert one.n == len(rows)
        assert one.accuracy.value == pytest.approx((decided[:, column] == true).mean())
    assert min(one.accuracy.value or 0 for one in report.attributes) < 1  # else it would not show a wrong order


def test_words_that_cannot_be_tested_are_refused(run: Any, cells: Path, tables: Path, tmp_path: Path) -> None:
    """A model without words, and tables that describe none of the cells: one sentence each, and nothing written."""
    with pytest.raises(UsageError, match="has no words"):
        trust(run.folder, cells, words=tables, output=tmp_path / "out")
    for path in tables.iterdir():
        path.write_text(path.read_text().replace(".jpg", ".png"))
    folder = Path(shutil.copytree(run.folder, tmp_path / "speaking"))
    with pytest.raises(DataError, match="none of the cells is described"):
        calibrate(folder, cells, words=tables)
    assert not (tmp_path / "out").exists()


def test_the_trust_test_refuses_what_it_cannot_test(run: Any, cells: Path, tmp_path: Path) -> None:
    """A model that was never calibrated, and the calibration cells themselves."""
    make_soup([run.folder, run.folder], tmp_path / "soup")
    with pytest.raises(BundleError, match="never calibrated"):
        trust(tmp_path / "soup", cells, output=tmp_path / "out")
    with pytest.raises(UsageError, match="calibrated on"):
        trust(run.folder, cells, part="calibration", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damage_depends_on_the_cell_and_not_on_its_company(cells: Path) -> None:
    """The same cell is damaged alike alone and among others; severities differ between cells."""
    from hemascope.config import Preparation, Resize

    loaded = load(cells, preparation=Preparation(resizes=(Resize(size=48),)))
    images, ids = np.asarray(loaded.images[:12]), [str(name) for name in loaded.ids[:12]]
    whole = damaged(images, "defocus_blur", ids, 5)
    np.testing.assert_array_equal(whole[7:8], damaged(images[7:8], "defocus_blur", ids[7:8], 5))
    assert not np.array_equal(whole, images)
    change = np.abs(whole.astype(float) - images).mean(axis=(1, 2, 3))
    assert len(set(change.round(3))) > 3
    np.testing.assert_array_equal(damaged(images, "clean", ids, 5), images)


def test_training_without_calibration(cells: Path, tmp_path: Path) -> None:
    """evaluation.calibrate = false leaves the bundle without cuts and the run without trust.json."""
    config = CONFIG.model_copy(update={"evaluation": CONFIG.evaluation.model_copy(update={"calibrate": False})})
    plain = workflow.train(cells, config, output=tmp_path / "plain")
    assert load_bundle(plain.folder).calibration is None
    assert not (plain.folder / "trust" / "trust.json").exists()
    assert load_splits(plain.folder / "splits.json", load(cells, preparation=config.data.preparation))


def test_a_picture_that_is_no_cell_is_told(run: Any, cells: Path, tmp_path: Path) -> None:
    """Random pixels are marked as out of distribution, and the reason says so."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    said = load_model(run.folder).predict([tmp_path / "noise.png"])
    assert said.trust is not None
    assert not said.trust.in_distribution[0]
    assert said.trust.review_reason[0] == "out_of_distribution"
