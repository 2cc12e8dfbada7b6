"""From pixels to Predictions."""

import subprocess
import sys
import types
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hemascope.cells import CellDataset
from hemascope.config import ModelConfig, Preparation, Resize
from hemascope.errors import BundleError, ConfigError, DataError, UsageError
from hemascope.models.bundle import load_bundle, save_bundle
from hemascope.models.classifier import create_classifier
from hemascope.predict import Predictor, load_model

SIZE = 32
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def model():
    net = create_classifier(ModelConfig(weights="random"), 3, seed=2).eval()
    torch.manual_seed(0)
    torch.nn.init.normal_(net.head[-1].weight)  # probabilities that differ from one image to the next
    return net


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "run" / "bundle"
    save_bundle(
        folder,
        model,
        config=ModelConfig(weights="random"),
        class_names=NAMES,
        preparation=Preparation(resizes=(Resize(size=SIZE),)),
        provenance={},
    )
    return load_bundle(folder)


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor(bundle, device="cpu", batch_size=4)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (10, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(model, images):
    with torch.inference_mode():
        return model(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()).softmax(1).numpy()


def _ids(count):
    return [f"cell {i}" for i in range(count)]


def test_probabilities_are_those_of_the_plain_network(predictor, images, expected):
    """The fast path differs from the eager network by less than 1e-4, also in a last batch that is not full."""
    found = predictor.predict_images(images, _ids(10))
    assert np.abs(found.probs - expected).max() < 1e-4
    assert np.ptp(expected, axis=0).max() > 0.01
    np.testing.assert_allclose(found.probs.sum(1), 1, atol=1e-6)
    assert found.probs.dtype == found.logits.dtype == np.float32
    assert found.class_names == NAMES
    assert found.labels is None


def test_many_images_are_predicted_with_a_graph_that_says_the_same(bundle, images, expected, monkeypatch):
    """After so many images the traced graph takes over; batches of every size still differ by less than 1e-4."""
    monkeypatch.setattr("hemascope.predict.TRACE_AFTER", 8)
    ours = Predictor(bundle, device="cpu", batch_size=4)
    for count in (10, 7, 1):
        found = ours.predict_images(images[:count], _ids(count))
        assert np.abs(found.probs - expected[:count]).max() < 1e-4
    assert isinstance(ours._members[0].network, torch.jit.ScriptModule)


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_any_number_of_images(predictor, images, expected, count):
    """None, one, and numbers that the batch size does not divide."""
    found = predictor.predict_images(images[:count], _ids(count))
    assert len(found) == count
    assert np.abs(found.probs - expected[:count]).max(initial=0) < 1e-4


def test_memory_maps_are_read_batch_by_batch(predictor, images, expected, tmp_path):
    """A read-only memory map is predicted without a warning, and progress counts every image."""
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    steps = []

    class Watch:
        def task(self, title, total, unit):
            from contextlib import nullcontext

            assert (title, total, unit) == ("predicting", 10, "images")
            return nullcontext(steps.append)

    found = predictor.predict_images(mapped, _ids(10), progress=Watch())
    assert np.abs(found.probs - expected).max() < 1e-4
    assert steps == [4, 4, 2]


def test_temperature_of_the_calibration_is_applied(bundle, images, predictor):
    """Probabilities are softened by the bundle's temperature; logits stay as they were."""
    warm = Predictor(replace(bundle, calibration={"temperature": 2.0}), device="cpu")
    plain, soft = (one.predict_images(images, _ids(10)) for one in (predictor, warm))
    np.testing.assert_allclose(plain.logits, soft.logits, atol=1e-4)
    by_hand = np.exp(soft.logits / 2)
    np.testing.assert_allclose(soft.probs, by_hand / by_hand.sum(1, keepdims=True), atol=1e-6)
    with pytest.raises(BundleError, match=r"temperature .* found 0"):
        Predictor(replace(bundle, calibration={"temperature": 0}), device="cpu")


def test_labels_are_matched_by_name(predictor, images):
    """Labels of data with its classes in another order become the model's own; unlabelled stays so."""
    labels = np.array([0, 1, -1] + [0] * 7)
    found = predictor.predict_images(images, _ids(10), labels, class_names=("c", "a", "unused"))
    assert found.labels.tolist() == [2, 0, -1] + [2] * 7
    with pytest.raises(DataError, match=r"does not know the class 'unused'.*a, b, c"):
        predictor.predict_images(images, _ids(10), np.full(10, 2), class_names=("c", "a", "unused"))
    with pytest.raises(DataError, match="labels must lie in -1 to 2, found 3 to 3"):
        predictor.predict_images(images, _ids(10), np.full(10, 3))


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, SIZE, SIZE, 3)), np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 3, SIZE, SIZE), np.uint8)]
)
def test_images_of_another_kind_are_refused(predictor, wrong):
    """Floats, other sizes and channels-first arrays are one sentence."""
    with pytest.raises(DataError, match=r"uint8 \(N, 32, 32, 3\); found"):
        predictor.predict_images(wrong, ["a", "b"])


