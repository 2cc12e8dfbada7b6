"""Checks of the whole set: shortcuts and class imbalance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hemascope.audit import shortcuts
from hemascope.audit.imbalance import check_imbalance
from hemascope.audit.material import Material, Measures
from hemascope.audit.shortcuts import check_shortcuts
from hemascope.cells import CellDataset
from hemascope.embeddings import Embeddings
from hemascope.findings import CheckResult

COUNT = 240


@pytest.fixture(autouse=True)
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer trees than in earnest: what is asked here is plain enough for them, and the tests stay quick."""
    monkeypatch.setattr(shortcuts, "_TREES", 8)


def measures(count: int = COUNT, seed: int = 0) -> Measures:
    """Of images that say nothing about their class."""
    rng = np.random.default_rng(seed)

    def noise(*shape: int) -> Any:
        return rng.random((count, *shape)).astype(np.float32)

    return Measures(
        format=["JPEG"] * count,
        mode=["RGB"] * count,
        file_bytes=rng.integers(5000, 6000, count),
        file_hash=[str(i) for i in range(count)],
        size=np.full((count, 2), 96, np.int32),
        brightness=noise(),
        darkest=noise(),
        brightest=noise(),
        contrast=noise(),
        sharpness=noise(),
        entropy=noise(),
        colour=noise(3),
        border=noise(6),
        stain=noise(2),
        foreground=noise(),
        metadata=["quantisation 1"] * count,
    )


def cells(labels: Sequence[int], names: Sequence[str] = ("ig", "platelet"), **changes: Any) -> CellDataset:
    count = len(labels)
    return CellDataset(
        images=np.zeros((count, 8, 8, 3), np.uint8),
        labels=np.array(labels, dtype=np.int64),
        class_names=tuple(names),
        ids=[f"{i}.png" for i in range(count)],
        content_hash=changes.pop("content_hash", [str(i) for i in range(count)]),
        **changes,
    )


def material(measured: Measures, labelled: CellDataset) -> Material:
    return Material(labelled, measured, Embeddings(np.zeros((len(labelled), 1), np.float16), (), "none"))


def probes(result: CheckResult) -> dict[str, dict[str, Any]]:
    return {probe["name"]: probe for probe in result.summary["probes"]}


TWO = [i % 2 for i in range(COUNT)]


def test_nothing_to_be_told():
    """Where nothing but chance tells the class, the verdict is passed, and what never varies is not applicable."""
    result = check_shortcuts(material(measures(), cells(TWO)))
    tried = probes(result)
    assert result.summary["verdict"] == "passed" and result.passed and result.scores is None and not result.findings
    assert tried["border"]["low"] < 0.5 + 0.05 and not tried["border"]["found"]
    for name in ("size", "metadata"):
        assert "same in every image" in tried[name]["not_applicable"]


@pytest.mark.parametrize("name", ["size", "border", "metadata"])
def test_what_no_cell_decides_is_found(name: str):
    """A class told by size, border or metadata alone is found, with a balanced accuracy near 1 and a sentence of it."""
    labels, plain = np.array(TWO), measures()
    changed = {
        "size": lambda: replace(plain, size=(96 + 20 * labels[:, None] * np.ones((1, 2))).astype(np.int32)),
        "border": lambda: replace(plain, border=plain.border + labels[:, None].astype(np.float32)),
        "metadata": lambda: replace(plain, metadata=[f"quantisation {one}" for one in TWO]),
    }[name]()
    result = check_shortcuts(material(changed, cells(TWO)))
    assert result.summary["verdict"] == "found" and not result.passed
    told = probes(result)[name]
    assert told["found"] and told["balanced_accuracy"] > 0.95 and told["low"] > 0.9
    assert told["sentence"] in result.summary["sentence"]


def test_colour_informs_but_does_not_decide():
    """Cells differ in colour by nature: a class told by it is reported, and the verdict stays passed."""
    plain = measures()
    result = check_shortcuts(material(replace(plain, colour=plain.colour + np.array(TWO)[:, None]), cells(TWO)))
    told = probes(result)["colour"]
    assert told["found"] and told["tells_of_cell"] and "proves nothing" in told["sentence"]
    assert result.summary["verdict"] == "passed"


def test_copies_and_groups_do_not_help_a_probe():
    """Labels drawn at random for a few patients, whose borders are their own, look like a shortcut only if patients are
    split."""
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 24, COUNT)
    labels = rng.permutation([i % 2 for i in range(24)])[patient]
    own = replace(measures(), border=(rng.random((24, 6))[patient]).astype(np.float32))
    apart = check_shortcuts(material(own, cells(labels.tolist(), groups=np.array([f"p{one}" for one in patient]))))
    mixed = check_shortcuts(material(own, cells(labels.tolist())))
    copies = check_shortcuts(material(own, cells(labels.tolist(), content_hash=[str(one) for one in patient])))
    assert probes(mixed)["border"]["balanced_accuracy"] > 0.9
    assert probes(apart)["border"]["balanced_accuracy"] < 0.75
    assert probes(copies)["border"]["balanced_accuracy"] < 0.75


def test_one_seed_one_answer():
    """The same seed gives the same figures; a limit bounds the images and keeps the classes even."""
    unequal = [0] * 200 + [1] * 40
    first = check_shortcuts(material(measures(), cells(unequal)), limit=80)
    again = check_shortcuts(material(measures(), cells(unequal)), limit=80)
    assert first.summary == again.summary and first.summary["images"] == 80


def test_too_few_to_ask():
    """Without two classes of ten images, or where a class is one picture only, the check is not applicable."""
    few = check_shortcuts(material(measures(20), cells([0] * 15 + [1] * 5)))
    assert "two classes of at least 10" in few.not_applicable and not few.passed
    copies = cells([0] * 15 + [1] * 15, content_hash=[str(i) for i in range(15)] + ["same"] * 15)
    assert "platelet are copies" in check_shortcuts(material(measures(30), copies)).not_applicable


def test_imbalance_counts():
    """Counts, ratio and effective classes are those of the labels; unlabelled images are not in them."""
    labelled = cells([0] * 60 + [1] * 40 + [-1] * 5)
    result = check_imbalance(material(measures(105), labelled))
    said = result.summary
    assert (said["verdict"], said["ratio"], said["unlabelled"]) == ("passed", 1.5, 5)
    assert said["counts"] == {"ig": 60, "platelet": 40}
    assert said["effective_classes"] == pytest.approx(1.96, abs=0.01)


@pytest.mark.parametrize(("labels", "names"), [([0] * 80 + [1] * 31, "ab"), ([0] * 40 + [1] * 29, "ab"), (TWO, "abc")])
def test_imbalance_is_found(labels: list[int], names: str):
    """A ratio of 2, a class of fewer than 30 images and a class without one are each found."""
    assert check_imbalance(material(measures(len(labels)), cells(labels, names))).summary["verdict"] == "found"


def test_imbalance_needs_two_classes():
    """One class, or none, is not applicable, with the reason."""
    assert "one class" in check_imbalance(material(measures(30), cells([0] * 30))).not_applicable
    assert "no image has a label" in check_imbalance(material(measures(30), cells([-1] * 30))).not_applicable
