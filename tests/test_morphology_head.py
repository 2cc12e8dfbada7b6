"""The head that tells attributes: fitting, reading back, words, contradictions, hostile bundles."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hemascope.errors import BundleError, DataError
from hemascope.morphology.attributes import ATTRIBUTES, words_for
from hemascope.morphology.fit import fit_attributes
from hemascope.morphology.head import VALUES, AttributeHead
from hemascope.morphology.scores import score_attributes

CLASSES = ("Basophil", "eosinophil", "erythroblast", "neutrophil")
WHITE = (0, 1, 3)
# Of each class: the values that are seen in it. Shape and size vary within a class, granules do not.
USUAL = {
    0: {"granule_type": ["coarse"], "granule_colour": ["purple"], "nucleus_shape": ["irregular", "segmented-bilobed"]},
    1: {"granule_type": ["round"], "granule_colour": ["red"], "nucleus_shape": ["segmented-bilobed"]},
    3: {
        "granule_type": ["small"],
        "granule_colour": ["pink"],
        "nucleus_shape": ["unsegmented-band", "segmented-multilobed"],
    },
}
FREE = {
    "cell_size": ["small", "big"],
    "cell_shape": ["round", "irregular"],
    "nuclear_cytoplasmic_ratio": ["low", "high"],
}
FREE |= {"chromatin_density": ["densely", "loosely"], "cytoplasm_vacuole": ["no", "yes"], "granularity": ["yes", "no"]}
FREE |= {"cytoplasm_texture": ["clear", "frosted"], "cytoplasm_colour": ["light blue", "blue"]}
DIMENSIONS = 60


def draw(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Values int64 (N, 11) as USUAL and FREE allow."""
    return np.array(
        [
            [
                attribute.values.index(str(rng.choice(USUAL[label].get(name) or FREE[name])))
                for name, attribute in ATTRIBUTES.items()
            ]
            for label in labels.tolist()
        ]
    )


def features_of(values: np.ndarray, rng: np.random.Generator, noise: float = 0.3) -> np.ndarray:
    """A random direction for each value, summed over the attributes, and noise: float32 (N, DIMENSIONS)."""
    directions = np.random.default_rng(99).normal(0, 1, (len(ATTRIBUTES), 6, DIMENSIONS))
    clean = sum(directions[k, values[:, k]] for k in range(len(ATTRIBUTES)))
    return (5 + clean + rng.normal(0, noise, (len(values), DIMENSIONS))).astype(np.float32)