def _cells(images, preparation):
    count = len(images)
    return CellDataset(
        images=images,
        labels=np.zeros(count, np.int64),
        class_names=NAMES,
        ids=_ids(count),
        content_hash=_ids(count),
        preparation=preparation,
    )


def test_cells_prepared_otherwise_are_refused(predictor, images, expected):
    """A CellDataset of the right preparation is predicted with its labels; another is refused by name or size."""
    found = predictor.predict(_cells(images, "largest centre square → bicubic to 32"))
    assert np.abs(found.probs - expected).max() < 1e-4
    assert found.labels.tolist() == [0] * 10
    with pytest.raises(DataError, match="bicubic to 32; these are 32 × 32, prepared as centre 20 px"):
        predictor.predict(_cells(images, "centre 20 px → bicubic to 32"))
    with pytest.raises(DataError, match="these are 16 × 16"):
        predictor.predict(_cells(images[:, :16, :16], ""))


def test_arrays_as_they_came_are_prepared(predictor, images, expected):
    """A raw array goes through the bundle's preparation first: enlarged images come back to their size."""
    pytest.importorskip("hemascope.data.prepare")
    found = predictor.predict(images)
    assert np.abs(found.probs - expected).max() < 1e-4
    assert found.ids[9] == "array#9"
    wide = np.pad(images, ((0, 0), (0, 0), (7, 7), (0, 0)))  # the centre square is the image itself
    assert np.abs(predictor.predict(wide).probs - expected).max() < 1e-4
    with pytest.raises(DataError, match=r"images must be uint8 \(N, height, width, 3\)"):
        predictor.predict(images.astype(float))


@dataclass
class _Batch:
    ids: list[str]
    images: np.ndarray
    errors: list[str]


@pytest.fixture
def stream(monkeypatch, images):
    """Stands in for reading files: two batches, with an image that cannot be read in the second."""
    calls = []

    def stream_images(inputs, preparation, *, batch_size, progress):
        calls.append((list(inputs), preparation, batch_size))
        yield _Batch(_ids(4), images[:4], [""] * 4)
        yield _Batch(["x", "bad", "y"], images[4:7], ["", "truncated", ""])
        yield _Batch(["worse"], images[:1], ["empty"])

    module = types.ModuleType("hemascope.data.stream")
    module.stream_images = stream_images
    monkeypatch.setitem(sys.modules, "hemascope.data.stream", module)
    return calls


def test_unreadable_files_are_rows_with_a_reason(predictor, stream, expected, bundle):
    """Files keep their order; an unreadable one has NaN and its error, and does not move its neighbours."""
    found = predictor.predict([Path("dir"), "b.png"])
    assert stream == [(["dir", "b.png"], bundle.preparation, 4)]
    assert found.ids == [*_ids(4), "x", "bad", "y", "worse"]
    assert list(found.errors) == ["", "", "", "", "", "truncated", "", "empty"]
    assert np.isnan(found.probs[[5, 7]]).all()
    assert np.abs(found.probs[[0, 1, 2, 3, 4, 6]] - expected[[0, 1, 2, 3, 4, 6]]).max() < 1e-4
    assert found.predicted[5] == -1


def test_one_path_is_not_taken_for_letters(predictor, stream):
    """A single path, as text or Path, is one input."""
    predictor.predict("cell.png")
    predictor.predict(Path("cell.png"))
    assert [call[0] for call in stream] == [["cell.png"], ["cell.png"]]


def test_batches_stream(predictor, stream):
    """Batches come one at a time, before the next is read."""
    batches = predictor.predict_batches(["dir"])
    assert len(next(batches)) == 4
    assert [len(batch) for batch in batches] == [3, 1]


def test_load_model_takes_a_run_folder(bundle, images, predictor):
    """The public entry accepts the run around the bundle and gives the same numbers."""
    again = load_model(str(bundle.weights.parent.parent), device="cpu", batch_size=4)
    np.testing.assert_array_equal(
        again.predict_images(images, _ids(10)).probs, predictor.predict_images(images, _ids(10)).probs
    )


def test_wrong_arguments_are_one_sentence(bundle):
    """Sizes below one, and devices and precisions that are not there, are refused."""
    with pytest.raises(UsageError, match="batch_size must be at least 1"):
        Predictor(bundle, batch_size=0)
    with pytest.raises(UsageError, match="threads must be at least 1"):
        Predictor(bundle, threads=0)
    with pytest.raises(ConfigError, match="device must be auto"):
        Predictor(bundle, device="tpu")
    with pytest.raises(ConfigError, match="precision must be auto"):
        Predictor(bundle, device="cpu", precision="int8")


def test_prediction_leaves_heavy_packages_alone():
    """Predicting one image must not wait for packages it does not use."""
    code = (
        "import sys, hemascope.predict; "
        "sys.exit(','.join({'sklearn', 'matplotlib', 'scipy', 'pandas', 'pyarrow'} & sys.modules.keys()) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
