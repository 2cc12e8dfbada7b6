"""Several networks as one answer, and several weights as one network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from hemascope import workflow
from hemascope.cells import CellDataset
from hemascope.cli import main
from hemascope.config import ModelConfig, Preparation, Resize
from hemascope.data.splits import Splits, save_splits
from hemascope.data.synthetic import render_cells, write_synthetic_folder
from hemascope.errors import BundleError, OutputError, SplitError, UsageError
from hemascope.metrics import balanced_accuracy, confusion_matrix
from hemascope.models.bundle import ModelBundle, load_bundle, save_bundle
from hemascope.models.bundle_files import read_state
from hemascope.models.classifier import Classifier, create_classifier
from hemascope.models.soup import averaged, greedy
from hemascope.predict import Predictor, load_model
from hemascope.workflow.model_making import make_soup

SIZE = 32
CONFIG = ModelConfig(backbone="test_efficientnet", weights="random")
PREPARATION = Preparation(resizes=(Resize(size=SIZE),))
NAMES = ("a", "b", "c")

torch.set_num_threads(1)


def network(seed: int, classes: int = 3) -> Classifier:
    net = create_classifier(CONFIG, classes, seed=seed)
    torch.manual_seed(seed)
    torch.nn.init.normal_(net.head[-1].weight)  # type: ignore[index]  # answers that differ
    return net.eval()


def write(folder: Path, net: Classifier, names: tuple[str, ...] = NAMES, **changes: Any) -> Path:
    save_bundle(
        folder / "bundle",
        net,
        **{
            "config": CONFIG,
            "class_names": names,
            "preparation": PREPARATION,
            "provenance": {"seed": 0},
            **changes,
        },
    )
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("runs")
    return [write(home / f"run{seed}", network(seed)) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return render_cells(1, size=SIZE, seed=5).images


def answer(path: Path | ModelBundle, images: np.ndarray, **options: Any) -> Any:
    ids = [str(number) for number in range(len(images))]
    if isinstance(path, ModelBundle):
        return Predictor(path, device="cpu", precision="fp32", **options).predict_images(images, ids)
    return load_model(path, device="cpu", precision="fp32", **options).predict_images(images, ids)


def invoke(*words: object) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_an_ensemble_is_the_mean_of_probabilities(three: list[Path], images: np.ndarray) -> None:
    """Probabilities are the mean by hand of each model's own; the softmax of the logits given is that mean."""
    each = [answer(path, images).probs for path in three]
    found = answer(three[0], images, ensemble=three[1:])
    np.testing.assert_allclose(found.probs, np.mean(each, axis=0), atol=1e-6)
    assert np.abs(each[0] - found.probs).max() > 0.01
    soft = np.exp(found.logits)
    np.testing.assert_allclose(soft / soft.sum(1, keepdims=True), found.probs, atol=1e-5)


def test_identical_models_change_nothing(three: list[Path], images: np.ndarray) -> None:
    """A model averaged with itself says what it says alone."""
    alone, twice = answer(three[0], images), answer(three[0], images, ensemble=[three[0]] * 2)
    np.testing.assert_allclose(twice.probs, alone.probs, atol=1e-6)


def test_classes_are_matched_by_name(three: list[Path], images: np.ndarray, tmp_path: Path) -> None:
    """A model whose classes stand in another order counts the same, and the first one's order is kept."""
    net = network(2)
    order = [2, 0, 1]
    with torch.no_grad():
        last = net.head[-1]  # type: ignore[index]
        last.weight.copy_(last.weight[order].clone())
        last.bias.copy_(last.bias[order].clone())
    other = write(tmp_path / "other", net, tuple(NAMES[place] for place in order))
    found = answer(three[0], images, ensemble=[other])
    expected = answer(three[0], images, ensemble=[three[1]])
    assert found.class_names == NAMES
    np.testing.assert_allclose(found.probs, expected.probs, atol=1e-5)