def made(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, values and labels of ``count`` white cells."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(WHITE, count)
    values = draw(labels, rng)
    return features_of(values, rng), values, labels


Saved = tuple[dict[str, Any], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def saved() -> Saved:
    features, values, labels = made(900, 0)
    fit = np.arange(900) < 500
    return fit_attributes(features, values, labels, CLASSES, fit=fit, choose=~fit, cut=~fit)


@pytest.fixture(scope="module")
def head(saved: Saved) -> AttributeHead:
    return AttributeHead.from_saved(*saved)


def test_known_attributes_are_told(head: AttributeHead) -> None:
    """On new cells whose features hold every attribute each is told right, with probabilities that sum to one."""
    features, values, _ = made(400, 1)
    assert (head.decide(features) == values).mean() > 0.97
    for name, probs in head.predict(features).items():
        assert probs.shape == (400, len(ATTRIBUTES[name].values)) and probs.dtype == np.float32
        assert np.allclose(probs.sum(axis=1), 1, atol=1e-4)
    results = score_attributes(head, features, values, resamples=50)
    assert [result.attribute for result in results] == list(ATTRIBUTES)
    assert all((result.macro_f1.value or 0) > 0.9 and result.published is None for result in results)


def test_scores_count_wrong_values(head: AttributeHead) -> None:
    """Where every second true value of an attribute is turned, its accuracy is one half and the others keep theirs."""
    features, values, _ = made(400, 2)
    turned = values.copy()
    turned[::2, 0] = 1 - turned[::2, 0]
    before, after = (score_attributes(head, features, each, resamples=20) for each in (values, turned))
    assert after[0].accuracy.value == pytest.approx(0.5, abs=0.05)
    assert after[1] == before[1]


def test_decisions_are_the_largest_of_the_decision_probabilities(head: AttributeHead) -> None:
    """What is scored is what is said: both go by the same numbers."""
    features, _, _ = made(50, 3)
    best = np.stack([probs.argmax(axis=1) for probs in head.decision_probs(features).values()], axis=1)
    assert (best == head.decide(features)).all()


def test_a_head_goes_through_json_and_float16_unchanged(saved: Saved, head: AttributeHead) -> None:
    """Record through JSON, arrays through copies: the same probabilities, and small enough to ship."""
    record, arrays = saved
    again = AttributeHead.from_saved(json.loads(json.dumps(record)), {k: v.copy() for k, v in arrays.items()})
    features, _, _ = made(20, 4)
    for name, probs in head.predict(features).items():
        assert np.array_equal(probs, again.predict(features)[name])
    assert all(name.startswith("words_") for name in arrays)
    at_1280 = sum(a.nbytes * (1280 / DIMENSIONS if a.shape[-1] == DIMENSIONS else 1) for a in arrays.values())
    assert at_1280 < 100 * 1024
    assert arrays["words_weight"].dtype == np.float16


def test_rows_outside_the_masks_change_nothing(saved: Saved) -> None:
    """A cell in none of the masks, such as a test cell, has no part in the fit; and fitting again gives the same."""
    features, values, labels = made(900, 0)
    fit = np.arange(900) < 500
    more = np.full((30, DIMENSIONS), np.nan, np.float32)
    out = np.zeros(30, dtype=bool)
    record, arrays = fit_attributes(
        np.concatenate([features, more]),
        np.concatenate([values, np.full((30, 11), -1)]),
        np.concatenate([labels, np.full(30, 2)]),
        CLASSES,
        fit=np.concatenate([fit, out]),
        choose=np.concatenate([~fit, out]),
        cut=np.concatenate([~fit, out]),
    )
    assert record == saved[0]
    assert all(np.array_equal(arrays[name], saved[1][name]) for name in arrays)


def test_a_value_that_was_never_seen_is_never_said(head: AttributeHead) -> None:
    """The fit held no cell without granules by type; the head keeps a place for it that is never chosen."""
    features, _, _ = made(300, 5)
    never = ATTRIBUTES["granule_type"].values.index("nil")
    assert head.predict(features)["granule_type"][:, never].max() < 1e-3


def test_planted_contradictions_are_marked_and_named(head: AttributeHead) -> None:
    """Cells with the label of another class are nearly all marked; the word told is one that class never has."""
    features, _, labels = made(400, 6)
    wrong = np.array([{0: 1, 1: 3, 3: 0}[label] for label in labels.tolist()])
    assert head.disagrees(features, CLASSES, wrong).mean() > 0.97
    said = head.describe(features, CLASSES, wrong)
    marked = [text for text in said if "; unlike a" in text]
    assert len(marked) == head.disagrees(features, CLASSES, wrong).sum()
    usual = {
        label: {words_for(name, value) for name, values in USUAL[label].items() for value in values} for label in WHITE
    }
    named = [(label, text.rpartition(": ")[2]) for label, text in zip(wrong.tolist(), said, strict=True) if ";" in text]
    assert np.mean([word not in usual[label] for label, word in named]) > 0.98
    assert np.mean([("granules" in word) or ("nucleus" in word) for _, word in named]) > 0.98
    swapped = [text for text, label in zip(said, wrong.tolist(), strict=True) if label == 3 and "unlike" in text]
    assert swapped and all("; unlike a neutrophil: " in text for text in swapped)


def test_right_labels_are_rarely_marked(head: AttributeHead) -> None:
    """On 2,000 new cells with right labels about one in a hundred is marked, as was asked."""
    features, _, labels = made(2000, 7)
    assert 0 < head.disagrees(features, CLASSES, labels).mean() < 0.03


def test_only_described_classes_get_words(head: AttributeHead) -> None:
    """Classes WBCAtt does not describe and cells without a label get no words and no mark."""
    features, _, _ = made(3, 8)
    predicted = np.array([2, -1, 1])
    said = head.describe(features, CLASSES, predicted)
    assert said[:2] == ["", ""] and said[2]
    assert head.disagrees(features, CLASSES, predicted)[:2].tolist() == [False, False]
    assert np.isneginf(head.contradiction(features, CLASSES, predicted)[:2]).all()
    assert head.describe(features, ("a", "b", "c", "d"), predicted) == ["", "", ""]
    empty = np.zeros((0, DIMENSIONS), np.float32)
    assert head.describe(empty, CLASSES, np.zeros(0, np.int64)) == []
    assert head.disagrees(empty, CLASSES, np.zeros(0, np.int64)).shape == (0,)


def test_words_are_those_of_the_values(head: AttributeHead) -> None:
    """A description names what was put into the features of a cell."""
    rng = np.random.default_rng(9)
    values = draw(np.array([1]), rng)
    for name, value in (("granularity", "yes"), ("cell_size", "small"), ("cytoplasm_vacuole", "yes")):
        values[0, list(ATTRIBUTES).index(name)] = ATTRIBUTES[name].values.index(value)
    said = head.describe(features_of(values, rng), CLASSES, np.array([1]))[0]
    for words in ("bilobed nucleus", "round red granules", "vacuolated", "small"):
        assert words in said


def test_features_of_another_kind_are_refused(head: AttributeHead) -> None:
    """Wrong width, NaN, and labels that do not fit are one sentence each."""
    features, _, labels = made(4, 10)
    with pytest.raises(DataError, match=r"shape \(N, 60\)"):
        head.predict(features[:, 1:])
    features[0, 0] = np.nan
    with pytest.raises(DataError, match="finite"):
        head.disagrees(features, CLASSES, labels)
    with pytest.raises(DataError, match="one label for each of 4"):
        head.describe(features, CLASSES, labels[:3])
    with pytest.raises(DataError, match="lie in -1 to 3"):
        head.describe(features, CLASSES, labels + 4)


def damage(name: str, change: Callable[[np.ndarray], np.ndarray | None]) -> Callable[[Any, Any], None]:
    def apply(_record: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        changed = change(arrays[f"words_{name}"].copy())
        if changed is None:
            del arrays[f"words_{name}"]
        else:
            arrays[f"words_{name}"] = changed

    return apply


def setting(key: str, value: object) -> Callable[[Any, Any], None]:
    def apply(record: dict[str, Any], _arrays: dict[str, np.ndarray]) -> None:
        record[key] = value

    return apply


def rename(record: dict[str, Any], _arrays: object) -> None:
    record["attributes"]["cell_sise"] = record["attributes"].pop("cell_size")


def revalue(record: dict[str, Any], _arrays: object) -> None:
    record["attributes"]["cell_size"]["values"] = ["big", "small"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (damage("weight", lambda _: None), "lacks the array words_weight"),
        (damage("weight", lambda a: a[:, 1:]), r"words_weight.*shape \(31, 60\)"),
        (damage("weight", lambda a: a * np.float16(np.nan)), "words_weight.*not finite"),
        (damage("weight", lambda a: a.astype(np.int64)), "must be floating"),
        (damage("weight", lambda a: a.astype(object)), "must be floating"),
        (damage("bias", lambda a: a.astype(np.float64) + 1e300), "words_bias.*not finite"),
        (damage("scale", np.zeros_like), "scale that is not above 0"),
        (damage("frequency", lambda a: a * 0), "no frequencies"),
        (damage("frequency", lambda a: a * 2), "no frequencies"),
        (damage("typical", lambda a: a[:-1]), "words_typical"),
        (setting("version", 2), "malformed at version"),
        (setting("dimensions", 10**12), "words_mean"),
        (setting("cut", float("nan")), "malformed at cut|cut for contradicting words"),
        (setting("cut", None), "malformed at cut"),
        (setting("extra", 1), "malformed at extra"),
        (setting("attributes", {}), "does not know"),
        (setting("classes", ["platelet", "eosinophil", "neutrophil"]), "the class 'platelet'"),
        (setting("classes", ["eosinophil"] * 3), "a class twice"),
        (rename, "does not know"),
        (revalue, "does not know"),
    ],
)
def test_damaged_bundles_are_refused(saved: Saved, change: Callable[[Any, Any], None], sentence: str) -> None:
    """Whatever is wrong with record or arrays is a BundleError that says what to do, before anything is computed."""
    record, arrays = json.loads(json.dumps(saved[0])), dict(saved[1])
    change(record, arrays)
    with pytest.raises(BundleError, match=sentence) as caught:
        AttributeHead.from_saved(record, arrays)
    assert "Copy the bundle again" in str(caught.value)


def test_what_cannot_be_fitted_is_refused() -> None:
    """Shapes, overlapping or empty masks, NaN, missing values, other classes and an attribute of one value."""
    features, values, labels = made(60, 11)
    fit = np.arange(60) < 40
    rest: dict[str, Any] = {"fit": fit, "choose": ~fit, "cut": ~fit}
    for sentence, changed in (
        ("same cells", (features[1:], values, labels, rest)),
        ("must not be among", (features, values, labels, rest | {"cut": fit})),
        ("each mark some", (features, values, labels, rest | {"cut": fit & False})),
        ("finite", (features * np.float32(np.nan), values, labels, rest)),
        ("known value", (features, np.where(values == 1, -1, values), labels, rest)),
        ("leave out the others", (features, values, np.full(60, 2), rest)),
        ("same classes", (features, values, np.where(fit, labels, 1), rest)),
        ("fewer than two values of cell_size", (features, values * (np.arange(11) > 0), labels, rest)),
    ):
        with pytest.raises(DataError, match=sentence):
            fit_attributes(*changed[:3], CLASSES, **changed[3])


def test_the_vocabulary_has_the_size_the_arrays_have() -> None:
    """Thirty-one values in eleven attributes, as WBCAtt has them."""
    assert (len(ATTRIBUTES), VALUES) == (11, 31)
