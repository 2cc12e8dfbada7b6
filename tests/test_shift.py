"""The shift card: what differs between new cells and those a model was trained on, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from training_setup import features_stage, tiny_config

from hemascope import workflow
from hemascope.assessment import TrustRecord
from hemascope.data.synthetic import write_synthetic_folder
from hemascope.errors import BundleError, DataError, OutputError, UsageError
from hemascope.models.bundle import load_bundle
from hemascope.predict import load_model
from hemascope.results import Estimate
from hemascope.shift.recalibrate import refit
from hemascope.shift.recommend import recommend
from hemascope.shift.reference import (
    MEASURES,
    QUANTILES,
    embedding_shift,
    fit_embedding,
    fit_reference,
    measure_shifts,
    measured,
    read_reference,
)
from hemascope.shift_results import ShiftCard
from hemascope.workflow.model_making import make_soup
from hemascope.workflow.shifting import shift

_TINY = tiny_config(features_stage(epochs=20))
CONFIG = _TINY.model_copy(
    update={"data": _TINY.data.model_copy(update={"calibration": 0.3, "test": 0.1, "validation": 0.1})}
)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_folder(tmp_path_factory.mktemp("data") / "cells", 24, size=48)


@pytest.fixture(scope="module")
def run(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return workflow.train(cells, CONFIG, output=tmp_path_factory.mktemp("runs") / "first")


def changed(cells: Path, target: Path, change: Any) -> Path:
    """The same folders with every picture changed."""
    for path in sorted(cells.rglob("*.[pj][np]g")):
        place = target / path.relative_to(cells).with_suffix(".png")
        place.parent.mkdir(parents=True, exist_ok=True)
        change(Image.open(path).convert("RGB")).save(place)
    return target


def pictures(n: int, seed: int = 0, bright: float = 0.0) -> np.ndarray:
    """Noisy discs on a pale ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    disc = ((x - 16) ** 2 + (y - 16) ** 2 < 80)[None, :, :, None]
    images = np.where(disc, [120, 60, 140], [230, 215, 205]) + rng.normal(0, 12, (n, 32, 32, 3)) + bright
    return np.clip(images, 0, 255).astype(np.uint8)


def test_the_same_kind_of_cells_is_no_shift() -> None:
    """Of ten other draws of the same pictures, no measure lies beyond twice its usual distance."""
    reference = read_reference(fit_reference(pictures(400)))
    for seed in range(1, 11):
        found = measure_shifts(reference, measured(pictures(60, seed)), seed=seed)
        assert all(one.distance < 2 * one.usual for one in found)


def test_brighter_pictures_are_told_by_their_brightness() -> None:
    """Thirty levels brighter: brightness is far beyond the usual, and its medians say in which direction."""
    reference = read_reference(fit_reference(pictures(400)))
    found = {one.name: one for one in measure_shifts(reference, measured(pictures(60, 1, bright=-30)))}
    assert list(found) == list(MEASURES)
    assert found["brightness"].shifted and found["brightness"].distance > 5
    assert found["brightness"].found < found["brightness"].reference


def test_small_sets_do_not_cry_wolf() -> None:
    """What is usual is larger for ten pictures than for four hundred."""
    reference = read_reference(fit_reference(pictures(400)))
    few, many = (measure_shifts(reference, measured(pictures(n, 3))) for n in (10, 400))
    assert all(a.usual > b.usual for a, b in zip(few, many, strict=True))


def test_features_that_moved_are_told() -> None:
    """Features of the same law stay below what is usual in most draws; moved ones lie far beyond."""
    known = RNG.normal(0, 1, (600, 6)) + 3
    arrays = fit_embedding(known)
    below = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        distance, usual = embedding_shift(arrays, rng.normal(0, 1, (100, 6)) + 3, seed=seed)
        below += distance <= 1.2 * usual
    assert below >= 17
    distance, usual = embedding_shift(arrays, RNG.normal(0, 1, (100, 6)) - 3)
    assert distance > 3 * usual
    with pytest.raises(BundleError):
        embedding_shift({}, known)
    for name in arrays:
        with pytest.raises(BundleError, match="not finite"):
            embedding_shift({**arrays, name: np.full_like(arrays[name], np.nan)}, known)