def test_each_member_has_its_own_temperature(three: list[Path], images: np.ndarray) -> None:
    """A calibrated member is softened by its temperature alone before the mean."""
    first, second = (load_bundle(path) for path in three[:2])
    warm = replace(second, calibration={"temperature": 3.0})
    found = answer(first, images, ensemble=[warm])
    expected = (answer(first, images).probs + answer(warm, images).probs) / 2
    np.testing.assert_allclose(found.probs, expected, atol=1e-6)
    assert np.abs(answer(warm, images).probs - answer(second, images).probs).max() > 0.01


def test_views_and_ensembles_go_together(three: list[Path], images: np.ndarray) -> None:
    """With both, each member averages its own views first; passes multiply."""
    found = load_model(three[0], device="cpu", precision="fp32", tta=("flips",), ensemble=three[1:])
    assert found.passes == 12
    each = [answer(path, images, tta=("flips",)).probs for path in three]
    probs = found.predict_images(images, [str(number) for number in range(len(images))]).probs
    np.testing.assert_allclose(probs, np.mean(each, axis=0), atol=1e-6)
    assert [one["sha256"] for one in found.describe()["models"]] == [load_bundle(path).sha256 for path in three]


def test_models_that_do_not_go_together_are_refused(three: list[Path], tmp_path: Path) -> None:
    """Other classes, another preparation and a model that is not there are one sentence each."""
    four = write(tmp_path / "four", network(1, 4), (*NAMES, "d"))
    with pytest.raises(UsageError, match="must know the same classes; 'd' is known to only one of"):
        load_model(three[0], ensemble=[four])
    wide = write(tmp_path / "wide", network(1), preparation=Preparation(resizes=(Resize(size=48),)))
    with pytest.raises(UsageError, match=r"must take images prepared alike.*to 32.*to 48"):
        load_model(three[0], ensemble=[wide])
    with pytest.raises(BundleError, match="no model bundle at"):
        load_model(three[0], ensemble=[tmp_path / "nowhere"])


def test_the_verbs_average(cells: tuple[Path, CellDataset], runs: list[Path], tmp_path: Path) -> None:
    """predict and evaluate take --ensemble and --tta, say the price, and record what was averaged."""
    said = invoke("predict", runs[0], cells[0], "-o", tmp_path / "out.csv", "--ensemble", runs[1], "--tta", "flips")
    assert said.exit_code == 0 and "Each image goes through a network 8 times" in said.stderr, said.output
    measured = invoke("evaluate", runs[0], cells[0], "-o", tmp_path / "out", "--ensemble", runs[1])
    assert measured.exit_code == 0 and "2 times" in measured.stderr, measured.output
    record = json.loads((tmp_path / "out" / "manifest.json").read_text())["prediction"]
    assert [one["sha256"] for one in record["models"]] == [load_bundle(run).sha256 for run in runs[:2]]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CellDataset]:
    """Synthetic cells as files, and as they are loaded."""
    from hemascope.config import RunConfig
    from hemascope.progress import SILENT
    from hemascope.workflow.cells import cells_of

    folder = write_synthetic_folder(tmp_path_factory.mktemp("data") / "cells", 6, size=SIZE)
    config = RunConfig()
    config = config.model_copy(update={"data": config.data.model_copy(update={"preparation": PREPARATION})})
    return folder, cells_of(folder, config, format=None, class_names=None, progress=SILENT)


