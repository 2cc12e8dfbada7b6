"""Views at prediction time: each is what its name says, and their logits are averaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hemascope.config import ModelConfig, Preparation, Resize
from hemascope.data.synthetic import render_cells
from hemascope.errors import UsageError
from hemascope.models.bundle import ModelBundle, load_bundle, save_bundle
from hemascope.models.classifier import create_classifier
from hemascope.predict import Predictor, load_model
from hemascope.test_time import GROUPS, LARGEST_GAIN, illuminant, test_time_views

SIZE = 32
NAMES = ("a", "b", "c")
CONFIG = ModelConfig(backbone="test_efficientnet", weights="random")
VIEWS = {"flips": 3, "dihedral": 7, "multi_crop": 6, "colour_constancy": 1}
"""How many views each group adds to the image as it is."""

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return render_cells(1, size=SIZE, seed=5).images


@pytest.fixture(scope="module")
def bundle(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    net = create_classifier(CONFIG, 3, seed=2)
    torch.manual_seed(0)
    torch.nn.init.normal_(net.head[-1].weight)  # type: ignore[index]  # answers that differ
    folder = tmp_path_factory.mktemp("model") / "bundle"
    save_bundle(
        folder,
        net,
        config=CONFIG,
        class_names=NAMES,
        preparation=Preparation(resizes=(Resize(size=SIZE),)),
        provenance={"illuminant": illuminant(images)},
        calibration={"temperature": 2.0},
    )
    return load_bundle(folder)


def logits(bundle: ModelBundle, images: np.ndarray, **options: Any) -> np.ndarray:
    ids = [str(number) for number in range(len(images))]
    return Predictor(bundle, device="cpu", precision="fp32", **options).predict_images(images, ids).logits


def pixels(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2)


def one_view(images: np.ndarray, name: str, number: int, light: Any = None) -> np.ndarray:
    """View ``number`` of a group as (N, S, S, 3)."""
    view = test_time_views([name], {"illuminant": light})[number]
    return view(pixels(images)).permute(0, 2, 3, 1).numpy()


def test_the_symmetries_of_a_square_are_eight_different_pictures(images: np.ndarray) -> None:
    """dihedral adds the seven other symmetries and flips three of them; no view is made twice."""
    square = np.arange(SIZE * SIZE * 3, dtype=np.int64).reshape(1, SIZE, SIZE, 3) % 251
    start = torch.from_numpy(square.astype(np.uint8)).permute(0, 3, 1, 2)
    seen = {
        name: {view(start).numpy().tobytes() for view in test_time_views([name], {})}
        for name in VIEWS
        if "_" not in name
    }
    expected = {
        np.rot90(part, turns, (2, 3)).tobytes()
        for part in (start.numpy(), start.numpy()[..., ::-1])
        for turns in range(4)
    }
    expected.remove(start.numpy().tobytes())
    assert seen["dihedral"] == expected and len(expected) == 7
    assert seen["flips"] == {
        start.numpy()[..., ::-1].tobytes(),
        start.numpy()[..., ::-1, :].tobytes(),
        start.numpy()[..., ::-1, ::-1].tobytes(),
    }


@pytest.mark.parametrize(("name", "turns"), [("dihedral", range(4)), ("flips", (0, 2))])
def test_a_turned_or_mirrored_cell_gets_the_same_logits(
    bundle: ModelBundle, images: np.ndarray, name: str, turns: Any
) -> None:
    """With dihedral views logits do not change when a cell is turned or mirrored; with flips not by half a turn."""
    upright = logits(bundle, images, tta=(name,))
    for count in turns:
        for mirrored in (False, True):
            other = np.rot90(images, count, (1, 2))
            other = np.ascontiguousarray(other[:, :, ::-1] if mirrored else other)
            np.testing.assert_allclose(logits(bundle, other, tta=(name,)), upright, atol=1e-5)
    plain, turned = (logits(bundle, one) for one in (images, np.ascontiguousarray(images[:, :, ::-1])))
    assert np.abs(plain - turned).max() > 1e-3  # the network alone does see the difference


def test_logits_are_averaged_over_the_image_and_its_views(bundle: ModelBundle, images: np.ndarray) -> None:
    """The result is the mean by hand of the logits of each view; then one temperature makes probabilities of it."""
    turned = [np.rot90(images, turns, (1, 2)) for turns in range(4)]
    views = [np.ascontiguousarray(one) for one in (*turned, *(turn[:, ::-1] for turn in turned))]
    by_hand = np.mean([logits(bundle, one) for one in views], axis=0)
    predictor = Predictor(bundle, device="cpu", precision="fp32", tta=("dihedral",))
    found = predictor.predict_images(images, [str(number) for number in range(len(images))])
    np.testing.assert_allclose(found.logits, by_hand, atol=1e-4)
    soft = np.exp(by_hand / 2.0)
    np.testing.assert_allclose(found.probs, soft / soft.sum(1, keepdims=True), atol=1e-5)
    assert predictor.passes == 8


def test_colour_constancy_undoes_a_cast(images: np.ndarray) -> None:
    """Cells under a coloured light come back to the light of training, and cells already in it stay as they are."""
    light = illuminant(images[:1])
    cast = np.clip(images[:1].astype(float) * (0.8, 0.6, 0.95), 0, 255).round().astype(np.uint8)
    assert np.abs(cast.astype(float) - images[:1]).mean() > 20
    assert np.abs(one_view(cast, "colour_constancy", 0, light) - images[:1]).mean() < 1
    assert np.abs(one_view(images[:1], "colour_constancy", 0, light) - images[:1]).max() < 0.1


def test_each_image_has_a_light_of_its_own(images: np.ndarray) -> None:
    """What else is in the batch changes nothing in an image's correction."""
    light = illuminant(images)
    alone = one_view(images[3:4], "colour_constancy", 0, light)
    np.testing.assert_allclose(one_view(images, "colour_constancy", 0, light)[3:4], alone, atol=1e-3)


