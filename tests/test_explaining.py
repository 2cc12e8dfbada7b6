"""Maps for users: what is written, that failed maps are marked, and that nothing is written where it fails."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from training_setup import features_stage, tiny_config

from hemascope import workflow
from hemascope.augmentation import position_generator
from hemascope.cli import main
from hemascope.config_files import load_policy
from hemascope.data.synthetic import write_synthetic_folder
from hemascope.errors import DataError, HemascopeError, MissingExtraError, OutputError, SourceError, UsageError
from hemascope.explain_results import CellExplanation, ExplainReport, MethodResult
from hemascope.policies import Policy
from hemascope.report.render_explain import overlay, render_explain, save_overlay, verdict
from hemascope.workflow import explaining
from hemascope.workflow.explaining import explain

if find_spec("pytorch_grad_cam") is None:
    pytest.skip("grad-cam is not installed", allow_module_level=True)

_TINY = tiny_config(features_stage(epochs=2))
CONFIG = _TINY.model_copy(
    update={"data": _TINY.data.model_copy(update={"calibration": 0.2, "test": 0.2, "validation": 0.1})}
)
SIZE = 32


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_folder(tmp_path_factory.mktemp("data") / "cells", 15, size=48)


@pytest.fixture(scope="module")
def run(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workflow.train(cells, CONFIG, output=tmp_path_factory.mktemp("runs") / "first").folder


@pytest.fixture(scope="module")
def images(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cells and a file that is no picture."""
    folder = tmp_path_factory.mktemp("images")
    for number, path in enumerate(sorted(path for path in cells.rglob("*") if path.is_file())[::40][:3]):
        Image.open(path).save(folder / f"cell {number}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def made(run: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> explaining.Explained:
    return explain(run, [images], output=tmp_path_factory.mktemp("out") / "explained", methods=("gradcam", "hirescam"))


def test_files_are_written_and_read_again(made: explaining.Explained, run: Path) -> None:
    """Maps load without pickle in the order of the ids, the record reads as it was, and each cell has its picture."""
    with np.load(made.folder / "heatmaps.npz", allow_pickle=False) as saved:
        assert set(saved.files) == {"ids", "gradcam", "hirescam"}
        assert saved["gradcam"].dtype == np.float16 and saved["gradcam"].shape == (3, SIZE, SIZE)
        assert saved["gradcam"].min() >= 0 and saved["gradcam"].max() <= 1
        assert saved["ids"].tolist() == [cell.id for cell in made.report.cells]
    assert ExplainReport.model_validate_json((made.folder / "explain.json").read_text()) == made.report
    assert sorted(path.name for path in (made.folder / "overlays").iterdir()) == [
        cell.picture for cell in made.report.cells
    ]
    assert made.report.cells[0].picture == "0001_cell_0.png"
    assert made.report.assessed and made.report.policy == "robust"
    with Image.open(made.folder / "overlays" / "0001_cell_0.png") as picture:
        assert picture.width > picture.height  # two methods and the cell, two versions


def test_the_predicted_class_is_explained(made: explaining.Explained, run: Path, images: Path) -> None:
    """Name, probability and words are those that predicting gives, and every method explains that name."""
    from hemascope.predict import load_model

    said = load_model(run, device="cpu").predict([str(images / f"cell {number}.png") for number in range(3)])
    assert said.trust is not None
    for row, cell in enumerate(made.report.cells):
        assert cell.label == said.class_names[said.predicted[row]]
        assert cell.probability == pytest.approx(float(said.probs[row].max()), abs=1e-4)
        assert cell.review_reason == said.trust.review_reason[row]
        assert {one.target for one in cell.methods} == {cell.label}


def test_a_map_is_trusted_only_where_its_figures_allow_it(made: explaining.Explained) -> None:
    """No map that is no better than chance passes for a good one, and each failed one says why."""
    for one in (one for cell in made.report.cells for one in cell.methods):
        better = one.insertion > one.random_insertion and one.deletion < one.random_deletion
        assert better or not one.trustworthy
        assert one.trustworthy != bool(one.reasons)
        assert one.agreement is not None and -1.001 <= one.agreement <= 1.001


def test_a_method_blind_to_the_last_layer_is_marked_on_every_cell(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that draws each cell as bright as it is, whatever the network, is like itself under another head."""
    from hemascope.explain import cams, sanity

    real = cams.explain_images

    def brightness(model: Any, pictures: Any, **options: Any) -> Any:
        found = real(model, pictures, **options)
        return cams.Explanation(found.method, pictures.mean(axis=3, dtype=np.float32) / 255, found.target, found.layer)

    monkeypatch.setattr(cams, "explain_images", brightness)
    marked = explain(run, [images], output=tmp_path / "out", methods=("gradcam",), augmented=None)
    assert marked.report.sanity["gradcam"] == pytest.approx(1)
    for cell in marked.report.cells:
        assert sanity.STAYS in cell.methods[0].reasons and not cell.methods[0].trustworthy
    assert "drawn anew" in marked.page.read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_constant_map_is_trusted_of_no_cell(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """A method that gives every place the same, nothing or something, has that as its one reason."""
    from hemascope.explain import cams

    def constant(model: Any, pictures: Any, *, method: str, target: Any, **options: Any) -> Any:
        return cams.Explanation(method, np.full(pictures.shape[:3], value, dtype=np.float32), target, "")

    monkeypatch.setattr(cams, "explain_images", constant)
    marked = explain(run, [images], output=tmp_path / "out", augmented=None)
    for cell in marked.report.cells:
        (one,) = cell.methods
        assert not one.trustworthy and len(one.reasons) == 1 and "everywhere the same" in one.reasons[0]


def test_a_backbone_without_maps_is_refused_for_the_methods_that_need_them(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RISE sees the network from outside; for Grad-CAM the sentence comes before any work."""
    from hemascope.explain import layers

    def none(*_: Any, **__: Any) -> None:
        raise UsageError("this backbone has no layer that keeps the places")

    monkeypatch.setattr(layers, "last_spatial_layer", none)
    with pytest.raises(UsageError, match="no layer"):
        explain(run, [images], output=tmp_path / "out", methods=("rise", "gradcam"))
    assert list(tmp_path.iterdir()) == []
    made = explain(run, [images], output=tmp_path / "out", limit=1, augmented=None)
    assert made.report.methods == ("rise",) and made.report.cells[0].methods[0].insertion > 0


def test_likeness_is_of_ranks_and_a_flat_map_is_like_no_other() -> None:
    """A map and its square have the same ranks, its negative the opposite ones, and a flat map counts as 0."""
    from hemascope.explain.sanity import likeness

    one = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    assert likeness(one, one**2) == pytest.approx(1)
    assert likeness(one, 1 - one) == pytest.approx(-1)
    assert likeness(one, np.zeros_like(one)) == 0


def test_a_new_head_leaves_the_trained_network_alone(run: Path) -> None:
    """The copy has the same backbone and other weights in its head; the network it was made of is as it was."""
    import torch

    from hemascope.explain.sanity import with_new_head
    from hemascope.predict import load_model

    classifier = load_model(run).bundle.build()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    drawn = with_new_head(classifier, 0)
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    changed = {name for name, value in drawn.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("head.") for name in changed)


def test_an_empty_map_has_its_own_reason() -> None:
    """A map that is zero everywhere is not trusted, and no figure of it is held against it."""
    from hemascope.explain.faithfulness import reasons_to_doubt

    reasons = reasons_to_doubt(0.1, 0.9, 0.5, 0.5, 0.0, stays=0.9, empty=True)
    assert len(reasons) == 1 and "empty" in reasons[0]
    assert len(reasons_to_doubt(0.1, 0.9, 0.5, 0.5, 0.0, stays=0.9)) == 4


def test_an_unreadable_image_is_listed_with_its_reason(made: explaining.Explained) -> None:
    """It is no cell of the report, and page and record say why."""
    (one,) = made.report.unreadable
    assert one.id.endswith("broken.png") and one.reason
    assert "broken.png" in made.page.read_text() and len(made.report.cells) == 3


def test_the_page_asks_nothing_of_the_network(made: explaining.Explained) -> None:
    """All pictures are in the page, each with its words, and nothing is fetched or run."""
    page = made.page.read_text()
    assert page.count('<img src="data:image/webp;base64,') == 3
    assert not re.search(r"<script|(?:src|href)=\"(?!data:|#)|url\(", page)
    assert len(re.findall(r'alt="[^"]+named', page)) == 3


def test_the_same_seed_gives_the_same_maps(run: Path, images: Path, tmp_path: Path) -> None:
    """Two runs agree in every figure and every byte of the pictures; another seed draws other second versions."""
    asked: dict[str, Any] = {"limit": 2}
    first = explain(run, [images], output=tmp_path / "a", **asked)
    again = explain(run, [images], output=tmp_path / "b", **asked)
    other = explain(run, [images], output=tmp_path / "c", seed=5, **asked)
    assert first.report.cells == again.report.cells
    name = first.report.cells[0].picture
    pictures = [(folder.folder / "overlays" / name).read_bytes() for folder in (first, again, other)]
    assert pictures[0] == pictures[1] != pictures[2]
    assert first.report.notes == ("The first 2 images were explained; there are more.",)


def test_without_a_second_version_nothing_is_said_of_agreement(run: Path, images: Path, tmp_path: Path) -> None:
    """Agreement is unknown, not zero, and the page has no column for it."""
    made = explain(run, [images / "cell 0.png"], output=tmp_path / "out", augmented=None)
    (cell,) = made.report.cells
    assert cell.methods[0].agreement is None and cell.augmented_probability is None and not made.report.policy
    assert "Agreement" not in made.page.read_text()


def test_a_part_of_a_labelled_set_brings_its_labels(run: Path, cells: Path, tmp_path: Path) -> None:
    """Cells are of the run's test part, at most as many as asked for, with their true names."""
    assignment = json.loads((run / "splits.json").read_text())["assignment"]
    made = explain(run, [cells], output=tmp_path / "out", part="test", limit=4, augmented=None)
    assert (
        len({cell.true_label for cell in made.report.cells}) == 4 == len(made.report.cells)
        and made.report.part == "test"
    )
    assert all(cell.true_label == Path(cell.id).parts[-2] for cell in made.report.cells)
    assert {assignment[cell.id] for cell in made.report.cells} == {"test"}
    assert "Its label says" in made.page.read_text()


def test_turning_is_undone_exactly() -> None:
    """A map turned or mirrored like its picture comes back to where it was, for each of the seven ways."""
    heat = np.arange(16, dtype=np.float32).reshape(4, 4)
    picture = np.repeat(heat[..., None], 3, axis=2).astype(np.uint8)
    for symmetry in range(1, 8):
        turn = (symmetry % 4, symmetry >= 4)
        moved = explaining._done(picture, turn)
        assert not np.array_equal(moved, picture)
        np.testing.assert_array_equal(explaining._undone(moved[..., 0].astype(np.float32), turn), heat)


def test_a_second_version_keeps_everything_in_its_place() -> None:
    """Turned back, a policy of geometry alone has changed nothing; one of light has changed the values."""
    picture = position_generator(0, 0).integers(0, 255, (1, 24, 24, 3)).astype(np.uint8)
    same, turns = explaining._second_versions(picture, load_policy("affine"), 3)
    np.testing.assert_array_equal(
        explaining._undone(same[0, ..., 0].astype(np.float32), turns[0]), picture[0, ..., 0].astype(np.float32)
    )
    light = Policy.model_validate({"steps": [{"operation": "brightness", "strength": 0.5}, {"operation": "cutout"}]})
    darker, turns = explaining._second_versions(picture, light, 3)
    back = explaining._undone(darker[0, ..., 0].astype(np.float32), turns[0])
    np.testing.assert_allclose(back, picture[0, ..., 0] / 2, atol=1.5)  # darker everywhere, and nothing cut out


def test_an_overlay_leaves_the_cell_bare_where_the_map_is_empty() -> None:
    """Cold places keep their pixels, hot ones take the map's colour but not wholly."""
    image = np.full((8, 8, 3), 100, dtype=np.uint8)
    heat = np.zeros((8, 8), dtype=np.float32)
    heat[:4] = 1
    found = overlay(image, heat)
    assert (found[4:] == 100).all()
    assert (found[:4] != 100).any() and found[0, 0, 0] < 252


def test_a_failed_map_is_marked_in_picture_and_page(tmp_path: Path) -> None:
    """The picture of a failed map differs from that of a good one, and the page says why in words, escaped."""
    image, heat = np.full((8, 8, 3), 100, dtype=np.uint8), [np.zeros((8, 8), dtype=np.float32)]
    (tmp_path / "overlays").mkdir()
    for name, good in (("good.png", True), ("bad.png", False)):
        save_overlay(tmp_path / "overlays" / name, image, heat, methods=("gradcam",), trustworthy=(good,))
    assert (tmp_path / "overlays" / "good.png").read_bytes() != (tmp_path / "overlays" / "bad.png").read_bytes()
    figures = {"method": "gradcam", "target": "a", "random_insertion": 0.5, "random_deletion": 0.5}
    bad = MethodResult(**figures, insertion=0.4, deletion=0.2, trustworthy=False, reasons=("it <lies>",))
    good_one = MethodResult(**figures, insertion=0.6, deletion=0.2, trustworthy=True)
    rows = [
        CellExplanation(id="<b>", label="a", probability=0.9, picture=f"{name}.png", methods=(result,))
        for name, result in (("bad", bad), ("good", good_one), ("gone", good_one))
    ]
    report = ExplainReport(
        model="m", model_sha256="0" * 64, methods=("gradcam",), seed=0, class_names=("a",), cells=tuple(rows)
    )
    page = render_explain(report, tmp_path).read_text()
    assert "Grad-CAM fails:</b> it &lt;lies&gt;." in page and "<b>:" not in page.split("<main")[1].split("fails:")[0]
    assert page.count("Grad-CAM holds.") == 2 and "The picture is missing." in page
    assert verdict(report) == "3 cells were explained. Explanations that hold: 2 of 3 by Grad-CAM."


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"run": "no_such_run"}, HemascopeError, "no_such_run"),
        ({"inputs": ["missing.png"]}, SourceError, "missing.png"),
        ({"methods": ("gradcan",)}, UsageError, "gradcam"),
        ({"methods": ()}, UsageError, "no method"),
        ({"augmented": "robbust"}, UsageError, "robust"),
        ({"limit": 0}, UsageError, "at least 1"),
        ({"seed": -1}, UsageError, "at least 0"),
        ({"part": "test", "inputs": ["a", "b"]}, UsageError, "one labelled data set"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_writes_nothing(
    change: dict[str, Any], error: type[Exception], words: str, run: Path, images: Path, tmp_path: Path
) -> None:
    """Each names what was wrong, and no folder appears."""
    call: dict[str, Any] = {"run": run, "inputs": [images], "output": tmp_path / "out"} | change
    with pytest.raises(error, match=words):
        explain(call.pop("run"), call.pop("inputs"), **call)
    assert list(tmp_path.iterdir()) == []


def test_nothing_readable_is_an_error(run: Path, images: Path, tmp_path: Path) -> None:
    """The reason of the first image is in the sentence."""
    with pytest.raises(DataError, match=r"broken\.png: "):
        explain(run, [images / "broken.png"], output=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_other_work_is_not_overwritten(run: Path, images: Path, tmp_path: Path) -> None:
    """A folder that holds something else, and a run, stay as they are."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for place in (tmp_path / "mine", run):
        before = sorted(place.rglob("*"))
        with pytest.raises(OutputError, match="Choose another folder"):
            explain(run, [images], output=place)
        assert sorted(place.rglob("*")) == before


def test_failing_in_the_middle_leaves_the_earlier_result(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the second picture: the earlier explanation is whole, and no half of a new one is beside."""
    target = tmp_path / "out"
    explain(run, [images / "cell 0.png"], output=target, augmented=None)
    before = {path.name: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    written = []

    def full(path: Path, *args: Any, **options: Any) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        save_overlay(path, *args, **options)

    monkeypatch.setattr(explaining, "save_overlay", full)
    with pytest.raises(OutputError, match="No space left"):
        explain(run, [images], output=target, augmented=None)
    assert {path.name: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_missing_grad_cam_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The install line is given even where the run is not there, so nothing was opened before."""
    monkeypatch.setattr(explaining, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "hemascope\[explain\]"'):
        explain("no_such_run", ["x.png"], output=tmp_path / "out", methods=("rise", "gradcam"))
    assert list(tmp_path.iterdir()) == []


def test_the_verb_prints_a_line_a_cell_and_the_page(run: Path, images: Path, tmp_path: Path) -> None:
    """Cells, unreadable images and the page are named, and the options reach the work."""
    words = ["explain", str(run), str(images), "-o", str(tmp_path / "out"), "--no-augmented", "--limit", "9"]
    result = CliRunner().invoke(main, [*words, "--method", "hirescam"])
    assert result.exit_code == 0, result.output
    assert len(re.findall(r"cell \d\.png: .+; hirescam (?:holds|fails)", result.output)) == 3
    assert "broken.png: not read: " in result.output
    assert f"Report:  {tmp_path / 'out' / 'report.html'}" in result.output


@pytest.mark.parametrize(
    "words",
    [
        ["--method", "gradcam", "--all-methods"],
        ["--policy", "robust", "--no-augmented"],
        ["--names", "a,b"],
        ["--method", "nonsense"],
        ["--limit", "0"],
    ],
)
def test_the_verb_refuses_what_contradicts_itself(words: list[str], tmp_path: Path) -> None:
    """Exit status 2, one sentence, nothing written."""
    result = CliRunner().invoke(main, ["explain", "no_run", "x.png", "-o", str(tmp_path / "out"), *words])
    assert result.exit_code == 2 and list(tmp_path.iterdir()) == []
    assert "Traceback" not in result.output


def test_the_record_works_without_torch() -> None:
    """Reading a record and drawing its page imports nothing of the network."""
    import subprocess

    code = "import sys, hemascope.explain_results, hemascope.report.render_explain; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