@pytest.fixture(scope="module")
def runs(cells: tuple[Path, CellDataset], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four runs of one split; from one network, a little, a little, and far away."""
    home, loaded = tmp_path_factory.mktemp("cooked"), cells[1]
    splits = Splits(
        np.array(["train", "train", "validation", "validation", "calibration", "test"] * 8), loaded.fingerprint()
    )
    start, found = network(1, 8), []
    for number, distance in enumerate((0.0, 0.05, 0.05, 3.0)):
        net = network(1, 8)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for mine, its in zip(net.parameters(), start.parameters(), strict=True):
                mine.copy_(its + distance * its.std(correction=0) * torch.randn(its.shape, generator=generator))
        found.append(
            write(
                home / f"run{number}",
                net,
                loaded.class_names,
                provenance={
                    "seed": number,
                    "augmentation_families": ["blur", "noise"][: number + 1],
                    "held_out_families": ["noise", "deposit"],
                },
            )
        )
        save_splits(found[-1] / "splits.json", splits, loaded)
    return found


def test_a_soup_is_the_mean_of_weights(runs: list[Path], tmp_path: Path) -> None:
    """Every floating tensor is the mean by hand, batch-norm statistics too; whole numbers are the first one's."""
    made = make_soup(runs[:3], tmp_path / "soup")
    states = [read_state(run / "bundle" / "model.safetensors") for run in runs[:3]]
    soup = read_state(made.folder / "model.safetensors")
    assert soup.keys() == states[0].keys()
    assert any(name.endswith("running_mean") for name in soup)
    for name, value in soup.items():
        if value.is_floating_point():
            expected = sum(state[name].double() for state in states) / 3
            torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)
            assert value.dtype == states[0][name].dtype
        else:
            assert torch.equal(value, states[0][name])
    bundle = load_bundle(made.folder)
    assert bundle.calibration is None
    assert bundle.provenance["soup"] == [{"run": str(run), "sha256": load_bundle(run).sha256} for run in runs[:3]]
    assert bundle.provenance["soup_kind"] == "uniform"


def test_a_soup_of_copies_is_the_copy(runs: list[Path], images: np.ndarray, tmp_path: Path) -> None:
    """The mean of one model with itself predicts as it does."""
    made = make_soup([runs[0], runs[0]], tmp_path / "soup")
    np.testing.assert_allclose(answer(made.folder, images).probs, answer(runs[0], images).probs, atol=1e-6)


def test_a_soup_has_seen_what_its_ingredients_have(runs: list[Path], tmp_path: Path) -> None:
    """Families any ingredient was trained on are trained on; held out is only what no ingredient has seen."""
    record = load_bundle(make_soup(runs[:2], tmp_path / "soup").folder).provenance
    assert record["augmentation_families"] == ["blur", "noise"]
    assert record["held_out_families"] == ["deposit"]
    silent = write(tmp_path / "silent", network(1, 8), load_bundle(runs[0]).class_names)
    record = load_bundle(make_soup([runs[0], silent], tmp_path / "other").folder).provenance
    assert record["augmentation_families"] is None


def test_greedy_keeps_what_helps() -> None:
    """From the best on, an ingredient stays if the soup is not worse with it; it never falls below the best."""
    states = [{"w": torch.tensor([value])} for value in (1.0, 3.0, 10.0, -1.0)]
    asked: list[float] = []

    def score(state: Any) -> float:
        asked.append(float(state["w"]))
        return -abs(float(state["w"]) - 1.5)

    kept, best, alone = greedy(states, score)
    # 1 alone scores -0.5, 3 next -1.5: their mean 2 scores -0.5, not worse; then -1 makes it 1, -0.5; 10 spoils it.
    assert kept == [0, 1, 3] and best == pytest.approx(-0.5)
    assert alone == [-0.5, -1.5, -8.5, -2.5]
    assert best >= max(alone)
    assert averaged([states[one] for one in kept])["w"].item() == pytest.approx(1.0)


def test_a_greedy_soup_is_never_worse_on_its_validation_cells(
    runs: list[Path], cells: tuple[Path, CellDataset], tmp_path: Path
) -> None:
    """Measured apart, the soup scores what it says on the validation part, and no ingredient scores more there."""
    made = make_soup(runs, tmp_path / "soup", greedy=cells[0])
    loaded = cells[1]
    rows = np.flatnonzero(np.array(["validation" in part for part in _parts(runs[0], loaded)]))
    assert len(rows) == 16

    def score(path: Path) -> float:
        predicted = answer(path, np.asarray(loaded.images)[rows]).predicted
        return float(balanced_accuracy(confusion_matrix(loaded.labels[rows], predicted, 8)))

    each = [score(run) for run in runs]
    assert made.best_alone == pytest.approx(max(each))
    assert made.score == pytest.approx(score(made.folder))
    assert made.score >= max(each)
    assert sorted((*made.ingredients, *made.left_out)) == sorted(map(str, runs))
    assert load_bundle(made.folder).provenance["soup_kind"] == "greedy"