@pytest.mark.parametrize("spoil", ["missing", "short", "falling", "nan"])
def test_a_damaged_reference_is_refused(spoil: str) -> None:
    """A measure that is not there, too few quantiles, falling ones, and no number."""
    record = fit_reference(pictures(20))
    values = list(record["quantiles"]["sharpness"])
    if spoil == "missing":
        del record["quantiles"]["sharpness"]
    else:
        record["quantiles"]["sharpness"] = {
            "short": values[:-1],
            "falling": values[::-1],
            "nan": [float("nan")] * QUANTILES,
        }[spoil]
    with pytest.raises(BundleError):
        read_reference(record)


def test_the_training_cells_are_as_usual_and_blurred_ones_are_not(run: Any, cells: Path, tmp_path: Path) -> None:
    """No picture of the cells themselves is far off; of the blurred ones sharpness is, and the card says so."""
    same = shift(run.folder, cells, output=tmp_path / "same")
    blurred = shift(
        run.folder,
        changed(cells, tmp_path / "blurred", lambda image: image.filter(ImageFilter.GaussianBlur(3))),
        output=tmp_path / "card",
    )
    assert all(one.distance < 0.5 for one in same.card.measures)
    assert blurred.card.recommendation != "use"
    assert any("sharpness" in reason for reason in blurred.card.reasons)
    sharpness = {one.name: one for one in blurred.card.measures}["sharpness"]
    assert sharpness.shifted and sharpness.found < sharpness.reference
    assert same.card.expected_accuracy is not None and same.card.method
    again = ShiftCard.model_validate_json((tmp_path / "card" / "card.json").read_text())
    assert again == blurred.card
    page = blurred.page.read_text()
    assert "sharpness" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_recalibration_writes_another_model_and_leaves_the_first(run: Any, cells: Path, tmp_path: Path) -> None:
    """The copy has the same weights, cuts of its own; the first is as it was."""
    before = load_bundle(run.folder).calibration
    dark = changed(cells, tmp_path / "dark", lambda image: image.point(lambda level: int(level * 0.6)))
    made = shift(run.folder, dark, output=tmp_path / "card", recalibrated=tmp_path / "new", labels=60)
    effect = made.card.recalibration
    assert effect is not None and effect.labels == 60
    first, second = load_bundle(run.folder), load_bundle(tmp_path / "new")
    assert first.calibration == before
    assert second.sha256 == first.sha256
    old, new = (TrustRecord.model_validate(one.calibration) for one in (first, second))
    assert new.temperature == pytest.approx(effect.temperature_after)
    assert new.conformal != old.conformal
    shown = new.conformal[new.sets]
    assert shown.counts == (60,) and shown.cuts[0] is not None
    assert load_model(tmp_path / "new").predict(sorted(dark.rglob("*.png"))[:3]).trust is not None


def record_of(run: Any) -> TrustRecord:
    return TrustRecord.model_validate(load_bundle(run.folder).calibration)


def test_a_few_labels_move_the_temperature_a_little(run: Any) -> None:
    """Ten cells that ask for another temperature move it less than a thousand of the same do, in the same direction."""
    record = record_of(run)
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 6, (1000, 8)).astype(np.float32)
    labels = rng.integers(0, 8, 1000)
    few, many = (refit(record, logits[:n], labels[:n])[0].temperature for n in (10, 1000))
    assert record.temperature < few < many


