"""A trained model on disk: whole, or refused."""

import json
import shutil

import pytest
import torch

from hemascope.config import PREPARATIONS, HeadConfig, ModelConfig, Preparation, Resize
from hemascope.errors import BundleError, OutputError
from hemascope.models.bundle import load_bundle, save_bundle
from hemascope.models.classifier import create_classifier

CONFIG = ModelConfig(
    backbone="mobilenetv3_small_050", weights="random", head=HeadConfig(kind="deep", widths=(8,), norm="batch")
)


@pytest.fixture(scope="module")
def model():
    return create_classifier(CONFIG, 2, seed=4).to(memory_format=torch.channels_last).eval()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "bundle"
    # What the weights came from must not matter any more once the model is saved.
    config = CONFIG.model_copy(update={"weights": "/nowhere/net.pth"})
    save_bundle(
        folder,
        model,
        config=config,
        class_names=["Blast", "Zelle ä"],
        preparation=PREPARATIONS["contest"],
        provenance={"seed": 4, "data": {"fingerprint": "00ff"}},
        calibration={"temperature": 1.5},
    )
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "bundle")


def test_a_bundle_comes_back_as_it_was(saved, model):
    """Everything saved is loaded, and the network built from it gives the very same logits."""
    bundle = load_bundle(saved)
    assert bundle.class_names == ("Blast", "Zelle ä")
    assert bundle.preparation == PREPARATIONS["contest"]
    assert bundle.calibration == {"temperature": 1.5}
    assert bundle.provenance == {"seed": 4, "data": {"fingerprint": "00ff"}}
    assert bundle.config.head == CONFIG.head
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    built = bundle.build()
    assert not built.training
    with torch.inference_mode():
        assert torch.allclose(built(pixels), model(pixels), atol=1e-6)
    assert all(torch.equal(value, built.state_dict()[name]) for name, value in model.state_dict().items())


def test_digests_are_what_sha256sum_reads(saved):
    """The third file lists both others as the standard tool does."""
    lines = (saved / "SHA256SUMS").read_text().splitlines()
    assert [line[64:] for line in lines] == ["  bundle.json", "  model.safetensors"]
    assert sorted(path.name for path in saved.iterdir()) == ["SHA256SUMS", "bundle.json", "model.safetensors"]


def test_a_run_folder_stands_for_its_bundle(saved):
    """The folder around ``bundle`` is accepted in its place."""
    assert load_bundle(saved.parent) == load_bundle(saved)


@pytest.mark.parametrize("name", ["bundle.json", "model.safetensors", "SHA256SUMS"])
@pytest.mark.parametrize("position", [0.0, 0.5, 0.97])
def test_one_changed_byte_is_refused(copy, name, position):
    """A single flipped bit anywhere in any file is an error that names a file and what to do."""
    content = bytearray((copy / name).read_bytes())
    content[int(position * len(content))] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=r"(bundle\.json|model\.safetensors|SHA256SUMS).*Copy the bundle again"):
        load_bundle(copy)


def test_the_sentence_shows_both_digests_shortened(copy):
    """Found and expected digest are both there, shortened."""
    with (copy / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(
        BundleError, match=r"model\.safetensors is not what .* is [0-9a-f]{12}…, expected [0-9a-f]{12}…"
    ):
        load_bundle(copy)


@pytest.mark.parametrize("name", ["bundle.json", "model.safetensors", "SHA256SUMS"])
def test_a_missing_file_is_refused(copy, name):
    """A bundle with a file less is no bundle."""
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name):
        load_bundle(copy)


def test_no_bundle_is_one_sentence(tmp_path):
    """A folder that is not there and one that holds something else are told apart."""
    with pytest.raises(BundleError, match="no such folder"):
        load_bundle(tmp_path / "absent")
    with pytest.raises(BundleError, match="that of a run that has finished training"):
        load_bundle(tmp_path)


def _reseal(folder, content):
    """Write another record with honest digests, as a hostile author would."""
    import hashlib

    (folder / "bundle.json").write_bytes(content)
    sums = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("bundle.json", "model.safetensors")]
    (folder / "SHA256SUMS").write_text(f"{sums[0]}  bundle.json\n{sums[1]}  model.safetensors\n")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 2}, "bundle version 2.*newer hemascope"),
        ({"surplus": 1}, "malformed at surplus"),
        ({"class_names": []}, "malformed at class_names"),
        ({"weights_sha256": "0" * 64}, "expected 000000000000"),
    ],
)
def test_records_that_make_no_sense_are_refused(copy, change, sentence):
    """A record of another version or shape is refused even when its digests fit."""
    record = json.loads((copy / "bundle.json").read_text()) | change
    _reseal(copy, json.dumps(record).encode())
    with pytest.raises(BundleError, match=sentence):
        load_bundle(copy)


@pytest.mark.parametrize("content", [b"", b"[1", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_records_that_are_no_json_are_refused(copy, content):
    """Bytes that are no record give a BundleError, not a traceback."""
    _reseal(copy, content)
    with pytest.raises(BundleError, match=r"bundle\.json"):
        load_bundle(copy)


def test_weights_that_do_not_fit_are_refused(copy):
    """A record that describes another network than the weights are for is refused when it is built."""
    record = json.loads((copy / "bundle.json").read_text())
    record["class_names"] = ["a", "b", "c"]
    _reseal(copy, json.dumps(record).encode())
    with pytest.raises(BundleError, match="does not fit the network"):
        load_bundle(copy).build()
    record["model"]["backbone"] = "no_such_net"
    _reseal(copy, json.dumps(record).encode())
    with pytest.raises(BundleError, match="cannot be built here: timm has no image model named 'no_such_net'"):
        load_bundle(copy).build()


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_what_is_not_json_is_not_saved(model, tmp_path, value):
    """Provenance that JSON cannot hold is refused and nothing is left behind."""
    with pytest.raises(BundleError, match="must be JSON"):
        save_bundle(
            tmp_path / "bundle",
            model,
            config=CONFIG,
            class_names=["a", "b"],
            preparation=Preparation(resizes=(Resize(size=32),)),
            provenance={"value": value},
        )
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_sentence(model, tmp_path):
    """A file where a folder should be gives an OutputError."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        save_bundle(
            tmp_path / "taken" / "bundle",
            model,
            config=CONFIG,
            class_names=["a", "b"],
            preparation=Preparation(),
            provenance={},
        )


def test_saving_again_replaces_the_whole(copy, model):
    """A second save to the same folder leaves the new model alone in it."""
    save_bundle(copy, model, config=CONFIG, class_names=["new", "names"], preparation=Preparation(), provenance={})
    assert load_bundle(copy).class_names == ("new", "names")
    assert [path.name for path in copy.parent.iterdir()] == ["bundle"]