def _parts(run: Path, cells: CellDataset) -> list[str]:
    assignment = json.loads((run / "splits.json").read_text())["assignment"]
    return [assignment[name] for name in cells.ids]


def test_greedy_looks_at_no_test_cell(runs: list[Path], cells: tuple[Path, CellDataset], tmp_path: Path) -> None:
    """Only pixels of the validation part are read while choosing."""
    from training_setup import with_images

    class Watched:
        def __init__(self, images: np.ndarray) -> None:
            self.images, self.read = images, set()
            self.shape, self.dtype = images.shape, images.dtype

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, row: int) -> np.ndarray:
            self.read.add(int(row))
            return self.images[row]

    loaded = cells[1]
    watched = Watched(np.asarray(loaded.images))
    make_soup(runs[:2], tmp_path / "soup", greedy=with_images(loaded, watched))
    validation = {row for row, part in enumerate(_parts(runs[0], loaded)) if part == "validation"}
    assert watched.read == validation


def test_greedy_needs_one_split_of_all(runs: list[Path], cells: tuple[Path, CellDataset], tmp_path: Path) -> None:
    """A run split otherwise, one without a split and other cells are refused; nothing is left behind."""
    other = write(tmp_path / "other", network(1, 8), cells[1].class_names)
    with pytest.raises(SplitError, match=r"other has no splits\.json"):
        make_soup([runs[0], other], tmp_path / "soup", greedy=cells[0])
    parts = np.array(["test", "validation", "train", "train", "calibration", "test"] * 8)
    save_splits(other / "splits.json", Splits(parts, cells[1].fingerprint()), cells[1])
    with pytest.raises(SplitError, match=r"other was split otherwise than .*run0"):
        make_soup([runs[0], other], tmp_path / "soup", greedy=cells[0])
    elsewhere = write_synthetic_folder(tmp_path / "elsewhere", 2, size=SIZE, seed=9)
    with pytest.raises(SplitError, match="made for other cells"):
        make_soup(runs[:2], tmp_path / "soup", greedy=elsewhere)
    assert not (tmp_path / "soup").exists()


def test_only_models_alike_make_a_soup(runs: list[Path], tmp_path: Path) -> None:
    """One model, another network, other classes and another preparation are refused, and nothing is written over."""
    names = load_bundle(runs[0]).class_names
    with pytest.raises(UsageError, match="at least two models, found 1"):
        make_soup(runs[:1], tmp_path / "soup")
    swapped = write(tmp_path / "swapped", network(1, 8), names[::-1])
    with pytest.raises(UsageError, match="another list of classes"):
        make_soup([runs[0], swapped], tmp_path / "soup")
    wide = write(tmp_path / "wide", network(1, 8), names, preparation=Preparation(resizes=(Resize(size=48),)))
    with pytest.raises(UsageError, match="another preparation"):
        make_soup([runs[0], wide], tmp_path / "soup")
    config = CONFIG.model_copy(update={"backbone": "test_resnet"})
    residual = write(tmp_path / "residual", create_classifier(config, 8, seed=0), names, config=config)
    with pytest.raises(UsageError, match="another network"):
        make_soup([runs[0], residual], tmp_path / "soup")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(OutputError, match="exists already"):
        make_soup(runs[:2], tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_the_verb_says_who_went_in(runs: list[Path], cells: tuple[Path, CellDataset], tmp_path: Path) -> None:
    """hemascope soup names ingredients, those left out, and both scores; the result is a model like any other."""
    said = invoke("soup", *runs, "-o", tmp_path / "soup", "--greedy", cells[0], "--json")
    assert said.exit_code == 0, said.output
    record = json.loads(said.stdout)
    assert record["validation_balanced_accuracy"] >= record["best_alone"]
    assert len(record["ingredients"]) + len(record["left_out"]) == 4
    assert (
        workflow.evaluate(tmp_path / "soup", cells[0], output=tmp_path / "out").evaluation.splits["evaluated"].n == 48
    )
    plain = invoke("soup", *runs[:2], "-o", tmp_path / "plain")
    assert plain.exit_code == 0 and "the mean of 2 models" in plain.stdout
