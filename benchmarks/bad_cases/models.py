"""Weights that are missing, hostile or of another network, and models that were changed after they were saved."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_cases.arrays import Payload
from bad_cases.case import Case, Ground, copy_cell, spoil_byte, write

TRAIN = "train cells -o new --config tiny.toml"
PREDICT = "predict run good.jpg -o out.csv"
OFFLINE = {"HF_HUB_OFFLINE": "1"}
ADVICE = "Copy the bundle again"


def spoilt(spoil: Callable[[Path], Any]) -> Callable[[Path, Ground], None]:
    """A run whose bundle was changed by ``spoil``, which gets the bundle's folder, and an image to predict."""

    def make(here: Path, ground: Ground) -> None:
        copy_cell(here, ground)
        spoil(here / "run/bundle")

    return make


def rewrite_record(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The bundle's record changed, and its digest made to agree: somebody who means it."""
    import hashlib

    record = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    change(record)
    (bundle / "bundle.json").write_text(json.dumps(record), encoding="utf-8")
    digest = hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest()
    others = (bundle / "SHA256SUMS").read_text().splitlines()[1:]
    (bundle / "SHA256SUMS").write_text("\n".join([f"{digest}  bundle.json", *others, ""]))


def with_sums(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path, Ground], None]:
    """A run whose bundle's record was changed so that its digests agree."""
    return spoilt(lambda bundle: rewrite_record(bundle, change))


def _tensors(shape: tuple[int, ...]) -> Callable[[Path, Ground], None]:
    def make(here: Path, ground: Ground) -> None:
        import torch
        from safetensors.torch import save_file

        save_file({"conv1.weight": torch.zeros(shape)}, here / "w.safetensors")

    return make


def _hostile_pth(here: Path, ground: Ground) -> None:
    import torch

    torch.save({"state_dict": Payload()}, here / "w.pth")


def _sums_elsewhere(bundle: Path) -> None:
    text = (bundle / "SHA256SUMS").read_text().replace("model.safetensors", "../../good.jpg")
    (bundle / "SHA256SUMS").write_text(text)


def _cut_weights(bundle: Path) -> None:
    content = (bundle / "model.safetensors").read_bytes()
    (bundle / "model.safetensors").write_bytes(content[: len(content) // 2])


MODELS = (
    Case("unknown backbone", f"{TRAIN} --set model.backbone=resnet81", ("resnet81", "did you mean"), status=2),
    Case(
        "weights that are not there",
        f"{TRAIN} --set model.weights=w.pth",
        ("weights 'w.pth'", "no such file exists", "Choose a backbone with embedded weights"),
    ),
    Case(
        "embedded weights of a network that has none",
        f"{TRAIN} --set model.weights=embedded",
        ("no package with embedded weights is known for 'test_resnet'", "Choose"),
    ),
    Case(
        "the hub without a network",
        f"{TRAIN} --set model.weights=hub",
        ("could not be fetched from the hub", "Choose"),
        environment=OFFLINE,
        process=True,
    ),
    Case(
        ".pth file with code in it",
        f"{TRAIN} --set model.weights=w.pth",
        ("not a file of tensors alone", "Save model.state_dict()"),
        _hostile_pth,
    ),
    Case(
        "bare pickle named .pth",
        f"{TRAIN} --set model.weights=w.pth",
        ("not a file of tensors alone", "Save model.state_dict()"),
        write("w.pth", pickle.dumps(Payload())),
    ),
    Case(
        "text named .pth",
        f"{TRAIN} --set model.weights=w.pth",
        ("w.pth", "Save model.state_dict()"),
        write("w.pth", "weights\n"),
    ),
    Case(
        "text named .safetensors",
        f"{TRAIN} --set model.weights=w.safetensors",
        ("cannot read weights from w.safetensors", "Choose"),
        write("w.safetensors", "weights of some network\n"),
    ),
    Case(
        "weights of another network",
        f"{TRAIN} --set model.weights=w.safetensors",
        ("do not fit test_resnet", "is missing", "Choose"),
        _tensors((7, 7)),
    ),
    Case(
        "model with one changed byte in its weights",
        PREDICT,
        ("model.safetensors is not what was saved", ADVICE),
        spoilt(lambda bundle: spoil_byte(bundle / "model.safetensors")),
        process=True,
    ),
    Case(
        "model with one changed byte in bundle.json",
        PREDICT,
        ("bundle.json is not what was saved", ADVICE),
        spoilt(lambda bundle: spoil_byte(bundle / "bundle.json")),
    ),
    Case("model cut off", PREDICT, ("model.safetensors is not what was saved", ADVICE), spoilt(_cut_weights)),
    Case(
        "model without its weights",
        PREDICT,
        ("model.safetensors", "No such file", ADVICE),
        spoilt(lambda bundle: (bundle / "model.safetensors").unlink()),
    ),
    Case(
        "model without its digests",
        PREDICT,
        ("SHA256SUMS", "No such file", ADVICE),
        spoilt(lambda bundle: (bundle / "SHA256SUMS").unlink()),
    ),
    Case(
        "model whose digests name a file elsewhere",
        PREDICT,
        ("must hold the digests of", "alone", ADVICE),
        spoilt(_sums_elsewhere),
    ),
    Case(
        "model of another version",
        PREDICT,
        ("bundle version 9", "Install a newer hemascope"),
        with_sums(lambda record: record.update(version=9)),
    ),
    Case(
        "model whose record says another backbone",
        PREDICT,
        ("run/bundle/model.safetensors does not fit", "Missing key", ADVICE),
        with_sums(lambda record: record["model"].update(backbone="test_vit")),
    ),
    Case(
        "model whose record has two classes more",
        PREDICT,
        ("run/bundle/model.safetensors does not fit", "size mismatch", ADVICE),
        with_sums(lambda record: record["class_names"].extend(["x", "y"])),
    ),
    Case(
        'model with the temperature "hot"',
        PREDICT,
        ("temperature", "must be a number above 0", "found 'hot'"),
        with_sums(lambda record: record.update(calibration={"temperature": "hot"})),
    ),
    Case(
        "folder that holds no model",
        "predict cells good.jpg -o out.csv",
        ("no model bundle at cells", "Give a bundle's folder"),
        copy_cell,
    ),
    Case("model that is not there", "predict gone good.jpg -o out.csv", ("no model bundle at gone", "Give"), copy_cell),
)