def test_gains_are_bounded() -> None:
    """A dark image is brightened by the largest gain and no more, a white one dimmed by no more; black is safe."""
    for value, wanted in ((20, 20 * LARGEST_GAIN), (255, 255 / LARGEST_GAIN), (0, 0.0)):
        flat = np.full((1, SIZE, SIZE, 3), value, dtype=np.uint8)
        target = [200.0] * 3 if value < 255 else [30.0] * 3
        np.testing.assert_allclose(one_view(flat, "colour_constancy", 0, target), wanted, atol=1e-3)


def test_the_light_of_cells_is_their_minkowski_mean() -> None:
    """Of a flat picture the light is its colour; bright pixels weigh more than dark ones."""
    flat = np.full((2, 8, 8, 3), (200, 100, 50), dtype=np.uint8)
    assert illuminant(flat) == pytest.approx([200, 100, 50], abs=0.01)
    half = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    half[:, :4] = 200
    assert illuminant(half) == pytest.approx([200 * 0.5 ** (1 / 6)] * 3, abs=0.01)


def test_crops_are_nearer_farther_and_moved() -> None:
    """Of a disc in the middle the first view is larger, the second smaller, and the others stand in four corners."""
    rows, columns = np.mgrid[:96, :96] - 47.5
    disc = np.where(np.hypot(rows, columns) < 20, 250, 0).astype(np.uint8)
    image = np.repeat(disc[None, :, :, None], 3, axis=3)
    area = (image > 125).mean()
    seen = [one_view(image, "multi_crop", number)[0, :, :, 0] > 125 for number in range(VIEWS["multi_crop"])]
    assert seen[0].mean() == pytest.approx(area * 1.15**2, rel=0.03)
    assert seen[1].mean() == pytest.approx(area * 0.87**2, rel=0.03)
    places = [(float(rows[one].mean()), float(columns[one].mean())) for one in seen[2:]]
    corners = [(down, right) for right in (-1, 1) for down in (-1, 1)]
    np.testing.assert_allclose(np.abs(places), 0.06 * 96, atol=0.35)
    assert {(np.sign(down), np.sign(right)) for down, right in places} == set(corners)


def test_crops_reflect_the_border() -> None:
    """A picture of one colour stays so in every crop: nothing black or grey comes in from outside."""
    flat = np.full((2, SIZE, SIZE, 3), (200, 100, 50), dtype=np.uint8)
    for number in range(VIEWS["multi_crop"]):
        np.testing.assert_allclose(one_view(flat, "multi_crop", number), flat, atol=1e-3)


@pytest.mark.parametrize("names", [(), *((name,) for name in VIEWS), tuple(sorted(set(VIEWS) - {"flips"}))])
def test_passes_are_counted(bundle: ModelBundle, images: np.ndarray, names: tuple[str, ...]) -> None:
    """The price is one pass for the image and one for each view, also of several groups together."""
    predictor = Predictor(bundle, device="cpu", tta=names)
    assert predictor.passes == 1 + sum(VIEWS[name] for name in names)
    found = predictor.predict_images(images, [str(number) for number in range(len(images))])
    np.testing.assert_allclose(found.probs.sum(axis=1), 1, atol=1e-5)
    assert set(GROUPS) == set(VIEWS)


def test_views_stay_the_same_in_the_traced_graph(
    bundle: ModelBundle, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the number of images after which the graph takes over, views of bytes and of fractions are still right."""
    expected = logits(bundle, images, tta=("flips", "multi_crop", "colour_constancy"))
    monkeypatch.setattr("hemascope.predict.TRACE_AFTER", 4)
    found = logits(bundle, images, tta=("flips", "multi_crop", "colour_constancy"), batch_size=4)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_view_given_twice_counts_once(bundle: ModelBundle) -> None:
    """Repeating a name changes nothing."""
    assert Predictor(bundle, device="cpu", tta=("flips", "flips")).passes == 4


def test_what_cannot_be_is_said(bundle: ModelBundle, tmp_path: Path) -> None:
    """Unknown views, dihedral beside flips, and a model that does not know its light, are one sentence each."""
    with pytest.raises(UsageError, match=r"no test-time view is called 'dihedrl'.*dihedral"):
        load_model(bundle.weights.parent, tta=("dihedrl",), device="cpu")
    with pytest.raises(UsageError, match="dihedral holds the views of flips already"):
        Predictor(bundle, device="cpu", tta=("flips", "dihedral"))
    for light in (None, [1, 2], "white", [1, 2, "x"], [1.0, float("nan"), 3.0], [0, 0, 0]):
        dark = replace(bundle, provenance={"illuminant": light})
        with pytest.raises(UsageError, match="does not say in what light"):
            Predictor(dark, device="cpu", tta=("colour_constancy",))
