"""Models by name, and packing them: a name stands where a folder does, and half the bytes say the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from hemascope import workflow
from hemascope.cli import main
from hemascope.config import ModelConfig, Preparation, Resize
from hemascope.data.synthetic import render_cells, write_synthetic_folder
from hemascope.errors import BundleError, OutputError, SplitError, UsageError
from hemascope.models import shipped
from hemascope.models.bundle import load_bundle, save_bundle
from hemascope.models.bundle_files import read_state
from hemascope.models.classifier import Classifier, create_classifier
from hemascope.models.packing import halved
from hemascope.predict import load_model
from hemascope.progress import SilentProgress
from hemascope.test_time import illuminant
from hemascope.workflow.model_making import pack

SIZE = 32
CONFIG = ModelConfig(backbone="test_efficientnet", weights="random")
CARD = "# tiny\n\nTrained on **nothing**. Not for use on patients.\n"

torch.set_num_threads(1)


def write_model(folder: Path, names: tuple[str, ...], *, seed: int = 2) -> Classifier:
    net = create_classifier(CONFIG, len(names), seed=seed)
    torch.manual_seed(seed)
    torch.nn.init.normal_(net.head[-1].weight)  # type: ignore[index]  # answers that differ
    save_bundle(
        folder,
        net,
        config=CONFIG,
        class_names=names,
        preparation=Preparation(resizes=(Resize(size=SIZE),)),
        provenance={"licence": "CC BY 4.0", "seed": seed},
    )
    return net.eval()


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_folder(tmp_path_factory.mktemp("data") / "cells", 3, size=SIZE)


@pytest.fixture(scope="module")
def names() -> tuple[str, ...]:
    return render_cells(1, size=SIZE).class_names


@pytest.fixture
def home(tmp_path: Path, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped models with one in it, ``tiny``; the working folder is another, empty one."""
    folder = tmp_path / "package" / "shipped"
    write_model(folder / "tiny", names)
    (folder / "tiny" / shipped.CARD).write_text(CARD)
    (folder / "unfinished").mkdir()
    monkeypatch.setattr(shipped, "shipped_folder", lambda: folder)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


class Notes(SilentProgress):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_a_name_stands_for_its_folder(home: Path) -> None:
    """The name gives the very model of its folder, and only whole bundles have names."""
    assert shipped.shipped_names() == ("tiny",)
    by_name, by_folder = load_model("tiny", device="cpu"), load_model(home / "tiny", device="cpu")
    assert by_name.bundle.sha256 == by_folder.bundle.sha256 == load_bundle("tiny").sha256
    assert by_name.shipped and by_name.name == "tiny" and by_name.folder == home / "tiny"
    assert not by_folder.shipped


def test_a_folder_of_that_name_wins_and_it_is_said_once(home: Path, names: tuple[str, ...]) -> None:
    """A folder here is taken rather than the shipped model of its name, with one note, also in an ensemble."""
    mine = write_model(Path("tiny"), names, seed=9)
    notes = Notes()
    found = load_model("tiny", ensemble=["tiny"], device="cpu", progress=notes)
    assert not found.shipped
    assert found.bundle.provenance["seed"] == 9
    assert all(torch.equal(value, mine.state_dict()[name]) for name, value in read_state(found.bundle.weights).items())
    assert sum("comes with hemascope" in said for said in notes.said) == 1
    quiet = Notes()
    load_model(home / "tiny", device="cpu", progress=quiet)
    assert quiet.said == []