def test_cuts_of_a_level_the_labels_cannot_reach_are_not_kept(run: Any) -> None:
    """Thirty labels reach 95 % and not 99 %: the sets shown are of 95 %, and those of 99 % hold every class."""
    record = record_of(run)
    rng = np.random.default_rng(2)
    new, effect = refit(record, rng.normal(0, 1, (30, 8)).astype(np.float32), rng.integers(0, 8, 30))
    assert effect.level == 0.95 and effect.cuts_refitted
    lac = {one.level: one for one in new.conformal if one.method == "lac" and not one.by_class}
    assert lac[0.95].counts == (30,) and lac[0.99].cuts == (None,)


def card(**changes: Any) -> ShiftCard:
    usual = Estimate(value=0.01, low=0.0, high=0.03, n=200)
    whole = {
        "model": "m", "model_sha256": "0" * 64, "n": 200, "unreadable": 0, "measures": (), "embedding_distance": 0.1,
        "embedding_usual": 0.2, "out_of_distribution": usual, "false_alarm": 0.01,
        "expected_accuracy": Estimate(value=0.97, low=0.95, high=0.99, n=200), "known_accuracy": 0.98, "method": "atc",
        "method_error": 0.02, "marked": usual, "class_names": ("a",), "class_shares": ((1.0, 1.0),),
        "recommendation": "use", "reasons": (),
    }  # fmt: skip
    return ShiftCard.model_validate({**whole, **changes})


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({}, "use"),
        ({"out_of_distribution": Estimate(value=0.6, low=0.5, high=0.7, n=200)}, "do_not_use"),
        ({"out_of_distribution": Estimate(value=0.08, low=0.05, high=0.12, n=200)}, "review"),
        ({"out_of_distribution": Estimate(value=0.08, low=0.004, high=0.3, n=12)}, "use"),
        ({"expected_accuracy": Estimate(value=0.85, low=0.8, high=0.9, n=200)}, "do_not_use"),
        ({"expected_accuracy": Estimate(value=0.94, low=0.92, high=0.96, n=200)}, "review"),
        ({"expected_accuracy": Estimate(value=0.94, low=0.88, high=1.0, n=200)}, "use"),
        ({"expected_accuracy": None, "known_accuracy": None}, "use"),
    ],
)
def test_the_advice_follows_the_rules(changes: dict[str, Any], advice: str) -> None:
    """Each rule on its own, also where too few cells make a share uncertain."""
    found, reasons = recommend(card(**changes))
    assert found == advice and reasons


def test_what_no_card_can_be_made_of_is_said(run: Any, cells: Path, tmp_path: Path) -> None:
    """A model without calibration, a folder that holds something else, no labels to recalibrate with."""
    make_soup([run.folder, run.folder], tmp_path / "soup")
    with pytest.raises(BundleError, match="never calibrated"):
        shift(tmp_path / "soup", cells, output=tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError):
        shift(run.folder, cells, output=tmp_path / "mine")
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(cells.rglob("*.[pj][np]g"))[:12]):
        Image.open(path).save(flat / f"{number}.png")
    assert shift(run.folder, flat, output=tmp_path / "unlabelled").card.recalibration is None
    with pytest.raises(DataError, match="labelled"):
        shift(run.folder, flat, output=tmp_path / "out", recalibrated=tmp_path / "new")
    assert not (tmp_path / "out").exists() and not (tmp_path / "new").exists()


@pytest.mark.parametrize("place", ["card", "card/copy"])
def test_a_copy_where_the_card_goes_is_refused(run: Any, cells: Path, tmp_path: Path, place: str) -> None:
    """The card replaces its folder as a whole, so a model put there would be lost: it is refused before any work."""
    with pytest.raises(UsageError, match="Name another place for the model"):
        shift(run.folder, cells, output=tmp_path / "card", recalibrated=tmp_path / place)
    assert not list(tmp_path.iterdir())


def test_a_card_that_cannot_be_written_leaves_no_copy(run: Any, cells: Path, tmp_path: Path) -> None:
    """Both or neither: where the card fails there is no recalibrated model."""
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(OutputError, match="cannot write"):
        shift(run.folder, cells, output=tmp_path / "notes" / "card", recalibrated=tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