def test_a_name_nobody_knows_lists_what_there_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown name says which models come along; without any it does not speak of them."""
    with pytest.raises(BundleError, match=r"no model bundle at tinny: there is no such folder.*\(tiny\)"):
        load_model("tinny")
    with pytest.raises(BundleError, match="no model called 'tinny' comes with hemascope; there is tiny"):
        shipped.model_card("tinny")
    monkeypatch.setattr(shipped, "shipped_folder", lambda: home / "nowhere")
    with pytest.raises(BundleError, match=r"Give a bundle's or a run's folder\.$"):
        load_model("tiny")
    assert invoke("models").stdout == "No model comes with this installation.\n"


@pytest.mark.parametrize("wrong", ["../tiny", "tiny/", ".", "", "tiny\0"])
def test_only_plain_names_are_looked_up(home: Path, wrong: str) -> None:
    """A path, an empty word or a broken one is never taken for the name of a shipped model."""
    assert shipped.locate(wrong).shipped is False


def test_every_verb_takes_a_name(home: Path, cells: Path) -> None:
    """predict, evaluate, map and pack work with the name; results are never written into the package."""
    before = sorted(path.name for path in home.rglob("*"))
    picture = next(path for path in cells.rglob("*") if path.is_file())
    shown = invoke("predict", "tiny", picture)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith(f"{picture}: ") and "%" in shown.stdout
    assert invoke("predict", "tiny", cells, "-o", "out.csv").exit_code == 0
    assert len(Path("out.csv").read_text().splitlines()) == 1 + 24
    refused = invoke("evaluate", "tiny", cells)
    assert (
        refused.exit_code == 2 and "tiny comes with hemascope: name a folder for the results with -o" in refused.stderr
    )
    assert invoke("evaluate", "tiny", cells, "-o", "measured").exit_code == 0
    assert json.loads(Path("measured/evaluation.json").read_text())["splits"]["evaluated"]["n"] == 24
    drawn = invoke("map", cells, "--run", "tiny", "--part", "all", "-o", "map.html")
    assert drawn.exit_code == 0, drawn.output
    assert invoke("pack", "tiny", "-o", "packed").exit_code == 0
    assert sorted(path.name for path in home.rglob("*")) == before


def test_the_list_says_what_comes_along(home: Path, names: tuple[str, ...]) -> None:
    """models names classes, licence and card, counts what was learnt and weighs every file."""
    found = json.loads(invoke("models", "--json").stdout)["models"]
    net = create_classifier(CONFIG, len(names), seed=0)
    assert found == [
        {
            "name": "tiny",
            "backbone": "test_efficientnet",
            "class_names": list(names),
            "size": SIZE,
            "parameters": sum(one.numel() for one in net.parameters()),
            "bytes": sum(file.stat().st_size for file in (home / "tiny").iterdir()),
            "licence": "CC BY 4.0",
            "card": str(home / "tiny" / shipped.CARD),
        }
    ]
    listed = invoke("models").stdout
    assert "tiny: " in listed and "CC BY 4.0" in listed and "hemascope models tiny" in listed


def test_the_card_is_shown(home: Path) -> None:
    """The card is rendered, not shown as it is written; one that steers the terminal cannot; a missing one is said."""
    shown = invoke("models", "tiny")
    assert shown.exit_code == 0
    assert "Trained on nothing. Not for use on patients." in shown.stdout
    (home / "tiny" / shipped.CARD).write_text("dangerous \x1b[2J")
    assert "\x1b[2J" not in invoke("models", "tiny").stdout
    (home / "tiny" / shipped.CARD).unlink()
    missing = invoke("models", "tiny")
    assert missing.exit_code == 1 and "tiny has no card that can be read" in missing.stderr


def test_a_damaged_shipped_model_is_refused(home: Path) -> None:
    """A changed byte is found in the list and at prediction, as with any bundle."""
    weights = home / "tiny" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=r"model\.safetensors"):
        load_model("tiny")
    assert invoke("models").exit_code == 1


def test_half_the_bytes_say_the_same(home: Path, cells: Path, tmp_path: Path) -> None:
    """A packed bundle is about half as large, its network computes in fp32, and its probabilities are within 0.01."""
    made = pack("tiny", tmp_path / "half", check=cells, licence="MIT")
    small, large = (
        sum(f.stat().st_size for f in (folder).glob("*.safetensors")) for folder in (made.folder, home / "tiny")
    )
    assert small < 0.6 * large
    assert made.checked == 24 and made.largest_difference is not None and 0 < made.largest_difference < 0.01
    assert made.bytes == sum(f.stat().st_size for f in made.folder.iterdir())
    assert all(value.dtype == torch.float32 for value in load_bundle(made.folder).build().parameters())
    images = render_cells(2, size=SIZE, seed=8).images
    ids = [str(number) for number in range(len(images))]
    whole, half = (
        load_model(path, device="cpu", precision="fp32").predict_images(images, ids).probs
        for path in (home / "tiny", made.folder)
    )
    assert np.abs(whole - half).max() < 0.01
    record = load_bundle(made.folder).provenance
    assert record["licence"] == "MIT"
    assert record["packed"]["made_of_sha256"] == load_bundle("tiny").sha256
    assert record["packed"]["precision"] == "fp16"
    assert set(record["packed"]["kept_whole"]) == set(made.kept_whole)
    assert all(name.endswith("running_var") for name in made.kept_whole) and made.kept_whole


def test_full_precision_is_a_copy(home: Path, tmp_path: Path) -> None:
    """Without halving every number stays as it was."""
    made = pack("tiny", tmp_path / "full", half=False)
    assert made.kept_whole == () and made.largest_difference is None
    before, after = read_state(home / "tiny" / "model.safetensors"), read_state(made.folder / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_what_half_precision_would_spoil_stays_whole() -> None:
    """Values too large or too small for fp16, infinities and running variances stay; others lose less than 1e-3."""
    state = {
        "fine": torch.randn(100, generator=torch.Generator().manual_seed(0)),
        "huge": torch.tensor([1.0, 70_000.0]),
        "tiny": torch.tensor([1e-9, 3e-8]),
        "broken": torch.tensor([1.0, float("nan")]),
        "norm.running_var": torch.tensor([1.0, 2.0]),
        "norm.num_batches_tracked": torch.tensor(7),
        "none": torch.zeros(3),
        "empty": torch.zeros(0),
    }
    packed, kept = halved(state)
    assert kept == ["huge", "tiny", "broken", "norm.running_var"]
    assert {name for name, value in packed.items() if value.dtype == torch.float16} == {"fine", "none", "empty"}
    assert torch.equal(packed["tiny"], state["tiny"]) and packed["norm.num_batches_tracked"].dtype == torch.int64
    assert (packed["fine"].float() - state["fine"]).abs().max() < 1e-3 * state["fine"].abs().max()


def test_a_changed_label_is_refused_and_leaves_nothing(
    home: Path, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one cell would be named otherwise by the packed model, nothing is written and the sentence says how many."""
    from hemascope.models import packing

    def spoilt(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
        return {name: -value if name.startswith("head") else value for name, value in state.items()}, []

    monkeypatch.setattr(packing, "halved", spoilt)
    with pytest.raises(BundleError, match=r"would name [\d,]+ of 24 cells otherwise"):
        pack("tiny", tmp_path / "out" / "bad", check=cells)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(home: Path, tmp_path: Path) -> None:
    """A folder with something in it, a file, and the model's own folder are left as they are; an empty one is used."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "mine", tmp_path / "file", home / "tiny"):
        with pytest.raises(OutputError, match="exists already"):
            pack("tiny", target)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    load_bundle("tiny")
    (tmp_path / "empty").mkdir()
    assert pack("tiny", tmp_path / "empty").folder == tmp_path / "empty"


def test_the_light_of_training_can_be_added(home: Path, cells: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    """A model that does not know its light is packed with it, measured on the training part of its run alone."""
    from hemascope.config import RunConfig
    from hemascope.data.splits import Splits, save_splits
    from hemascope.workflow.cells import cells_of

    run = tmp_path / "run"
    write_model(run / "bundle", names)
    with pytest.raises(UsageError, match="does not say in what light"):
        load_model(run, tta=("colour_constancy",), device="cpu")
    with pytest.raises(SplitError, match=r"has no splits\.json"):
        pack(run, tmp_path / "bright", light=cells)
    config = RunConfig()
    preparation = Preparation(resizes=(Resize(size=SIZE),))
    config = config.model_copy(update={"data": config.data.model_copy(update={"preparation": preparation})})
    loaded = cells_of(cells, config, format=None, class_names=None, progress=SilentProgress())
    parts = np.array(["train", "validation", "test"] * 8)
    save_splits(run / "splits.json", Splits(parts, loaded.fingerprint()), loaded)
    made = pack(run, tmp_path / "bright", light=cells)
    light = load_bundle(made.folder).provenance["illuminant"]
    assert light == illuminant(np.asarray(loaded.images)[parts == "train"])
    assert load_model(made.folder, tta=("colour_constancy",), device="cpu").passes == 2


def test_views_need_a_folder_for_their_results(tmp_path: Path, cells: Path, names: tuple[str, ...]) -> None:
    """evaluate with views asks for -o, and its record says which views and models there were."""
    write_model(tmp_path / "run" / "bundle", names)
    with pytest.raises(UsageError, match="name a folder for the results"):
        workflow.evaluate(tmp_path / "run", cells, tta=("flips",))
    notes = Notes()
    workflow.evaluate(tmp_path / "run", cells, tta=("flips",), output=tmp_path / "out", progress=notes)
    record = json.loads((tmp_path / "out" / "manifest.json").read_text())["prediction"]
    assert record["tta"] == ["flips"] and record["passes"] == 4
    assert [one["sha256"] for one in record["models"]] == [load_bundle(tmp_path / "run").sha256]
    assert any("4 times" in said for said in notes.said)


def test_listing_is_light(home: Path) -> None:
    """Finding a shipped model by name loads neither torch nor timm."""
    code = (
        "import sys; from pathlib import Path; from hemascope.models import shipped; "
        f"shipped.shipped_folder = lambda: Path({str(home)!r}); "
        "assert shipped.shipped_models()[0].parameters > 1000 and shipped.locate('tiny').shipped; "
        "sys.exit(','.join({'torch', 'timm'} & sys.modules.keys()) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
